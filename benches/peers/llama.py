#!/usr/bin/env python3
"""Decode, prefill and many samples of one prompt against llama.cpp's own benches:

    llama.py PEERS MODEL [--threads 1] [--rounds 5] [--prompt 300] [--samples 200] [--tokens 100] [--sequences 32,200]

PEERS is a folder with `llama-bench` and `llama-batched-bench` (or `batched-bench`), linked against the very llama.cpp that
the project is (`target/release/build/llama-cpp-sys-2-*/out/lib`), so that only what is around it differs. Ours is
`target/release/llama` (`cargo build --release -p inhouse-benches --bin llama`), or $INHOUSE_BENCH. The sides take turns;
ours goes through sampling (temperature 0.8, top-p 0.9), text and stop rules, the peers' do not sample at all.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

from report import head, median

ROOT = Path(__file__).resolve().parents[2]
OURS = Path(os.environ.get("INHOUSE_BENCH", ROOT / "target/release/llama"))


def lines(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


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
    for name, default in (("threads", 1), ("rounds", 5), ("prompt", 300), ("samples", 200), ("tokens", 100), ("single", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sequences", default="32,200", help="parallel counts that llama-batched-bench tries")
    parser.add_argument("--skip-single", action="store_true")
    a = parser.parse_args()
    bench = a.peers / "llama-bench"
    batched = next(path for path in (a.peers / "llama-batched-bench", a.peers / "batched-bench") if path.exists())
    ours = lambda *words: lines([OURS, a.model, a.threads, *words])[0]
    head(
        f"{a.model.name}: one prompt, one and many samples",
        {
            "model": f"{a.model.stat().st_size / 1e6:.0f} MB, {a.threads} threads",
            "llama.cpp": "llama-bench and llama-batched-bench on the static libraries of llama-cpp-sys-2 "
            + next((d.name for d in Path.home().glob(".cargo/registry/src/*/llama-cpp-sys-2-*")), "?").removeprefix("llama-cpp-sys-2-"),
            "rounds": f"{a.rounds}, in turns",
        },
    )
    if not a.skip_single:
        decode, prefill = [], []
        for _ in range(a.rounds):
            mine = ours("decode", a.single)
            theirs = lines([bench, "-m", a.model, "-t", a.threads, "-r", 1, "-p", a.prompt, "-n", a.single, "-o", "jsonl"])
            speed = {(row["n_prompt"], row["n_gen"]): row["avg_ts"] for row in theirs}
            # The first token comes from the prompt's pass.
            decode.append(((mine["new_tokens"] - 1) / mine["decode_seconds"], speed[0, a.single]))
            mine = ours("prefill", a.prompt)
            prefill.append((a.prompt / mine["prefill_seconds"], speed[a.prompt, 0]))
        table(f"One stream, {a.single} tokens (llama-bench tg)", "tokens/s", decode)
        table(f"A prompt of {a.prompt} tokens (llama-bench pp)", "tokens/s", prefill)

    counts = [int(count) for count in a.sequences.split(",")]
    pairs, serial, best = [], [], {}
    for _ in range(a.rounds):
        cells = a.prompt + max(counts) * a.tokens
        command = [batched, "-m", a.model, "-t", a.threads, "-tb", a.threads, "-c", cells + 256, "-b", 2048, "-ub", 512, "-pps", "-kvu"]
        command += ["-npp", a.prompt, "-ntg", a.tokens, "-npl", a.sequences, "--output-format", "jsonl"]
        theirs = {row["pl"]: row for row in lines(command)}
        for pl, row in theirs.items():
            best.setdefault(pl, []).append(row["speed_tg"])
        # `samples` of them take as many runs of pl as fit, each with the prompt once.
        seconds = min((row["t_tg"] * a.samples / pl + row["t_pp"]) for pl, row in theirs.items())
        mine = ours("samples", a.prompt, a.samples, a.tokens, a.samples)
        total = a.prompt + a.samples * a.tokens
        pairs.append((total / (mine["prefill_seconds"] + mine["decode_seconds"]), total / seconds))
        # One after another: each with its own prefill; as many as show the speed.
        alone = ours("serial", a.prompt, 2, a.tokens)
        each = (alone["prefill_seconds"] + alone["decode_seconds"]) / 2
        serial.append((a.samples / (mine["prefill_seconds"] + mine["decode_seconds"]), 1 / each))
    for pl, speeds in best.items():
        print(f"- llama-batched-bench, {pl} side by side: {', '.join(f'{speed:.1f}' for speed in speeds)} tokens/s")
    print()
    table(f"{a.samples} samples of {a.tokens} tokens after {a.prompt} (llama-batched-bench at its best count)", "tokens/s", pairs)
    ratios = sorted(together / alone for together, alone in serial)
    print(f"Together against one after another (each with its own prompt): {median(ratios):.1f} times, from {ratios[0]:.1f} to {ratios[-1]:.1f}.\n")
    kib = mine["peak_kib"]
    print(f"Memory of our last run: {kib / 1024:.0f} MiB at the peak, {mine['loaded_kib'] / 1024:.0f} MiB after loading.")


main()
