#!/usr/bin/env python3
"""Prefill and decoding on the CPU, candle against transformers + PyTorch:

    candle.py PYTHON [--models NAME,...] [--rounds 5] [--threads 1] [--prompt 100] [--tokens 48] [--sequences 1,16] [--generate]

PYTHON is an interpreter with torch and transformers (Debian's torch needs libopenblas0-pthread, or it computes with the
reference BLAS and is no fair peer; OPENBLAS_CORETYPE is taken out of its environment, since a wrong one makes it slow).
Random checkpoints in the shapes of published models are made in a temporary folder, their weights halves, as most published
ones are. Both sides load the same folder, read the same prompts and go on greedily, in turns. CPU time is what counts, since
the machines are shared, and one thread, since idle threads of OpenMP spin.

`ours f32` and `peer` compute in f32. `ours f16` keeps the halves that the files hold; PyTorch has no product of halves on the
CPU. The peer's model is called in a loop of its own, the least that decoding can cost there; `--generate` measures
`generate()`, which people call, too (its time is that of N + 1 tokens without that of one).
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from report import head, median, output

ROOT = Path(__file__).resolve().parents[2]
OURS = Path(os.environ.get("INHOUSE_BENCH", Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "release/candle")))

MAKE = """
import sys, torch
from transformers import (CodeGenConfig, CodeGenForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM)
torch.manual_seed(1)
def codegen(vocab, width, layers, heads):
    return CodeGenForCausalLM(CodeGenConfig(vocab_size=vocab, n_positions=1024, n_ctx=1024, n_embd=width, n_layer=layers, n_head=heads,
                                            rotary_dim=32, bos_token_id=1, eos_token_id=0, tie_word_embeddings=False, initializer_range=0.05))
def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12, n_head=12, bos_token_id=0, eos_token_id=0,
                                      initializer_range=0.05))
def llama():
    return LlamaForCausalLM(LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                                        num_key_value_heads=3, max_position_embeddings=1024, tie_word_embeddings=False, bos_token_id=0,
                                        eos_token_id=0, initializer_range=0.05))
makers = {"codegen-20m": lambda: codegen(16384, 384, 6, 8), "codegen-350m": lambda: codegen(51200, 1024, 20, 16), "gpt2-124m": gpt2,
          "llama-135m": llama}
model = makers[sys.argv[2]]().half()
model.save_pretrained(sys.argv[1], safe_serialization=True)
print(sum(parameter.numel() for parameter in model.parameters()))
"""

PEER = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM
folder, dtype, way = sys.argv[1:4]
threads, n_prompt, n, new_tokens = map(int, sys.argv[4:8])
torch.set_num_threads(threads)
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=getattr(torch, dtype)).eval()
prompt = torch.tensor([[(i * 7919 + s * 31) % 256 for i in range(n_prompt)] for s in range(n)])
def generate(k):
    start = time.process_time()
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=k, min_new_tokens=k, pad_token_id=0)
    return time.process_time() - start, out[:, n_prompt:].tolist()
with torch.inference_mode():
    model(prompt[:1], use_cache=True)
    start = time.process_time()
    for _ in range(2):
        model(prompt[:1], use_cache=True)
    prefill = (time.process_time() - start) / 2
    if way == "generate":
        generate(2)
        first, _ = generate(1)
        all_, texts = generate(new_tokens + 1)
        seconds = all_ - first
    else:
        out = model(prompt, use_cache=True)
        tokens = [out.logits[:, -1].argmax(-1, keepdim=True)]
        start = time.process_time()
        for _ in range(new_tokens):
            out = model(tokens[-1], past_key_values=out.past_key_values, use_cache=True)
            tokens.append(out.logits[:, -1].argmax(-1, keepdim=True))
        seconds = time.process_time() - start
        texts = torch.cat(tokens, 1).tolist()
print(json.dumps({"prefill_cpu": prefill, "decode_cpu": seconds, "texts": texts}))
"""


def last_line(command):
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
    words = [str(word) for word in command]
    process = subprocess.run(words, capture_output=True, text=True, env=environment)
    if process.returncode:
        raise SystemExit(f"{' '.join(words[:1] + words[-6:])} ended with status {process.returncode}: {process.stderr[-2000:]}")
    return process.stdout.splitlines()[-1]


def agreement(a, b):
    """Sequences whose tokens are all the same."""
    return sum(x == y for x, y in zip(a["texts"], b["texts"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("--models", default="codegen-20m,codegen-350m,gpt2-124m,llama-135m")
    for name, default in (("rounds", 5), ("threads", 1), ("prompt", 100), ("tokens", 48)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sequences", default="1,16")
    parser.add_argument("--generate", action="store_true", help="measure generate(), too")
    a = parser.parse_args()
    version = "import torch, transformers; print('torch', torch.__version__ + ', transformers', transformers.__version__)"
    head(
        "candle against transformers + PyTorch on the CPU",
        {
            "peer": output([a.python, "-W", "ignore", "-c", version]),
            "setting": f"threads: {a.threads}; greedy, {a.tokens} tokens after prompts of {a.prompt}; {a.rounds} rounds, the sides in turns",
        },
    )
    for name in a.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            parameters = int(last_line([a.python, "-W", "ignore", "-c", MAKE, folder, name]))
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(ROOT / "tests/fixtures/codegen" / file, folder)
            print(f"## {name}: {parameters / 1e6:.0f} M parameters\n")
            for n in map(int, a.sequences.split(",")):
                one_setting(a, folder, n)


def one_setting(a, folder, n):
    numbers = [a.threads, a.prompt, n, a.tokens]
    peer = [a.python, "-W", "ignore", "-c", PEER, folder]
    sides = {
        "ours f32": [OURS, folder, "f32", *numbers],
        "ours f16": [OURS, folder, "f16", *numbers],
        "peer": [*peer, "float32", "loop", *numbers],
    }
    if a.generate:
        sides["peer generate()"] = [*peer, "float32", "generate", *numbers]
    runs = {side: [] for side in sides}
    for _ in range(a.rounds):
        for side, command in sides.items():
            runs[side].append(json.loads(last_line(command)))
    speeds = {side: [n * a.tokens / run["decode_cpu"] for run in of_side] for side, of_side in runs.items()}
    prefills = {side: [a.prompt / run["prefill_cpu"] for run in of_side] for side, of_side in runs.items()}
    print(f"### {n} sequence{'s' if n > 1 else ''}\n")
    print("| side | decode, tokens / CPU second, each round | median | prefill, median |\n|---|---|---|---|")
    for side in sides:
        row = ", ".join(f"{speed:.1f}" for speed in speeds[side])
        print(f"| {side} | {row} | {median(speeds[side]):.1f} | {median(prefills[side]):.0f} |")
    print("\n| ratio, round by round | decode: median | from | to | prefill: median |\n|---|---|---|---|---|")
    for mine in ("ours f32", "ours f16"):
        for theirs in list(sides)[2:]:
            ratios = sorted(x / y for x, y in zip(speeds[mine], speeds[theirs]))
            reading = median(x / y for x, y in zip(prefills[mine], prefills[theirs]))
            print(f"| {mine} / {theirs} | {median(ratios):.2f} | {ratios[0]:.2f} | {ratios[-1]:.2f} | {reading:.2f} |")
    same = agreement(runs["ours f32"][0], runs["peer"][0])
    print(f"\nSequences with the same {a.tokens + 1} tokens in f32 on both sides: {same} of {n}.\n", flush=True)


if __name__ == "__main__":
    main()
