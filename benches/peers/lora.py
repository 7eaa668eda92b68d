#!/usr/bin/env python3
"""LoRA training of a Llama-shaped GGUF in PyTorch, over the rows that `inhouse train corpus` wrote.

The peer of `inhouse train coder` with [model.lora]: the same rows, ranks, loss (weighted cross-entropy, mean over weights), AdamW and
schedule, so that speed and memory can be held against each other (--dtype f32), and a second way to train an adapter where the
processor has bf16 products (--dtype bf16: AVX512-BF16 or AMX through oneDNN).

    lora.py --base SmolLM2.gguf --corpus DIR --out ADAPTER --tokens 5000000 --dtype bf16 --threads 1
    lora.py ... --resume            goes on from ADAPTER/state.pt
    lora.py ... --start OTHER       begins with the adapter of a PEFT folder (of the same rank and alpha), with a schedule of its own

Rows hold whole documents, each ended by token 0; a document sees itself alone, at positions from 0. Needs torch, numpy, gguf, safetensors.
"""
import argparse
import json
import math
import os
import resource
import sys
import time
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import load_file, save_file

TARGETS = {  # GGUF's name -> the module of a Hugging Face Llama
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


class Base:
    """Frozen weights, dequantised, in the order of Hugging Face (q and k undone from llama.cpp's permutation)."""

    def __init__(self, path, dtype):
        reader = GGUFReader(path)
        value = lambda key: reader.fields[key].parts[reader.fields[key].data[0]][0]
        self.layers = int(value("llama.block_count"))
        self.width = int(value("llama.embedding_length"))
        self.heads = int(value("llama.attention.head_count"))
        self.kv_heads = int(value("llama.attention.head_count_kv"))
        self.base = float(value("llama.rope.freq_base"))
        self.eps = float(value("llama.attention.layer_norm_rms_epsilon"))
        self.dim = self.width // self.heads
        self.weight = {}
        for tensor in reader.tensors:
            data = torch.from_numpy(numpy.array(dequantize(tensor.data, tensor.tensor_type), dtype=numpy.float32))
            for name, heads in (("attn_q", self.heads), ("attn_k", self.kv_heads)):
                if f".{name}." in tensor.name:
                    data = data.reshape(heads, self.dim // 2, 2, -1).transpose(1, 2).reshape(data.shape)
            self.weight[tensor.name.removesuffix(".weight")] = data.to(dtype).contiguous()


class RmsNorm(torch.autograd.Function):
    """x / rms(x) * weight with f32 sums; the weight is frozen."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        scale = torch.rsqrt(torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32) ** 2 / x.shape[-1] + eps)
        scale = scale.to(x.dtype)
        ctx.save_for_backward(x, weight, scale)
        return x * scale * weight

    @staticmethod
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        g = grad * weight
        return (g - normed * (g * normed).mean(-1, keepdim=True)) * scale, None, None


class LoraLinear(torch.autograd.Function):
    """x W^T + (x A^T) B^T for x [n, in]; W [out, in] is frozen. Written out, so that nothing is kept or added twice."""

    @staticmethod
    def forward(ctx, x, weight, a, b):
        low = x @ a.t()
        ctx.save_for_backward(x, weight, a, b, low)
        return (x @ weight.t()).addmm_(low, b.t())

    @staticmethod
    def backward(ctx, grad):
        x, weight, a, b, low = ctx.saved_tensors
        grad_low = grad @ b
        return (grad @ weight).addmm_(grad_low, a), None, grad_low.t() @ x, grad.t() @ low


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up for [n, 2 * inner]: the gate's half first."""

    @staticmethod
    def forward(ctx, both):
        gate, up = both.chunk(2, -1)
        sigmoid = torch.sigmoid(gate)
        ctx.save_for_backward(both, sigmoid)
        return (gate * sigmoid).mul_(up)

    @staticmethod
    def backward(ctx, grad):
        both, sigmoid = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        out = torch.empty_like(both)
        half = both.shape[-1] // 2
        torch.mul(grad, gate * sigmoid, out=out[:, half:])
        slope = (1 - sigmoid).mul_(gate).add_(1).mul_(sigmoid).mul_(up)
        torch.mul(grad, slope, out=out[:, :half])
        return out


class Model:
    def __init__(self, base, rank, alpha, dtype, seed):
        self.base, self.scale, self.dtype = base, alpha / rank, dtype
        torch.manual_seed(seed)
        self.adapters, self.frozen = {}, {}
        for layer in range(base.layers):
            for name in TARGETS:
                out, into = base.weight[f"blk.{layer}.{name}"].shape
                a = torch.empty(rank, into)
                torch.nn.init.kaiming_uniform_(a, a=math.sqrt(5))
                self.adapters[layer, name] = (a.requires_grad_(), torch.zeros(out, rank).requires_grad_())

    def parameters(self):
        return [factor for pair in self.adapters.values() for factor in pair]

    def linear(self, x, layer, names):
        """The modules of one input side by side: one product with the frozen weights, one with all first factors."""
        pairs = [self.adapters[layer, name] for name in names]
        a = torch.cat([a for a, _ in pairs]) * self.scale
        b = torch.block_diag(*[b for _, b in pairs])
        key = (layer, *names)
        if key not in self.frozen:
            self.frozen[key] = torch.cat([self.base.weight[f"blk.{layer}.{name}"] for name in names])
        return LoraLinear.apply(x, self.frozen[key], a.to(self.dtype), b.to(self.dtype))

    def hidden(self, tokens, positions, mask):
        """Hidden states [rows * length, width] after the last norm; `mask` [rows, 1, 1, length, length] is added to scores."""
        base, weight = self.base, self.base.weight
        rows, length = tokens.shape
        angle = positions[:, :, None].float() / base.base ** (torch.arange(0, base.dim, 2).float() / base.dim)
        cos = torch.cat([angle.cos()] * 2, -1).to(self.dtype)[:, None]
        sin = torch.cat([-angle.sin(), angle.sin()], -1).to(self.dtype)[:, None]

        def heads(x, n):
            return x.view(rows, length, n, base.dim).transpose(1, 2)

        def rotate(x):
            half = base.dim // 2
            return x * cos + torch.cat([x[..., half:], x[..., :half]], -1) * sin

        x = weight["token_embd"][tokens.view(-1)]
        group, inner = base.heads // base.kv_heads, base.kv_heads * base.dim
        for layer in range(base.layers):
            h = RmsNorm.apply(x, weight[f"blk.{layer}.attn_norm"], base.eps)
            q, k, v = self.linear(h, layer, ("attn_q", "attn_k", "attn_v")).split([base.width, inner, inner], -1)
            q = rotate(heads(q, base.heads)) * base.dim ** -0.5
            k, v = rotate(heads(k, base.kv_heads)), heads(v, base.kv_heads)
            # The heads of a group share keys and values: their queries stand below each other in one product.
            q = q.reshape(rows * base.kv_heads, group * length, base.dim)
            k, v = (x.reshape(rows * base.kv_heads, length, base.dim) for x in (k, v))
            scores = torch.bmm(q, k.transpose(1, 2)).view(rows, base.kv_heads, group, length, length) + mask
            seen = torch.bmm(torch.softmax(scores, -1).view(-1, group * length, length), v)
            seen = seen.view(rows, base.heads, length, base.dim).transpose(1, 2).reshape(-1, base.width)
            x = x + self.linear(seen, layer, ("attn_output",))
            h = RmsNorm.apply(x, weight[f"blk.{layer}.ffn_norm"], base.eps)
            x = x + self.linear(SwiGlu.apply(self.linear(h, layer, ("ffn_gate", "ffn_up"))), layer, ("ffn_down",))
        return RmsNorm.apply(x, weight["output_norm"], base.eps)

    def loss(self, rows):
        """(sum of weighted losses, sum of weights) of rows of (tokens, weights)."""
        length = max(len(tokens) for tokens, _ in rows)
        tokens = torch.zeros(len(rows), length, dtype=torch.long)
        weights = torch.zeros(len(rows), length)
        for i, (ids, learned) in enumerate(rows):
            tokens[i, : len(ids)] = torch.from_numpy(ids.astype(numpy.int64))
            weights[i, : len(ids)] = torch.from_numpy(learned.astype(numpy.float32) / 100)
        ends = F.pad((tokens == 0).long(), (1, 0))[:, :-1]
        document = ends.cumsum(1)
        place = torch.arange(length)[None].expand_as(tokens)
        positions = place - torch.where(ends > 0, place, torch.zeros_like(place)).cummax(1)[0]
        seen = (document[:, None, :, None] == document[:, None, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(seen.shape, dtype=self.dtype).masked_fill_(~seen, -30000.0)[:, :, None]
        hidden = self.hidden(tokens, positions, mask).view(len(rows), length, -1)
        # A document's first token is predicted by nothing of its own.
        learned = (weights[:, 1:] > 0) & (document[:, 1:] == document[:, :-1])
        logits = F.linear(hidden[:, :-1][learned], self.base.weight["token_embd"]).float()
        weight = weights[:, 1:][learned]
        return (F.cross_entropy(logits, tokens[:, 1:][learned], reduction="none") * weight).sum(), weight.sum()


def read_rows(folder, files):
    rows = []
    for file in files:
        shard = load_file(str(folder / file))
        starts = shard["starts"]
        rows += [(shard["tokens"][a:b], shard["weights"][a:b]) for a, b in zip(starts, starts[1:])]
    return rows


def save_adapter(model, out, args):
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": args.base_name, "r": args.rank,
        "lora_alpha": args.alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "target_modules": [name.rsplit(".", 1)[1] for name in TARGETS.values()],
    }
    tensors = {}
    for (layer, name), (a, b) in model.adapters.items():
        at = f"base_model.model.model.layers.{layer}.{TARGETS[name]}"
        tensors[f"{at}.lora_A.weight"] = a.detach().half().numpy()
        tensors[f"{at}.lora_B.weight"] = b.detach().half().numpy()
    save_file(tensors, str(out / "adapter_model.safetensors.part"), metadata={"format": "pt"})
    os.replace(out / "adapter_model.safetensors.part", out / "adapter_model.safetensors")
    (out / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")


def load_adapter(model, folder, args):
    config = json.loads((folder / "adapter_config.json").read_text())
    if (config["r"], config["lora_alpha"]) != (args.rank, args.alpha):
        sys.exit(f"{folder}: rank {config['r']} and alpha {config['lora_alpha']}, this run has {args.rank} and {args.alpha}")
    tensors = load_file(str(folder / "adapter_model.safetensors"))
    with torch.no_grad():
        for (layer, name), (a, b) in model.adapters.items():
            at = f"base_model.model.model.layers.{layer}.{TARGETS[name]}"
            a.copy_(torch.from_numpy(tensors[f"{at}.lora_A.weight"]))
            b.copy_(torch.from_numpy(tensors[f"{at}.lora_B.weight"]))


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--base", required=True)
    parse.add_argument("--base-name", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parse.add_argument("--corpus", type=Path, required=True)
    parse.add_argument("--out", type=Path, required=True)
    parse.add_argument("--tokens", type=int, default=5_000_000)
    parse.add_argument("--step-tokens", type=int, default=4096)
    parse.add_argument("--micro-tokens", type=int, default=4096)
    parse.add_argument("--rank", type=int, default=16)
    parse.add_argument("--alpha", type=float, default=32)
    parse.add_argument("--rate", type=float, default=1e-3)
    parse.add_argument("--warmup", type=int, default=20)
    parse.add_argument("--decay", type=float, default=0.0)
    parse.add_argument("--seed", type=int, default=1)
    parse.add_argument("--threads", type=int, default=1)
    parse.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parse.add_argument("--steps", type=int, help="stop after so many (a measurement)")
    parse.add_argument("--resume", action="store_true")
    parse.add_argument("--start", type=Path, help="a PEFT folder to begin with")
    args = parse.parse_args()
    torch.set_num_threads(args.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    args.out.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((args.corpus / "manifest.json").read_text())
    parts = {}
    for shard in manifest["shards"]:
        parts.setdefault(shard["part"], []).append(shard["file"])
    random = numpy.random.default_rng(args.seed)
    rows = []
    for files in parts.values():  # a curriculum: part after part, shuffled within
        part = read_rows(args.corpus, files)
        rows += [part[i] for i in random.permutation(len(part))]
    batches, batch, size, seen = [], [], 0, 0
    for row in rows:
        batch.append(row)
        size += len(row[0])
        if size >= args.step_tokens:
            batches.append(batch)
            seen += size
            batch, size = [], 0
            if seen >= args.tokens:
                break
    held = read_rows(args.corpus, [manifest["evaluation"]["perplexity"]])[:48]
    model = Model(Base(args.base, dtype), args.rank, args.alpha, dtype, args.seed)
    if args.start:
        load_adapter(model, args.start, args)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=args.decay)
    step, tokens, spent, state = 0, 0, 0.0, args.out / "state.pt"
    if args.resume and state.exists():
        kept = torch.load(state)
        step, tokens, spent = kept["step"], kept["tokens"], kept["spent"]
        with torch.no_grad():
            for ours, theirs in zip(model.parameters(), kept["parameters"]):
                ours.copy_(theirs)
        optimizer.load_state_dict(kept["optimizer"])
        random_state = step
        print(f"resumed at step {step} of {len(batches)}", file=sys.stderr)
    log = open(args.out / "log.jsonl", "a")

    def keep():
        torch.save({"step": step, "tokens": tokens, "spent": spent, "parameters": [p.detach() for p in model.parameters()],
                    "optimizer": optimizer.state_dict()}, args.out / "state.part")
        os.replace(args.out / "state.part", state)
        save_adapter(model, args.out, args)

    last_kept = time.time()
    while step < len(batches) and step != args.steps:
        began, cpu = time.time(), time.process_time()
        rate = args.rate * min(1, (step + 1) / args.warmup) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / len(batches))))
        for group in optimizer.param_groups:
            group["lr"] = rate
        total_weight = sum(float(weights[1:].sum()) / 100 for _, weights in batches[step])
        micro, size, sum_loss, groups = [], 0, 0.0, []
        for row in batches[step]:
            if micro and size + len(row[0]) > args.micro_tokens:
                groups.append(micro)
                micro, size = [], 0
            micro.append(row)
            size += len(row[0])
        groups.append(micro)
        for group in groups:
            loss, weight = model.loss(group)
            (loss / total_weight).backward()
            sum_loss += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        n = sum(len(ids) for ids, _ in batches[step])
        step, tokens, spent = step + 1, tokens + n, spent + time.time() - began
        row = {"step": step, "of": len(batches), "tokens": tokens, "loss": round(sum_loss / total_weight, 4), "norm": round(float(norm), 3),
               "rate": rate, "tokens_per_s": round(n / (time.time() - began)), "tokens_per_cpu_s": round(n / (time.process_time() - cpu)),
               "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
        if step % 50 == 0 or step == len(batches):
            with torch.no_grad():
                sums = [model.loss(held[i : i + 8]) for i in range(0, len(held), 8)]
            row["held_out_loss"] = round(float(sum(s for s, _ in sums) / sum(w for _, w in sums)), 4)
        log.write(json.dumps(row) + "\n")
        log.flush()
        if time.time() - last_kept > 180 or step == len(batches):
            keep()
            last_kept = time.time()
    keep()


if __name__ == "__main__":
    main()
