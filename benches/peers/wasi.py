#!/usr/bin/env python3
"""evald's tier T4 against `wasmtime run` per sample: wasi.py WASI PYTHON [SAMPLES]. Needs PyPI's wasmtime 48 for its own side.

WASI is the folder that scripts/wasi.sh fills. Both run the same python.wasm on the same version of wasmtime, on trivial samples
(a function and an assertion). The peer keeps its compiled module and makes a fresh instance per sample, with the standard
library as its only folder, and runs `python -c SAMPLE` in it: what the command `wasmtime run` does, without the start of a
process. CPU seconds are those of all processes of a side; the two take turns.

Then kills of endless loops, and what a sample that sleeps holds in memory.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import wasmtime

from daemon import Daemon, run
from report import head, median, output

RUNS, KILLS = 5, 100
CODE = "def double(x):\n    return x + x\n"
TEST = "assert [double(n) for n in range(10)] == list(range(0, 20, 2))\nassert double('a') == 'aa'\n"


class Peer:
    def __init__(self, wasi):
        self.wasi = wasi
        self.engine = wasmtime.Engine(wasmtime.Config())
        self.module = wasmtime.Module.from_file(self.engine, str(Path(wasi, "python.wasm")))
        self.linker = wasmtime.Linker(self.engine)
        self.linker.define_wasi()

    def passes(self, program):
        store, world = wasmtime.Store(self.engine), wasmtime.WasiConfig()
        world.argv = ["python", "-I", "-S", "-B", "-c", program]
        world.preopen_dir(self.wasi, "/")
        store.set_wasi(world)
        instance = self.linker.instantiate(store, self.module)
        try:
            instance.exports(store)["_start"](store)
        except wasmtime.ExitTrap as ended:
            return ended.code == 0
        return True


def peer_ms(peer, count):
    before = time.process_time()
    if not all(peer.passes(f"{CODE}\n{TEST}") for _ in range(count)):
        raise SystemExit("the peer fails a sample")
    return (time.process_time() - before) * 1e3 / count


def evald_ms(daemon, count):
    before = daemon.cpu()
    stream = daemon.connect()
    limits = {"cpu_ms": 3000}
    wrong = [row for _, row in run(stream, ((CODE, TEST, limits) for _ in range(count))) if not row["passed"]]
    if wrong:
        raise SystemExit(f"evald fails a sample: {wrong[0]}")
    return (daemon.cpu() - before) * 1e3 / count


def kills(daemon):
    jobs = [("while True: pass\n", "", {"cpu_ms": 200, "wall_ms": 60000})] * KILLS
    if any(row["verdict"] != "timeout_cpu" for _, row in run(daemon.connect(), jobs)):
        raise SystemExit("an endless loop had another verdict than timeout_cpu")
    counted = daemon.metrics()
    total, count = (counted[f"evald_kill_overshoot_seconds_{what}"] for what in ("sum", "count"))
    buckets = {name.split('"')[1]: n for name, n in counted.items() if name.startswith("evald_kill_overshoot_seconds_bucket")}
    within = ", ".join(f"{int(n)} within {float(bound) * 1e3:g} ms" for bound, n in buckets.items() if bound != "+Inf" and float(bound) <= 0.1)
    print(f"{int(count)} kills of endless loops, mean {total / count * 1e3:.2f} ms; {within}.\n")


def memory(daemon):
    """What processes hold, KiB: of their own, and their share of what they share."""

    def held(pid):
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()[1:]
        kib = {name: int(rest.split()[0]) for name, rest in (line.split(":", 1) for line in lines)}
        return kib["Rss"], kib["Pss"], kib["Private_Clean"] + kib["Private_Dirty"]

    print("| process | resident KiB | proportional KiB | its own KiB |\n|---|---|---|---|")
    stream = daemon.connect()
    request = {"op": "run", "id": "s", "code": f"{CODE}{TEST}\nimport time\ntime.sleep(3)", "limits": {"wall_ms": 2500}}
    stream.sendall(json.dumps(request).encode() + b"\n")
    time.sleep(1.5)
    tree = daemon.tree()
    for name, pid in [("daemon", tree[0]), ("master", tree[1]), ("slot", tree[2]), ("sample", tree[-1])]:
        print(f"| {name} | {' | '.join(f'{kib:,}' for kib in held(pid))} |")
    print()


def main():
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    wasi, python = str(Path(sys.argv[1]).resolve()), sys.argv[2]
    count = int(sys.argv[3]) if len(sys.argv) == 4 else 500
    os.environ["EVALD_WASI"] = wasi
    versions = {"wasmtime": f"{version('wasmtime')} (peer), 48 (evald)", "python": output([python, "--version"])}
    head("evald T4 against an instance of wasmtime per sample", versions)
    peer = Peer(wasi)
    print("CPU ms per sample, and samples per second and core:\n")
    print("| run | load | evald T4, ms | samples/s | wasmtime per sample, ms | samples/s | ratio |\n|---|---|---|---|---|---|---|")
    with Daemon(f"py={python}", "--tier", "T4") as daemon:
        evald_ms(daemon, 20), peer_ms(peer, 2)
        ours, theirs = [], []
        for turn in range(RUNS):
            load = os.getloadavg()[0]
            ours.append(evald_ms(daemon, count))
            theirs.append(peer_ms(peer, max(count // 20, 5)))
            a, b = ours[-1], theirs[-1]
            print(f"| {turn + 1} | {load:.1f} | {a:.2f} | {1e3 / a:.0f} | {b:.1f} | {1e3 / b:.1f} | {b / a:.1f} |", flush=True)
        ratio = median(b / a for a, b in zip(ours, theirs))
        print(f"\nMedian: {median(ours):.2f} ms, {1e3 / median(ours):.0f} samples per second and core; ratio {ratio:.1f}.\n")
        counted = daemon.metrics()
        forks = counted["evald_fork_seconds_sum"] / counted["evald_fork_seconds_count"] * 1e3
        print(f"From the fork to the candidate's start, wall clock, mean: {forks:.2f} ms.\n")
        print("## Kill overshoot\n")
        kills(daemon)
    print("## Memory\n")
    with Daemon(f"py={python}", "--tier", "T4", "--slots", "1") as daemon:
        evald_ms(daemon, 20)
        memory(daemon)


main()
