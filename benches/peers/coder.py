#!/usr/bin/env python3
"""Training tokens per CPU second of a CodeGen from nothing, `inhouse train coder` against PyTorch:

    coder.py PYTHON [--rounds 3] [--steps 6] [--threads 1] [--shape 256x6x8] [--rows 128,320]

PYTHON is an interpreter with torch and numpy (Debian's torch needs libopenblas0-pthread; OPENBLAS_CORETYPE is taken out of its
environment). The peer is codegen.py, which is written for this: rows are whole texts of one length (nothing is
padded on either side), logits are made only where something is learned, GELU's derivative is written out; AdamW is the fused `foreach`
one. Both sides do the same steps, rows and weights, in turns; what a step costs is the difference between a run of --steps more steps
and one without them, in CPU time, since the machines are shared.
"""

import argparse
import hashlib
import json
import os
import random
import struct
import subprocess
import tempfile
from pathlib import Path

from report import Run, head, median, output

ROOT = Path(__file__).resolve().parents[2]
OURS = Path(os.environ.get("INHOUSE", Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "release/inhouse")))
VOCAB, WARM, BATCH = 4096, 2, 4096

PEER = """
import json, sys, time
folder, shape, length, steps, threads, model_folder = sys.argv[1:7]
sys.path.insert(0, model_folder)
import numpy as np, torch
from codegen import CodeGen, Shape
torch.set_num_threads(int(threads))
torch.manual_seed(7)
width, layers, heads = map(int, shape.split("x"))
model = CodeGen(Shape(vocab_size=4096, n_embd=width, n_layer=layers, n_head=heads, rotary_dim=16))
decayed = [p for p in model.parameters() if p.dim() > 1]
plain = [p for p in model.parameters() if p.dim() <= 1]
optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], lr=1e-3, betas=(0.9, 0.98), foreach=True)
rows = np.load(folder + "/rows.npz")
ids, weight = (torch.from_numpy(rows[name].astype(np.int64)) for name in ("ids", "weights"))
size = 4096 // int(length)
for step in range(int(steps)):
    part = slice(step * size, (step + 1) * size)
    loss, _, _ = model.loss(ids[part], None, weight[part].float() / 100)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
"""


def prepare(python, folder, length, steps):
    """Rows of `length` tokens in a corpus folder, and the same as an array."""
    random.seed(length)
    count = BATCH // length * steps
    ids = [[0] + [random.randrange(1, VOCAB) for _ in range(length - 1)] for _ in range(count)]
    # As in the default corpus: a prompt of little weight, a part that is not learned from, and what counts.
    weights = [[8] * (length // 2) + [0] * (length // 6) + [100] * (length - length // 2 - length // 6) for _ in ids]
    flat = lambda rows: [value for row in rows for value in row]
    parts = {"starts": ("U32", struct.pack(f"<{count + 1}I", *(i * length for i in range(count + 1))), [count + 1]),
             "tokens": ("U16", struct.pack(f"<{count * length}H", *flat(ids)), [count * length]),
             "weights": ("U8", bytes(flat(weights)), [count * length])}
    header, at = {}, 0
    for name, (kind, data, shape) in parts.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    data = struct.pack("<Q", len(header)) + header + b"".join(data for _, data, _ in parts.values())
    (folder / "a.safetensors").write_bytes(data)
    (folder / "tokenizer.json").write_bytes((ROOT / "tests/fixtures/codegen/tokenizer.json").read_bytes())
    shard = {"part": "a", "file": "a.safetensors", "rows": count, "tokens": count * length, "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {"version": 1, "vocab_size": VOCAB, "tokenizer": "tokenizer.json", "block_tokens": length, "digest": "", "shards": [shard], "evaluation": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    text = "import json,sys,numpy\nids, weights = json.load(sys.stdin)\nnumpy.savez(sys.argv[1], ids=ids, weights=weights)"
    subprocess.run([python, "-c", text, folder / "rows.npz"], input=json.dumps([ids, weights]), text=True, check=True)


def ours(folder, shape, length, steps, threads, options):
    width, layers, heads = shape.split("x")
    config = folder / "run.toml"
    out = folder / f"out-{random.randrange(1 << 60)}"
    config.write_text(f"""
[model.new]
n_embd = {width}
n_layer = {layers}
n_head = {heads}
rotary_dim = 16
n_positions = 512
seed = 7
[training]
corpus = "{folder}"
out = "{out}"
phase = [{{ tokens = {steps * BATCH // length * length} }}]
batch_tokens = {BATCH // length * length}
learning_rate = 1e-3
weight_decay = 0.05
checkpoint_every = 1000
{options}
[evaluation]
every = 0
rows = 0
tasks = 0
""")
    return Run([OURS, "train", "coder", "--config", config], env={**os.environ, "RAYON_NUM_THREADS": str(threads)})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", default="256x6x8")
    parser.add_argument("--rows", default="128,320")
    options = parser.parse_args()
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    env["OMP_NUM_THREADS"] = env["OPENBLAS_NUM_THREADS"] = str(options.threads)
    torch = output([options.python, "-c", "import torch; print(torch.__version__)"])
    head(f"Training a CodeGen {options.shape}, {options.threads} thread(s)", {"torch": torch})
    width, layers, _ = map(int, options.shape.split("x"))
    per_token = 6 * 12 * layers * width * width
    print("| tokens of a row | ours, tokens/s | PyTorch, tokens/s | ratio | ours, GFLOP/s | ours, MiB | PyTorch, MiB |")
    print("|---|---|---|---|---|---|---|")
    for length in map(int, options.rows.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            prepare(options.python, folder, length, WARM + options.steps)
            tokens = options.steps * (BATCH // length * length)
            peer = lambda steps: Run([options.python, "-c", PEER, folder, options.shape, str(length), str(steps), str(options.threads),
                                      ROOT / "benches/peers"], env=env)
            mine = lambda steps: ours(folder, options.shape, length, steps, options.threads, "pass_tokens = 2048")
            rates = {}
            for _ in range(options.rounds):
                for side, run in (("ours", mine), ("peer", peer)):
                    short, long = run(WARM), run(WARM + options.steps)
                    rates.setdefault(side, []).append((tokens / (long.cpu - short.cpu), long.peak_mib))
            rate = {side: median([rate for rate, _ in runs]) for side, runs in rates.items()}
            memory = {side: max(mib for _, mib in runs) for side, runs in rates.items()}
            ratios = median([a / b for (a, _), (b, _) in zip(rates["ours"], rates["peer"])])
            # The head counts where something is learned; attention's products of scores and values besides.
            learned = 1 - (length // 6 + 1) / length
            flops = per_token + 6 * VOCAB * width * learned + 7 * layers * width * length
            print(f"| {length} | {rate['ours']:.0f} | {rate['peer']:.0f} | {ratios:.2f} | {rate['ours'] * flops / 1e9:.1f} | "
                  f"{memory['ours']:.0f} | {memory['peer']:.0f} |", flush=True)


main()
