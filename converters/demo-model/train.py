"""Trains the model on DIR's rows; run it again to go on where it was stopped.

    nice -n 19 python train.py --work DIR --steps N [--resume-only] 

DIR/train/state.pt holds everything a resumed run needs (weights, AdamW's moments, step, best figure); DIR/hf always
holds the best weights so far, in Hugging Face layout. Both are replaced whole, never written in place.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch

from circuit import plant
from measure import HeldOut
from model import CodeGen, Shape, check_parity


def replace(path, write):
    """Writes by `write(temporary path)`, syncs, then renames: a kill leaves the old file."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def export(model, folder):
    """config.json and model.safetensors for transformers' CodeGenForCausalLM."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "model.safetensors", lambda path: save_file(tensors, str(path), metadata={"format": "pt"}))
    replace(folder / "config.json", lambda path: path.write_text(json.dumps(model.shape.config(0), indent=1) + "\n"))


class Rows:
    """Batches by step number alone, so that a resumed run reads what an unbroken one would have read."""

    def __init__(self, path, seed):
        with np.load(path) as file:
            self.arrays = {name: file[name] for name in ("ids", "document", "weight")}
        self.seed, self.epoch, self.order = seed, -1, None

    def batch(self, number, size):
        count = len(self.arrays["ids"])
        picked = []
        for index in range(number * size, (number + 1) * size):
            epoch, at = divmod(index, count)
            if epoch != self.epoch:
                self.order, self.epoch = np.random.default_rng((self.seed, epoch)).permutation(count), epoch
            picked.append(self.order[at])
        ids, document, weight = (torch.from_numpy(self.arrays[n][picked].astype(np.int64)) for n in ("ids", "document", "weight"))
        return ids, document, weight.float() / 100


def rate(step, options):
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < options.warm_up:
        return options.rate * (step + 1) / options.warm_up
    done = min(1.0, (step - options.warm_up) / max(1, options.steps - options.warm_up))
    return options.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", default="train")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--short-steps", type=int, default=300, help="steps on short rows before the full ones")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--warm-up", type=int, default=60)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--start", choices=("circuit", "random"), default="circuit")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rotary", type=int, default=24)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--every", type=int, default=100, help="steps between measurements and checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stop-after", type=int, help="leave after this many steps of this run (the schedule stays)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    home = options.work / options.name
    home.mkdir(parents=True, exist_ok=True)
    rows = {name: Rows(options.work / f"rows-{name}.npz", options.seed) for name in ("short", "full")}
    held_out = HeldOut(options.work)
    model = CodeGen(Shape(n_embd=options.width, n_layer=options.layers, n_head=options.heads, rotary_dim=options.rotary))
    if options.start == "circuit":
        plant(model, options.seed)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": options.decay}, {"params": plain, "weight_decay": 0.0}],
        lr=options.rate, betas=(0.9, 0.98), eps=1e-8, foreach=True)
    progress = {"step": 0, "tokens": 0, "seconds": 0.0, "best": -1.0}
    saved = home / "state.pt"
    if saved.exists():
        state = torch.load(saved)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        progress = state["progress"]
        print(f"resumed at step {progress['step']}", flush=True)
    else:
        print(f"parity with transformers: {check_parity(model, 0):.1e}; {sum(p.numel() for p in model.parameters())} parameters", flush=True)

    log = open(home / "log.jsonl", "a")
    mean = {"loss": 0.0, "completion": 0.0, "n": 0}
    first, begun = progress["step"], time.monotonic()

    def note(step):
        """Measures, logs, exports when better, and saves."""
        nonlocal begun
        now = time.monotonic()
        progress["seconds"] += now - begun
        scores = held_out.teacher_forced(model)
        n = max(1, mean["n"])
        record = {"step": step, "tokens": progress["tokens"], "seconds": round(progress["seconds"]), "rate": rate(step, options),
                  "loss": mean["loss"] / n, "completion_loss": mean["completion"] / n, **scores}
        mean.update(loss=0.0, completion=0.0, n=0)
        log.write(json.dumps(record) + "\n")
        log.flush()
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()}), flush=True)
        if scores["score"] > progress["best"]:
            progress["best"] = scores["score"]
            export(model, home / "best")
        progress["step"] = step
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "progress": progress}
        replace(saved, lambda path: torch.save(state, path))
        begun = time.monotonic()

    if first == 0:
        note(0)
    for step in range(first, options.steps):
        name = "short" if step < options.short_steps else "full"
        size = options.batch_tokens // rows[name].arrays["ids"].shape[1]
        ids, document, weight = rows[name].batch(step if name == "short" else step - options.short_steps, size)
        for group in optimiser.param_groups:
            group["lr"] = rate(step, options)
        loss, each, used = model.loss(ids, document, weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        progress["tokens"] += ids.numel()
        mean["loss"] += loss.item()
        mean["completion"] += each[used == 1].mean().item()
        mean["n"] += 1
        last = step + 1 == options.steps or (options.stop_after and step + 1 - first >= options.stop_after)
        if (step + 1) % options.every == 0 or last:
            note(step + 1)
        if last:
            break


if __name__ == "__main__":
    main()
