#!/usr/bin/env python3
"""Samples a second of `inhouse eval` and of one fresh interpreter per sample: eval.py PROBLEMS SAMPLES PYTHON [PRELOAD].

The peer runs prompt + completion + test + check() in `python -c` with the same CPU limit and no isolation at all, on as many
workers as there are processors. Starting an interpreter and importing the library is most of its time, so it runs only
every 20th sample; `inhouse eval` runs all. The two take turns.
"""

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from report import head, median, output

ROOT = Path(__file__).resolve().parents[2]
CPU_SECONDS, STRIDE, RUNS = 3, 20, 3


def rows(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt") as file:
        return [json.loads(line) for line in file if line.strip()]


def cold(python, programs):
    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))

    def run(program):
        return subprocess.run([python, "-c", program], capture_output=True, preexec_fn=limit).returncode == 0

    started = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        passed = list(workers.map(run, programs))
    return len(programs) / (time.monotonic() - started), passed


def warm(problems, samples, python, preload):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "results.jsonl")
        command = [ROOT / "target/release/inhouse", "eval", "--problems", problems, "--samples", samples, "--json", "--out", out]
        command += ["--env", f"{python}:{preload}", "--timeout", str(CPU_SECONDS)]
        report = json.loads(output([str(word) for word in command]))
        return report["samples_per_second"], [row["passed"] for row in rows(str(out))]


def main():
    if len(sys.argv) not in (4, 5):
        raise SystemExit(__doc__)
    problems_path, samples_path, python = sys.argv[1:4]
    preload = sys.argv[4] if len(sys.argv) == 5 else "pandas"
    problems = {row["task_id"]: row for row in rows(problems_path)}
    programs = []
    for sample in rows(samples_path):
        problem = problems[sample["task_id"]]
        entry = "" if problem["entry_point"] == "none" else problem["entry_point"]
        programs.append(f"{problem['prompt']}{sample['completion']}\n{problem['test']}\ncheck({entry})\n")
    head(
        f"{len(programs)} samples of {Path(samples_path).name}",
        {"inhouse": output([str(ROOT / "target/release/inhouse"), "--version"]), "python": output([python, "--version"])},
    )
    ours, theirs = [], []
    for _ in range(RUNS):
        rate, verdicts = warm(problems_path, samples_path, python, preload)
        ours.append(rate)
        rate, passed = cold(python, programs[::STRIDE])
        theirs.append(rate)
        differ = sum(a != b for a, b in zip(verdicts[::STRIDE], passed))
    print("| | samples/s, each run | median |\n|---|---|---|")
    print(f"| inhouse eval | {', '.join(f'{rate:.1f}' for rate in ours)} | {median(ours):.1f} |")
    print(f"| one interpreter per sample | {', '.join(f'{rate:.2f}' for rate in theirs)} | {median(theirs):.2f} |")
    print(f"\nRatio, pair by pair: {', '.join(f'{a / b:.1f}' for a, b in zip(ours, theirs))}.")
    print(f"Verdicts that differ on the {len(programs[::STRIDE])} samples both ran: {differ}.")


main()
