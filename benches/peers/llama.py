#!/usr/bin/env python3
"""Decode, prefill and many samples of one prompt against llama.cpp's own benches:

    llama.py PEERS MODEL [--rounds 5] [--prompt 300] [--samples 200] [--tokens 100] [--peers 8,16,32,64,200] [--sequences 16]
                         [--only stream|samples]

PEERS is a folder with `llama-bench` and `llama-batched-bench` (or `batched-bench`), linked against the very llama.cpp that
the project is (`target/release/build/llama-cpp-sys-2-*/out/build`, where libllama-common.a lies too), so that only what is
around it differs. llama-cpp-sys-2 leaves their sources out; the sdist of llama-cpp-python has them. `llama-bench` is given
as many threads and the same batches as ours; `llama-batched-bench` is tried with and without flash attention, with a shared and
with separate caches, and its best is what counts. Ours is
`target/release/llama` (`cargo build --release -p inhouse-benches --bin llama`), or $INHOUSE_BENCH. The sides run at the same time, on one
thread each, and CPU time is what counts, since the machines are shared; ours goes through sampling (temperature 0.8, top-p 0.9), text and stop rules, the peers' do not sample at all.
"""

import argparse
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from report import Run, head, median

ROOT = Path(__file__).resolve().parents[2]
OURS = Path(os.environ.get("INHOUSE_BENCH", ROOT / "target/release/llama"))


def cpu(command):
    """User and system seconds of a whole run."""
    return Run([str(word) for word in command]).cpu


def between(small, large):
    """CPU seconds of what `large` does more than `small`: start, loading and warming up fall out."""
    return cpu(large) - cpu(small)


def side_by_side(ours, peer):
    """Both at the same time, so that what else the machine does slows both alike."""
    with ThreadPoolExecutor(2) as pool:
        return tuple(side.result() for side in (pool.submit(ours), pool.submit(peer)))


def table(title, unit, pairs):
    """Rows of (ours, peer) in turns; ratios of each round."""
    ratios = sorted(ours / peer for ours, peer in pairs)
    print(f"## {title}\n\n| | {unit}, each round |\n|---|---|")
    print(f"| inhouse | {', '.join(f'{ours:.1f}' for ours, _ in pairs)} |")
    print(f"| llama.cpp | {', '.join(f'{peer:.1f}' for _, peer in pairs)} |")
    print(f"| inhouse / llama.cpp | median {median(ratios):.3f}, from {ratios[0]:.3f} to {ratios[-1]:.3f} |\n", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peers", type=Path)
    parser.add_argument("model", type=Path)
    for name, default in (("rounds", 5), ("prompt", 300), ("samples", 200), ("tokens", 100), ("single", 64), ("serial", 2), ("sequences", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--peers", dest="counts", default="8,16,32,64,200", help="parallel counts that llama-batched-bench tries")
    parser.add_argument("--only", choices=["stream", "samples"])
    a = parser.parse_args()
    peer = [a.peers / "llama-bench", "-m", a.model, "-t", 1, "-r", 1]
    batched = next(path for path in (a.peers / "llama-batched-bench", a.peers / "batched-bench") if path.exists())
    ours = [OURS, a.model, 1]
    head(
        f"{a.model.name}: one prompt, one and many samples",
        {
            "model": f"{a.model.stat().st_size / 1e6:.0f} MB, 1 thread",
            "llama.cpp": "llama-bench and llama-batched-bench on the static libraries of llama-cpp-sys-2 "
            + next((d.name for d in Path.home().glob(".cargo/registry/src/*/llama-cpp-sys-2-*")), "?").removeprefix("llama-cpp-sys-2-"),
            "measured": f"tokens per CPU second, between a short and a long run of the same command; {a.rounds} rounds, both sides at the same time",
        },
    )
    if a.only != "samples":
        stream(a, ours, peer)
    if a.only != "stream":
        samples(a, ours, batched)


def stream(a, ours, peer):
    """One stream of tokens, and one prompt."""
    decode, prefill = [], []
    few = 8
    for _ in range(a.rounds):
        decode.append(
            side_by_side(
                lambda: a.single / between([*ours, "decode", few], [*ours, "decode", few + a.single]),
                lambda: a.single / between([*peer, "-p", 0, "-n", few], [*peer, "-p", 0, "-n", few + a.single]),
            )
        )
        # Both read the prompt twice, the first time to warm up.
        prefill.append(
            side_by_side(
                lambda: 2 * a.prompt / between([*ours, "prefill", 1], [*ours, "prefill", 1 + a.prompt]),
                lambda: 2 * a.prompt / between([*peer, "-p", 1, "-n", 0], [*peer, "-p", 1 + a.prompt, "-n", 0]),
            )
        )
    table(f"One stream, {a.single} tokens (llama-bench tg)", "tokens / CPU second", decode)
    table(f"A prompt of {a.prompt} tokens (llama-bench pp)", "tokens / CPU second", prefill)


def samples(a, ours, batched):
    """Many samples of one prompt, against every way the peer has and against one after another."""
    ways = [(int(count), fa, unified) for count in a.counts.split(",") for fa in ("off", "on") for unified in (True, False)]

    def peer(way):
        count, fa, unified = way
        cells = a.prompt + count * a.tokens + 256 if unified else count * (a.prompt + a.tokens + 8)
        command = [batched, "-m", a.model, "-t", 1, "-tb", 1, "-c", cells, "-b", 2048, "-ub", 512, "-pps", "-fa", fa]
        command += ["-npp", a.prompt, "-npl", count, *(["-kvu"] if unified else [])]
        return count * (a.tokens - 1) / between([*command, "-ntg", 1], [*command, "-ntg", a.tokens])

    def together():
        command = [*ours, "samples", a.prompt, a.samples]
        seconds = between([*command, 1, a.sequences], [*command, a.tokens, a.sequences])
        return a.samples * (a.tokens - 1) / seconds

    tried = {way: peer(way) for way in ways}
    best = max(tried, key=tried.get)
    print("llama-batched-bench, tokens / CPU second, once each:\n")
    for (count, fa, unified), speed in tried.items():
        cache = "one cache" if unified else "separate caches"
        print(f"- {count} side by side, flash attention {fa}, {cache}: {speed:.1f}")
    print(flush=True)
    pairs, serial = [], []
    for _ in range(a.rounds):
        pairs.append(side_by_side(together, lambda: peer(best)))
        # One after another, each with a prompt of its own.
        seconds = between([*ours, "serial", a.prompt, 1, a.tokens], [*ours, "serial", a.prompt, 1 + a.serial, a.tokens])
        serial.append(pairs[-1][0] * seconds / (a.serial * a.tokens))
    title = f"{a.samples} samples of {a.tokens} tokens after {a.prompt}, {a.sequences} side by side (llama-batched-bench at its best: {best})"
    table(title, "tokens / CPU second", pairs)
    print(f"Together against one after another: {median(serial):.1f} times, from {min(serial):.1f} to {max(serial):.1f}.\n")
    for sequences in sorted({a.sequences, min(a.samples, 200)}):
        command = [*ours, "samples", a.prompt, a.samples, a.tokens, sequences]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
        memory = json.loads(done.stdout)
        kv = memory["kv_kib"]
        budget = 1.1 * (memory["weights_kib"] + kv)
        print(
            f"Memory, {sequences} of {a.samples} side by side: {memory['peak_kib'] / 1024:.0f} MiB at the peak; weights "
            f"{memory['weights_kib'] / 1024:.0f}, KV cells {kv / 1024:.0f}; together and 10 % {budget / 1024:.0f} MiB."
        )


main()
