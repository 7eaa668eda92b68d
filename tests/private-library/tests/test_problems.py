"""The problem set keeps its promises: see check_problems.py."""

import contextlib
import io
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import check_problems  # noqa: E402


class Problems(unittest.TestCase):
    def test_problem_set(self):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            status = check_problems.main()
        self.assertEqual(status, 0, said.getvalue())

    def test_the_check_notices_a_wrong_solution(self):
        row = {"task_id": "t", "prompt": "x =", "entry_point": "none", "test": "def check():\n    assert x == 2\n"}
        self.assertIsNone(check_problems.run(row, " 2"))
        self.assertIn("AssertionError", check_problems.run(row, " 3"))
        self.assertIn("SyntaxError", check_problems.run(row, " ("))


if __name__ == "__main__":
    unittest.main()
