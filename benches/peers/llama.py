#!/usr/bin/env python3
"""Decode, prefill and many samples of one prompt against llama.cpp's own benches:

    llama.py PEERS MODEL [--rounds 5] [--prompt 300] [--samples 200] [--tokens 100] [--sequences 32,64,128,200]

PEERS is a folder with `llama-bench` and `llama-batched-bench` (or `batched-bench`), linked against the very llama.cpp that
the project is (`target/release/build/llama-cpp-sys-2-*/out/lib`), so that only what is around it differs. Ours is
`target/release/llama` (`cargo build --release -p inhouse-benches --bin llama`), or $INHOUSE_BENCH. The sides take turns, on one
thread, and CPU time is what counts, since the machines are shared; ours goes through sampling (temperature 0.8, top-p 0.9), text and stop rules, the peers' do not sample at all.
"""

import argparse
import json
import os
import subprocess
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
    for name, default in (("rounds", 5), ("prompt", 300), ("samples", 200), ("tokens", 100), ("single", 64), ("serial", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sequences", default="32,64,128,200", help="parallel counts that llama-batched-bench tries")
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
            "measured": f"tokens per CPU second, between a short and a long run of the same command; {a.rounds} rounds, in turns",
        },
    )
    decode, prefill = [], []
    few = 8
    for _ in range(a.rounds):
        decode.append(
            (
                a.single / between([*ours, "decode", few], [*ours, "decode", few + a.single]),
                a.single / between([*peer, "-p", 0, "-n", few], [*peer, "-p", 0, "-n", few + a.single]),
            )
        )
        # Both read the prompt twice, the first time to warm up.
        prefill.append(
            (
                2 * a.prompt / between([*ours, "prefill", 1], [*ours, "prefill", 1 + a.prompt]),
                2 * a.prompt / between([*peer, "-p", 1, "-n", 0], [*peer, "-p", 1 + a.prompt, "-n", 0]),
            )
        )
    table(f"One stream, {a.single} tokens (llama-bench tg)", "tokens / CPU second", decode)
    table(f"A prompt of {a.prompt} tokens (llama-bench pp)", "tokens / CPU second", prefill)

    counts = [int(count) for count in a.sequences.split(",")]
    pairs, serial, speeds = [], [], {count: [] for count in counts}
    for _ in range(a.rounds):
        for count in counts:
            command = [batched, "-m", a.model, "-t", 1, "-tb", 1, "-c", a.prompt + count * a.tokens + 256, "-b", 2048]
            command += ["-ub", 512, "-pps", "-kvu", "-npp", a.prompt, "-npl", count]
            seconds = between([*command, "-ntg", 1], [*command, "-ntg", a.tokens])
            speeds[count].append(count * (a.tokens - 1) / seconds)
        samples = [*ours, "samples", a.prompt, a.samples]
        seconds = between([*samples, 1, a.samples], [*samples, a.tokens, a.samples])
        together = a.samples * (a.tokens - 1) / seconds
        pairs.append((together, max(speed[-1] for speed in speeds.values())))
        # One after another, each with a prompt of its own.
        seconds = between([*ours, "serial", a.prompt, 1, a.tokens], [*ours, "serial", a.prompt, 1 + a.serial, a.tokens])
        serial.append(together * seconds / (a.serial * a.tokens))
    for count, speed in speeds.items():
        print(f"- llama-batched-bench, {count} side by side: {', '.join(f'{value:.1f}' for value in speed)} tokens / CPU second")
    print()
    title = f"{a.samples} samples of {a.tokens} tokens after {a.prompt} (llama-batched-bench at its best count)"
    table(title, "tokens / CPU second", pairs)
    print(f"Together against one after another: {median(serial):.1f} times, from {min(serial):.1f} to {max(serial):.1f}.\n")
    done = subprocess.run([str(word) for word in [*samples, a.tokens, a.samples]], capture_output=True, text=True, check=True)
    memory = json.loads(done.stdout)
    print(f"Memory of {a.samples} samples: {memory['peak_kib'] / 1024:.0f} MiB at the peak, {memory['loaded_kib'] / 1024:.0f} MiB after loading.")


main()
