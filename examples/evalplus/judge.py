"""Judges samples of EvalPlus' HumanEval+ form by evald.

    python judge.py DATASET SAMPLES [--trust isolated] [--n-workers 4]

DATASET has EvalPlus' rows (task_id, prompt, entry_point, canonical_solution, base_input, plus_input, atol), also as .gz;
SAMPLES has rows {"task_id", "solution"} or {"task_id", "completion"}. Prints pass@k with the base tests and with all tests,
and writes SAMPLES_eval_results.json as EvalPlus does. Neither solutions nor references run outside of the sandbox.
"""

import argparse
import hashlib
import json
import sys
from datetime import datetime

import evald
from evald import jsonl
from evald.pass_at_k import summarize

#: What a test is: the reference beside the inputs, and the comparison that EvalPlus documents (exact; floats, and problems
#: with a tolerance, as numpy.allclose with rtol 1e-7).
TEST = '''
import copy

# What JSON calls Infinity and NaN.
inf, nan = float("inf"), float("nan")
REFERENCE = {reference!r}
INPUTS = {inputs!r}
NAME = {name!r}
ATOL = {atol!r}


def close(out, want, atol):
    if isinstance(want, (list, tuple)):
        return type(out) is type(want) and len(out) == len(want) and all(close(o, w, atol) for o, w in zip(out, want))
    if isinstance(want, (int, float)) and isinstance(out, (int, float)):
        return out == want or abs(out - want) <= atol + 1e-7 * abs(want)
    return out == want


def floats(value):
    return isinstance(value, float) or (isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(v, float) for v in value))


def check(candidate):
    names = {{}}
    exec(REFERENCE, names)
    for number, given in enumerate(INPUTS):
        want = names[NAME](*copy.deepcopy(given))
        out = candidate(*copy.deepcopy(given))
        if NAME == "find_zero":
            # Any root will do.
            right = abs(sum(c * out**i for i, c in enumerate(given[0]))) <= ATOL
        else:
            atol = ATOL or (1e-6 if floats(want) else 0)
            right = out == want or (atol != 0 and type(out) is type(want) and close(out, want, atol))
        assert right, f"input {{number}}"
    assert True
'''

#: EvalPlus' words.
STATUS = {"passed": "pass", "timeout_cpu": "timeout", "timeout_wall": "timeout"}


def read(path, needed):
    """The rows of a file; a row that is of no use ends the program with its line."""
    rows = []
    for row in jsonl.read(path):
        missing = row.problem or next((f"no {name!r}" for name in needed if name not in row.fields), None)
        if missing:
            sys.exit(f"{path}:{row.line}: {missing}")
        rows.append((row.line, row.fields))
    return rows


def test_of(problem, kind):
    """The test of a problem's base or plus inputs."""
    return TEST.format(reference=problem["prompt"] + problem["canonical_solution"], inputs=problem[kind],
                       name=problem["entry_point"], atol=problem["atol"])  # fmt: skip


def judge(dataset, samples, trust="auto", n_workers=4, timeout=20.0):
    """Results in EvalPlus' form: ``{"date", "hash", "eval": {task_id: [...]}}``.

    ``timeout`` is in seconds, for all inputs of a sample together.
    """
    needed = ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol")
    problems = {fields["task_id"]: fields for _, fields in read(dataset, needed)}
    rows, jobs = [], []
    for line, fields in read(samples, ("task_id",)):
        problem = problems.get(fields["task_id"])
        if problem is None:
            print(f"{samples}:{line}: {fields['task_id']!r} is not in {dataset}: passed over", file=sys.stderr)
            continue
        if "solution" not in fields and "completion" not in fields:
            sys.exit(f"{samples}:{line}: neither 'solution' nor 'completion'")
        solution = fields["solution"] if "solution" in fields else problem["prompt"] + fields["completion"]
        rows.append({"task_id": fields["task_id"], "solution": solution})
        for kind in ("base_input", "plus_input"):
            jobs.append(evald.Job(solution, test_of(problem, kind), problem["entry_point"], problem["prompt"], trust,
                                  evald.Limits(cpu=timeout, wall=timeout), id=f"{fields['task_id']} {kind}"))  # fmt: skip
    unseen = sorted(problems.keys() - {row["task_id"] for row in rows})
    if unseen:
        sys.exit(f"{samples} has no sample of {len(unseen)} problems, such as {unseen[0]!r}")
    with evald.Client(slots=n_workers) as client:
        for result in client.run_all(jobs):
            row, kind = rows[result.index // 2], ("base", "plus")[result.index % 2]
            if result.verdict == "infra_error":
                raise SystemExit(f"{result.id}: the sandbox failed: {result.detail}")
            row[f"{kind}_status"] = STATUS.get(result.verdict, "fail")
            row[f"{kind}_fail_tests"] = []
            row[f"{kind}_detail"] = result.detail
    with open(dataset, "rb") as file:
        digest = hashlib.md5(file.read()).hexdigest()  # noqa: S324: EvalPlus' name for a dataset
    found = {"date": datetime.now().strftime("%Y-%m-%d %H:%M"), "hash": digest, "eval": {}}
    for row in rows:
        found["eval"].setdefault(row["task_id"], []).append(row)
    return found


def scores(results, ks=(1, 10, 100)):
    """pass@k with the base tests, and with base and plus tests."""
    tasks = results["eval"].values()
    base = summarize(((len(task), sum(row["base_status"] == "pass" for row in task)) for task in tasks), ks)
    both = ((len(task), sum(row["base_status"] == row["plus_status"] == "pass" for row in task)) for task in tasks)
    return base, summarize(both, ks)


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("samples")
    parser.add_argument("--trust", choices=("auto", "isolated", "in_process"), default="auto")
    parser.add_argument("--n-workers", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for all inputs of a sample (default: %(default)s)")
    given = parser.parse_args()
    try:
        results = judge(given.dataset, given.samples, given.trust, given.n_workers, given.timeout)
    except evald.EvaldError as error:
        sys.exit(f"evald: {error}")
    path = given.samples.replace(".jsonl", "_eval_results.json")
    if path == given.samples:
        sys.exit(f"{given.samples}: expected a name with .jsonl")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(results, file)
    for name, values in zip(("humaneval (base tests)", "humaneval+ (base + extra tests)"), scores(results)):
        print(name)
        for key, value in values.items():
            print(f"{key}:\t{value:.3f}")


if __name__ == "__main__":
    main()
