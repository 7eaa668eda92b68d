"""The recipes of examples/, with the packages that they are for."""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "examples")
RECIPES = os.environ.get("EVALD_RECIPES", "").split()


def judge_module():
    spec = importlib.util.spec_from_file_location("judge", os.path.join(EXAMPLES, "evalplus", "judge.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class EvalPlus(unittest.TestCase):
    def setUp(self):
        self.dataset = os.path.join(EXAMPLES, "evalplus", "dataset.jsonl")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.samples = shutil.copy(os.path.join(EXAMPLES, "evalplus", "samples.jsonl"), folder.name)

    def statuses(self, results):
        return [(row["base_status"], row["plus_status"]) for task in results["eval"].values() for row in task]

    def test_the_command(self):
        command = [sys.executable, os.path.join(EXAMPLES, "evalplus", "judge.py"), self.dataset, self.samples, "--timeout=2"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        self.assertEqual([line for line in ended.stdout.splitlines() if "pass@1" in line], ["pass@1:\t0.833", "pass@1:\t0.333"])
        with open(self.samples.replace(".jsonl", "_eval_results.json"), encoding="utf-8") as file:
            self.assertEqual(len(self.statuses(json.load(file))), 6)

    @unittest.skipUnless("evalplus" in RECIPES, "evalplus is not installed")
    def test_same_statuses_as_evalplus(self):
        from evalplus.eval import untrusted_check
        from evalplus.gen.util import trusted_exec

        with contextlib.redirect_stdout(io.StringIO()):
            ours = judge_module().judge(self.dataset, self.samples, timeout=2.0)
        with open(self.dataset, encoding="utf-8") as file:
            problems = {problem["task_id"]: problem for problem in map(json.loads, file)}
        theirs = []
        for task_id, task in ours["eval"].items():
            problem = problems[task_id]
            for row in task:
                pair = []
                for kind in ("base_input", "plus_input"):
                    reference = problem["prompt"] + problem["canonical_solution"]
                    expected, times = trusted_exec(reference, problem[kind], problem["entry_point"], record_time=True)
                    status, _ = untrusted_check("humaneval", row["solution"], problem[kind], problem["entry_point"],
                                                expected, problem["atol"], times, fast_check=True)  # fmt: skip
                    pair.append(status)
                theirs.append(tuple(pair))
        # EvalPlus' time limit is an exception in the sample, which may end as `fail` as well as `timeout`.
        self.assertEqual([tuple("fail" if s == "timeout" else s for s in pair) for pair in self.statuses(ours)],
                         [tuple("fail" if s == "timeout" else s for s in pair) for pair in theirs])  # fmt: skip


@unittest.skipUnless("lm-eval" in RECIPES, "lm-eval is not installed")
class LmEval(unittest.TestCase):
    def test_the_harness_with_a_model_that_answers_from_a_list(self):
        with tempfile.TemporaryDirectory() as home:
            command = [sys.executable, os.path.join(EXAMPLES, "lm-eval", "run.py")]
            ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HOME": home})
            self.assertEqual(ended.returncode, 0, ended.stderr)
        found = json.loads(ended.stdout.splitlines()[-1])["evald_code"]
        # Of 2 samples each: both, one and none are right.
        self.assertAlmostEqual(found["pass@1,programs"], 1 / 2)
        self.assertAlmostEqual(found["pass@2,programs"], 2 / 3)
