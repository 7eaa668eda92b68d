#!/usr/bin/env python3
"""Decoding on the CPU, candle against transformers + PyTorch: decode.py PYTHON [THREADS].

PYTHON is an interpreter with torch and transformers (Debian's torch needs libopenblas0-pthread, or it computes with the
reference BLAS and is no fair peer). Both sides load one random CodeGen-shaped checkpoint of about 42 million parameters,
which is made anew in a temporary folder, read the same prompt and write 128 tokens greedily, in turns. Tokens a second are
those after the first: the reading of the prompt is left out on both sides.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from report import head, median, output

ROOT = Path(__file__).resolve().parents[2]
INHOUSE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "release/inhouse")
NEW_TOKENS, RUNS = 128, 5
PROMPT = "# read the ledger and print every entry\nfor entry in ledger.entries():\n    print(entry.name)\n\n# the sum\ntotal ="

MAKE = """
import sys, torch
from transformers import CodeGenConfig, CodeGenForCausalLM
torch.manual_seed(1)
config = CodeGenConfig(vocab_size=16384, n_positions=1024, n_ctx=1024, n_embd=512, n_layer=8, n_head=8, rotary_dim=32,
                       bos_token_id=1, eos_token_id=559, tie_word_embeddings=False, initializer_range=0.05)
model = CodeGenForCausalLM(config)
with torch.no_grad():
    model.lm_head.bias[559:] = -100.0  # rows without a token, and the end of text
model.save_pretrained(sys.argv[1], safe_serialization=True)
print(sum(parameter.numel() for parameter in model.parameters()))
"""

PEER = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
folder, threads, new_tokens, prompt = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(threads)
tokenizer = PreTrainedTokenizerFast(tokenizer_file=folder + "/tokenizer.json")
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
tokens = torch.tensor([tokenizer(prompt)["input_ids"]])
def generate(n):
    start = time.monotonic()
    with torch.inference_mode():
        out = model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=n, min_new_tokens=n, pad_token_id=0)
    return time.monotonic() - start, out[0, tokens.shape[1]:].tolist()
generate(4)
first, _ = generate(1)
all_, ids = generate(new_tokens + 1)
print(json.dumps({"tokens_per_second": new_tokens / (all_ - first), "text": tokenizer.decode(ids[:new_tokens])}))
"""


def peer(python, folder, threads):
    words = [python, "-W", "ignore", "-c", PEER, folder, str(threads), str(NEW_TOKENS), PROMPT]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def ours(folder, threads):
    command = [INHOUSE, "complete", "--model", folder, "--threads", threads, "--temperature", "0"]
    command += ["--max-tokens", NEW_TOKENS, "--json"]
    process = subprocess.run([str(word) for word in command], input=PROMPT, capture_output=True, text=True, check=True)
    report = json.loads(process.stdout)
    # The first token comes with the reading of the prompt.
    n = report["completion_tokens"]
    return report["tokens_per_second"] * (n - 1) / n, n, report["completion"]


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    python, threads = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 2
    with tempfile.TemporaryDirectory() as folder:
        parameters = int(output([python, "-W", "ignore", "-c", MAKE, folder]).splitlines()[-1])
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "tests/fixtures/codegen" / name, folder)
        version = "import torch, transformers; print('torch', torch.__version__ + ', transformers', transformers.__version__)"
        head("Decoding: candle against transformers + PyTorch", {
            "inhouse": output([str(INHOUSE), "--version"]),
            "peer": output([python, "-W", "ignore", "-c", version]),
            "model": f"CodeGen-shaped, random, f32, {parameters / 1e6:.1f} M parameters, 8 blocks of width 512, vocabulary 16384",
            "setting": f"{threads} threads, greedy, {NEW_TOKENS} tokens after a prompt of {len(PROMPT)} characters",
        })
        rows = []
        for _ in range(RUNS):
            (mine, n, text), theirs = ours(folder, threads), peer(python, folder, threads)
            rows.append((mine, theirs["tokens_per_second"], n, theirs["text"].startswith(text)))
    print("| run | inhouse (candle) tokens/s | transformers tokens/s | ratio | tokens of ours | same text |\n|---|---|---|---|---|---|")
    for i, (mine, theirs, n, same) in enumerate(rows):
        print(f"| {i + 1} | {mine:.1f} | {theirs:.1f} | {mine / theirs:.2f} | {n} | {'yes' if same else 'no'} |")
    print(f"\nmedian ratio: {median(mine / theirs for mine, theirs, _, _ in rows):.2f}")


if __name__ == "__main__":
    main()
