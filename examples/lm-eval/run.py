"""Runs the task of this folder with a model that only repeats what it was told: a check of harness, task and sandbox.

    python run.py          prints the harness' results as JSON

With a real model, in this folder: lm-eval --model hf --model_args pretrained=... --tasks evald_code --include_path .
"""

import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
# Nothing is fetched: the data is a file, and there is no model.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

from lm_eval import evaluator  # noqa: E402
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

#: Per function what the model answers, one after the other: right and right, wrong and right, wrong and endless.
ANSWERS = {
    "clamp": ["    return max(low, min(value, high))\n", "    return sorted((low, value, high))[1]\n"],
    "initials": ["    return name[0].upper()\n", "    return ''.join(word[0].upper() for word in name.split())\n"],
    "gaps": ["    return [b - a for a, b in zip(numbers[:-1], numbers)]\n", "    while True:\n        pass\n"],
}


class Parrot(LM):
    """Answers from a list."""

    def __init__(self):
        super().__init__()
        self._given = dict.fromkeys(ANSWERS, 0)

    def generate_until(self, requests, disable_tqdm=False):
        answers = []
        for request in requests:
            name = request.args[0].split("def ", 1)[1].split("(", 1)[0]
            answers.append(ANSWERS[name][self._given[name] % len(ANSWERS[name])])
            self._given[name] += 1
        return answers

    def loglikelihood(self, requests, disable_tqdm=False):
        raise NotImplementedError("this task asks for no likelihoods")

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError("this task asks for no likelihoods")


def main():
    """Runs the harness and prints its results."""
    # The task's path of its data is relative.
    os.chdir(HERE)
    tasks = TaskManager(include_path=HERE, include_defaults=False)
    results = evaluator.simple_evaluate(model=Parrot(), tasks=["evald_code"], task_manager=tasks, bootstrap_iters=0)
    print(json.dumps(results["results"], default=str))


if __name__ == "__main__":
    main()
