"""What evald_code.yaml calls: prompts and responses made programs, and their pass@k by evald."""

import evald
from evald import code_eval

_client = None


def programs(resps, docs):
    """The programs of each problem: its prompt with each response behind it."""
    return [[doc["prompt"] + response for response in responses] for responses, doc in zip(resps, docs)]


def pass_at_k(references, predictions, k=(1,)):
    """pass@k of one problem's programs; the harness takes the mean over problems."""
    global _client
    if _client is None:
        # One daemon for all problems; it ends with this process.
        _client = evald.Client()
    ks = [k] if isinstance(k, int) else list(k)
    return code_eval.compute(references=references, predictions=predictions, k=ks, client=_client)[0]
