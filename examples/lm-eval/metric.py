"""What evald_code.yaml calls: prompts and responses made programs, and their pass@k by evald."""

from evald import code_eval


def programs(resps, docs):
    """The programs of each problem: its prompt with each response behind it."""
    return [[doc["prompt"] + response for response in responses] for responses, doc in zip(resps, docs)]


def pass_at_k(references, predictions, k=(1,)):
    """pass@k of one problem's programs; the harness takes the mean over problems."""
    return code_eval.compute(references=references, predictions=predictions, k=k)[0]
