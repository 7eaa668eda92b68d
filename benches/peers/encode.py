#!/usr/bin/env python3
"""Encoding texts on one core: our encoder of GGUF files (Q8_0) against onnxruntime (int8) on the same MiniLM weights:

    encode.py PYTHON HF_FOLDER GGUF TEXTS [--index DIR] [--rounds 7] [--batches 1,64]

PYTHON is an interpreter with torch, transformers, onnx and onnxruntime. It exports the folder to ONNX (mean pooling and length 1
included) and quantises it dynamically to int8 weights, as onnxruntime's users do. TEXTS has a text a line. Both sides run pinned to
one processor, in turns, tokenisation included; CPU time is what counts, since machines are shared. The peer pads a batch to its
longest text and sorts nothing; ours pads nothing. --index also times whole queries over an index that is built with the encoder.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

from report import head, median, output

ROOT = Path(__file__).resolve().parents[2]
OURS = Path(os.environ.get("INHOUSE_BENCH", Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "release/encode")))

EXPORT = """
import sys, torch
from transformers import BertModel
from onnxruntime.quantization import QuantType, quantize_dynamic
bert = BertModel.from_pretrained(sys.argv[1], add_pooling_layer=False).eval()
class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bert = bert
    def forward(self, ids, mask):
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        kept = mask.unsqueeze(-1).float()
        mean = (states * kept).sum(1) / kept.sum(1)
        return mean / mean.norm(dim=1, keepdim=True)
ids = torch.ones(2, 8, dtype=torch.long)
axes = {"ids": {0: "b", 1: "n"}, "mask": {0: "b", 1: "n"}}
torch.onnx.export(Encoder(), (ids, ids), sys.argv[2], input_names=["ids", "mask"], output_names=["v"], dynamic_axes=axes, opset_version=14)
quantize_dynamic(sys.argv[2], sys.argv[3], weight_type=QuantType.QInt8)
"""

PEER = """
import json, sys, time, numpy, onnxruntime
from tokenizers import Tokenizer
model, tokenizer, file, batch, rounds = sys.argv[1:6]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file(tokenizer)
tokenizer.no_truncation(); tokenizer.enable_truncation(64); tokenizer.enable_padding()
texts = [line.strip() for line in open(file) if line.strip()]
cpu = []
for _ in range(int(rounds) + 1):
    start = time.process_time()
    for i in range(0, len(texts), int(batch)):
        encodings = tokenizer.encode_batch(texts[i:i + int(batch)])
        ids = numpy.array([e.ids for e in encodings], dtype=numpy.int64)
        mask = numpy.array([e.attention_mask for e in encodings], dtype=numpy.int64)
        session.run(None, {"ids": ids, "mask": mask})
    cpu.append(time.process_time() - start)
print(json.dumps({"texts": len(texts), "cpu": cpu[1:]}))
"""


def run(command):
    environment = dict(os.environ, TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1")
    done = subprocess.run(["taskset", "-c", "1", *map(str, command)], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("folder", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", default="1,64")
    arguments = parser.parse_args()
    versions = output([arguments.python, "-c", "import onnxruntime, tokenizers; print('onnxruntime', onnxruntime.__version__, 'tokenizers', tokenizers.__version__)"])
    head("Encoding texts beside onnxruntime", {"peer": versions, "encoder": arguments.gguf.name, "texts": arguments.texts.name})
    with tempfile.TemporaryDirectory() as folder:
        exported, quantised = Path(folder, "f32.onnx"), Path(folder, "int8.onnx")
        subprocess.run([arguments.python, "-c", EXPORT, arguments.folder, exported, quantised], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print("| batch | ours, ms CPU a text | onnxruntime int8 | ratio (peer / ours), median of rounds | range |\n|---|---|---|---|---|")
        for batch in arguments.batches.split(","):
            ours, peer = [], []
            for _ in range(arguments.rounds):
                a = run([OURS, "texts", arguments.gguf, arguments.texts, batch, 1])
                b = run([arguments.python, "-c", PEER, quantised, arguments.folder / "tokenizer.json", arguments.texts, batch, 1])
                ours.append(1e3 * a["cpu"][0] / a["texts"])
                peer.append(1e3 * b["cpu"][0] / b["texts"])
            ratios = [b / a for a, b in zip(ours, peer)]
            print(f"| {batch} | {median(ours):.3f} | {median(peer):.3f} | {median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |", flush=True)
        if arguments.index:
            done = run([OURS, "queries", arguments.index, arguments.texts, arguments.rounds])
            walls = sorted(1e3 * wall for wall in done["walls"])
            cpu = 1e3 * median(done["cpu"]) / done["texts"]
            print(f"\nWhole queries over {arguments.index.name}: {cpu:.2f} ms CPU; by the clock p50 {walls[len(walls) // 2]:.2f} ms, p99 {walls[len(walls) * 99 // 100]:.2f} ms ({len(walls)} queries).")


if __name__ == "__main__":
    main()
