#!/usr/bin/env python3
"""evald against what people use, and what its walls cost: eval.py PROBLEMS SAMPLES PYTHON [PRELOAD].

Rate: `inhouse eval` against one fresh interpreter per sample (`python -c` with prompt + completion + test + check()) with the
same CPU, memory, file-size and core limits and no isolation at all, on as many workers as there are processors. Starting an
interpreter and importing the library is most of its time, so it runs only every 20th sample; `inhouse eval` runs all. The
two take turns.

Isolation: CPU time per sample of evald (daemon, warm interpreters and samples) against the same fork from an interpreter that
has imported the library, in plain Python, with the same rlimits, no namespaces, no mounts, no Landlock, no seccomp. All
samples, in turns.

Kills: endless loops under evald; what the CPU clock showed beyond the limit as the signal was sent, as evald measures it.
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

from daemon import TARGET, Daemon, run
from report import head, median, output

CPU_SECONDS, STRIDE, RUNS = 3, 20, 3
MEMORY, FILE_SIZE = 1 << 30, 64 << 20
KILLS = 100


def rows(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt") as file:
        return [json.loads(line) for line in file if line.strip()]


def cold(python, programs):
    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def one(program):
        return subprocess.run([python, "-c", program], capture_output=True, preexec_fn=limit).returncode == 0

    started = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        passed = list(workers.map(one, programs))
    return len(programs) / (time.monotonic() - started), passed


def warm(problems, samples, python, preload):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "results.jsonl")
        command = [TARGET / "inhouse", "eval", "--problems", problems, "--samples", samples, "--json", "--out", out]
        command += ["--env", f"{python}:{preload}", "--timeout", str(CPU_SECONDS)]
        report = json.loads(output([str(word) for word in command]))
        return report["samples_per_second"], [row["passed"] for row in rows(str(out))], report["tier"]


# Runs in PYTHON: one warm zygote per processor, one fork per sample, the bare minimum around it. Prints CPU seconds.
BARE = """
import gc, importlib, json, os, resource, sys
preload, cpu, memory, size, workers = sys.argv[1], *map(int, sys.argv[2:])
programs = json.load(sys.stdin)
for name in preload.split(","):
    importlib.import_module(name)
gc.collect(); gc.freeze()
status = {line.split(":")[0]: line.split()[1] for line in open("/proc/self/status") if ":" in line and line.split()[1:]}
data = int(status["VmData"]) * 1024

def sample(code, test):
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    resource.setrlimit(resource.RLIMIT_DATA, (data + memory, data + memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        namespace = {"__name__": "__main__"}
        exec(compile(code, "<candidate>", "exec"), namespace)
        exec(compile(test, "<test>", "exec"), namespace)
    except BaseException:
        os._exit(1)
    os._exit(0)

before = resource.getrusage(resource.RUSAGE_SELF)
slots = []
for worker in range(workers):
    end, other = os.pipe()
    pid = os.fork()
    if pid == 0:
        passed = 0
        for code, test in programs[worker::workers]:
            child = os.fork()
            if child == 0:
                sample(code, test)
            passed += os.waitpid(child, 0)[1] == 0
        os.write(other, str(passed).encode())
        os._exit(0)
    os.close(other)
    slots.append(end)
passed = sum(int(os.read(end, 20)) for end in slots)
for _ in slots:
    os.wait()
after, below = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
cpu_used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + below.ru_utime + below.ru_stime
print(json.dumps({"cpu": cpu_used, "passed": passed}))
"""


def bare(python, preload, texts):
    limits = [str(CPU_SECONDS), str(MEMORY), str(FILE_SIZE), str(os.cpu_count())]
    environment = {"PATH": "/usr/bin:/bin", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    command = [python, "-B", "-c", BARE, preload, *limits]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, env=environment, check=True)
    told = json.loads(done.stdout)
    return told["cpu"] * 1e3 / len(texts), told["passed"]


def walled(daemon, texts):
    limits = {"cpu_ms": CPU_SECONDS * 1000, "memory_bytes": MEMORY}
    stream, passed, before = daemon.connect(), 0, daemon.cpu()
    for _, row in run(stream, ((code, test, limits) for code, test in texts)):
        passed += row["passed"]
    return (daemon.cpu() - before) * 1e3 / len(texts), passed


def kills(daemon):
    stream = daemon.connect()
    jobs = [("while True: pass\n", "", {"cpu_ms": 200, "wall_ms": 60000})] * KILLS
    if any(row["verdict"] != "timeout_cpu" for _, row in run(stream, jobs)):
        raise SystemExit("an endless loop had another verdict than timeout_cpu")
    counted = daemon.metrics()
    total, count = (counted[f"evald_kill_overshoot_seconds_{what}"] for what in ("sum", "count"))
    buckets = {name.split('"')[1]: n for name, n in counted.items() if name.startswith("evald_kill_overshoot_seconds_bucket")}
    return total / count * 1e3, int(count), buckets


def main():
    if len(sys.argv) not in (4, 5):
        raise SystemExit(__doc__)
    problems_path, samples_path, python = sys.argv[1:4]
    preload = sys.argv[4] if len(sys.argv) == 5 else "pandas"
    problems = {row["task_id"]: row for row in rows(problems_path)}
    texts = []
    for sample in rows(samples_path):
        problem = problems[sample["task_id"]]
        entry = "" if problem["entry_point"] == "none" else problem["entry_point"]
        texts.append((problem["prompt"] + sample["completion"], f"{problem['test']}\ncheck({entry})\n"))
    programs = [f"{code}\n{test}" for code, test in texts]
    versions = {"inhouse": output([str(TARGET / "inhouse"), "--version"]), "python": output([python, "--version"])}
    for module in preload.split(","):
        versions[module] = output([python, "-c", f"import {module}; print(getattr({module}, '__version__', 'no version'))"])
    head(f"{len(programs)} samples of {Path(samples_path).name}", versions)

    ours, theirs = [], []
    print("## Rate\n")
    print("| run | load | inhouse eval, samples/s | one interpreter per sample, samples/s | ratio |\n|---|---|---|---|---|")
    for turn in range(RUNS):
        load = os.getloadavg()[0]
        rate, verdicts, tier = warm(problems_path, samples_path, python, preload)
        ours.append(rate)
        rate, passed = cold(python, programs[::STRIDE])
        theirs.append(rate)
        differ = sum(a != b for a, b in zip(verdicts[::STRIDE], passed))
        print(f"| {turn + 1} | {load:.1f} | {ours[-1]:.1f} | {theirs[-1]:.2f} | {ours[-1] / theirs[-1]:.1f} |", flush=True)
    print(f"\nMedian ratio {median(a / b for a, b in zip(ours, theirs)):.1f}; tier {tier}.")
    print(f"Verdicts that differ on the {len(programs[::STRIDE])} samples both ran: {differ}.\n")

    print("## Isolation: CPU ms per sample\n")
    print("| run | load | bare fork | evald T2 | walls | evald T3 | walls |\n|---|---|---|---|---|---|---|")
    with Daemon(f"pd={python}:{preload}", "--tier", "T2") as two, Daemon(f"pd={python}:{preload}", "--tier", "T3") as three:
        for daemon in (two, three):
            walled(daemon, texts[:20])
        costs = []
        for turn in range(RUNS):
            load = os.getloadavg()[0]
            (plain, a), (t2, b), (t3, c) = bare(python, preload, texts), walled(two, texts), walled(three, texts)
            if not a == b == c:
                print(f"\nPassed: bare {a}, T2 {b}, T3 {c}\n")
            costs.append((t2 - plain, t3 - plain))
            print(f"| {turn + 1} | {load:.1f} | {plain:.2f} | {t2:.2f} | {t2 - plain:+.2f} | {t3:.2f} | {t3 - plain:+.2f} |", flush=True)
        print(f"\nMedian cost: T2 {median(cost[0] for cost in costs):+.2f} ms, T3 {median(cost[1] for cost in costs):+.2f} ms.\n")
        counted = two.metrics()
        forks = counted["evald_fork_seconds_sum"] / counted["evald_fork_seconds_count"] * 1e3
        print(f"From the fork to the candidate's start, T2, wall clock, mean: {forks:.2f} ms.\n")

        print("## Kill overshoot\n")
        for name, daemon in (("T2", two), ("T3", three)):
            mean, count, buckets = kills(daemon)
            within = ", ".join(f"{int(n)} within {float(bound) * 1e3:g} ms" for bound, n in buckets.items() if bound != "+Inf" and float(bound) <= 0.1)
            print(f"{name}: {count} kills of endless loops, mean {mean:.2f} ms; {within}.")


main()
