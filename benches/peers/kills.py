#!/usr/bin/env python3
"""kill -9 of `inhouse eval` and of its evald at random moments of one evaluation: kills.py PROBLEMS SAMPLES PYTHON PRELOAD [EACH]

EACH (default 10) of both, in random order, each after a random part of what is left; then the run goes on to its end. Held
against an undisturbed run: the same rows but for times and addresses of objects in messages, and no process, mount, cgroup or temporary folder that was not
there before. Exits with 1 where they differ. SEED in the environment repeats the choice of moments.
"""

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from daemon import TARGET
from report import head, output

MARK = "INHOUSE_KILLS_RUN"


def rows(path):
    with open(path) as file:
        found = [json.loads(line) for line in file]
    for row in found:
        del row["cpu_ms"], row["wall_ms"]
        # "<function f at 0x7f...>": where an interpreter's objects lie differs from start to start.
        row["detail"] = re.sub(r"\b0x[0-9a-f]+", "0x", row["detail"])
    return found


def journalled(path):
    try:
        return max(0, Path(path).read_bytes().count(b"\n") - 1)
    except OSError:
        return 0


def processes():
    """pid -> (parent, start time, state) of everything that runs."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path("/proc", name, "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(name)] = (int(fields[1]), fields[19])
    return found


def family(mark):
    """All processes with the mark in their environment and all below them, as (pid, start time)."""
    everything, marked = processes(), set()
    for pid in everything:
        try:
            if f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                marked.add(pid)
        except OSError:
            pass
    more = True
    while more:
        more = {pid for pid, (parent, _) in everything.items() if parent in marked and pid not in marked}
        marked |= more
    return {(pid, everything[pid][1]) for pid in marked}


def evald_of(inhouse):
    children = [pid for pid, (parent, _) in processes().items() if parent == inhouse.pid]
    return children[0] if children else None


def surroundings(temporary):
    """Mounts by what they are (not by id), cgroup folders, and temporary folders."""
    mounts = sorted(" ".join(line.split()[2:]) for line in open("/proc/self/mountinfo"))
    cgroups = sorted(str(path) for path in Path("/sys/fs/cgroup").rglob("*") if path.is_dir())
    return {"mounts": mounts, "cgroups": cgroups, "temporary": sorted(os.listdir(temporary))}


def main():
    if len(sys.argv) not in (5, 6):
        raise SystemExit(__doc__)
    problems, samples, python, preload = sys.argv[1:5]
    each = int(sys.argv[5]) if len(sys.argv) == 6 else 10
    seed = int(os.environ.get("SEED", time.time_ns() % 10**9))
    chance = random.Random(seed)
    with (gzip.open if samples.endswith(".gz") else open)(samples, "rt") as file:
        total = sum(1 for line in file if line.strip())
    head(
        f"{each} kills of evald and {each} of inhouse in one evaluation of {total} samples",
        {"inhouse": output([str(TARGET / "inhouse"), "--version"]), "seed": seed},
    )
    faults = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as temporary:
        def start(out, mark):
            command = [TARGET / "inhouse", "--progress", "json", "eval", "--problems", problems, "--samples", samples]
            command += ["--env", f"{python}:{preload}", "--timeout", "20", "--json", "--out", out]
            environment = {**os.environ, MARK: mark, "TMPDIR": temporary}
            return subprocess.Popen(
                [str(word) for word in command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )

        before = surroundings(temporary)
        whole = start("undisturbed.jsonl", "undisturbed")
        report, said = whole.communicate()
        if whole.returncode:
            raise SystemExit(f"the undisturbed run failed: {said.decode()}")
        undisturbed = json.loads(report)
        expected = rows(Path(folder, "undisturbed.jsonl"))
        print("| kill | of | results kept | processes that ended with it, of which after 60 s left |\n|---|---|---|---|")
        journal, kept = Path(folder, "killed.jsonl.journal"), 0
        victims = ["evald", "inhouse"] * each
        chance.shuffle(victims)
        for turn, victim in enumerate(victims):
            run = start("killed.jsonl", f"turn-{turn}")
            # Some come while modules are imported, the others after a random part of this turn's share of what is left.
            if chance.random() < 0.2:
                time.sleep(chance.random() * 0.7)
            else:
                goal = kept + chance.randrange(max(1, 2 * (total - kept) // (len(victims) - turn + 1)))
                while run.poll() is None and journalled(journal) < min(goal, total - 1):
                    time.sleep(0.001)
                time.sleep(chance.random() * 0.02)
            pid = evald_of(run) if victim == "evald" else run.pid
            members = family(f"turn-{turn}")
            if run.poll() is not None or pid is None:
                print(f"| {turn + 1} | {victim} | {journalled(journal)} | came too late or too early |")
                run.kill()
                run.communicate()
                continue
            os.kill(pid, signal.SIGKILL)
            run.communicate()
            patience, left = time.monotonic() + 60, members
            while left and time.monotonic() < patience:
                time.sleep(0.02)
                now = processes()
                left = {one for one in members if now.get(one[0], (0, ""))[1] == one[1]} | family(f"turn-{turn}")
            now = journalled(journal)
            print(f"| {turn + 1} | {victim} | {now} | {len(members)}, {len(left)} |", flush=True)
            if left:
                faults.append(f"processes of turn {turn + 1} are left: {left}")
            if now < kept or Path(folder, "killed.jsonl").exists() or run.returncode == 0:
                faults.append(f"turn {turn + 1}: {kept} results, then {now}; status {run.returncode}")
            kept = now
        last = start("killed.jsonl", "last")
        report, said = last.communicate()
        if last.returncode:
            raise SystemExit(f"the last run failed: {said.decode()}")
        resumed = json.loads(report)
        for figure in ("pass@1", "pass@10", "problems", "samples", "verdicts", "tier"):
            if resumed[figure] != undisturbed[figure]:
                faults.append(f"{figure}: {undisturbed[figure]} undisturbed, {resumed[figure]} resumed")
        got = rows(Path(folder, "killed.jsonl"))
        different = sum(a != b for a, b in zip(got, expected)) + abs(len(got) - len(expected))
        print(f"\nResumed with {resumed['resumed']} of {total} results; rows that differ from the undisturbed run's: {different}.")
        if different:
            faults.append(f"{different} rows differ")
        after = surroundings(temporary)
        for what, there in before.items():
            new = sorted(set(after[what]) - set(there))
            print(f"Left behind, {what}: {new or 'none'} ({len(there)} before, {len(after[what])} after).")
            if new:
                faults.append(f"{what}: {new}")
    print("\n" + ("\n".join(f"FAULT: {fault}" for fault in faults) or "No fault."))
    raise SystemExit(bool(faults))


main()
