#!/usr/bin/env python3
"""What it costs to keep tests out of their candidate's reach: isolation.py PROBLEMS SAMPLES PYTHON [PRELOAD [STRIDE]].

CPU time per sample of evald (daemon, warm interpreters and samples), every STRIDE-th sample (default 8), with `trust` in_process
and isolated, in turns.
"""

import gzip
import json
import sys

from daemon import Daemon
from report import head, median, output

RUNS = 3
problems_file, samples_file, python = sys.argv[1:4]
preload = sys.argv[4] if len(sys.argv) > 4 else ""
STRIDE = int(sys.argv[5]) if len(sys.argv) > 5 else 8


def rows(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt") as file:
        return [json.loads(line) for line in file if line.strip()]


def ask(stream, jobs, window=4):
    """Runs jobs on a connection; their verdicts in order."""
    lines, verdicts, sent = stream.makefile("r"), [None] * len(jobs), 0
    for done in range(len(jobs)):
        while sent < len(jobs) and sent - done < window:
            stream.sendall(json.dumps({"op": "run", "id": str(sent), **jobs[sent]}).encode() + b"\n")
            sent += 1
        reply = json.loads(lines.readline())
        verdicts[int(reply["id"])] = (reply["verdict"], reply["trust"])
    return verdicts


problems = {row["task_id"]: row for row in rows(problems_file)}
jobs = []
for sample in rows(samples_file)[::STRIDE]:
    problem = problems[sample["task_id"]]
    entry = problem.get("entry_point", "none")
    jobs.append(
        {
            "code": problem["prompt"] + sample["completion"],
            "prompt": problem["prompt"],
            "test": problem["test"],
            "entry_point": "" if entry == "none" else entry,
        }
    )
head("evald: tests in the candidate's process and out of its reach", {"python": output([python, "--version"])})
figures = {"in_process": [], "auto": []}
said = {}
with Daemon(f"py={python}" + (f":{preload}" if preload else "")) as daemon:
    stream = daemon.connect()
    for trust in figures:
        ask(stream, [{**job, "trust": trust} for job in jobs[:8]])
    for _ in range(RUNS):
        for trust, taken in figures.items():
            before = daemon.cpu()
            said[trust] = ask(stream, [{**job, "trust": trust} for job in jobs])
            taken.append((daemon.cpu() - before) / len(jobs) * 1e3)
for trust, taken in figures.items():
    print(f"{trust}: CPU a sample, ms: {', '.join(f'{ms:.1f}' for ms in taken)}")
isolated = sum(trust == "isolated" for _, trust in said["auto"])
differ = sum(one[0] != other[0] for one, other in zip(*said.values()))
print(f"{len(jobs)} samples, {isolated} isolated; verdicts that differ: {differ}")
print(f"isolated over in_process: {median(figures['auto']) / median(figures['in_process']):.2f}")
