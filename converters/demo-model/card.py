"""Writes the model's card from what the scripts measured: no figure in it is typed by hand.

    python card.py --work DIR --command '...' --corpus-command '...' --gguf FILE --out models/inhouse-tiny/README.md
"""

import argparse
import hashlib
import json
from pathlib import Path

from safetensors import safe_open

from measure import SETTINGS


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def percent(value):
    return f"{100 * value:.1f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", default="train")
    parser.add_argument("--command", required=True, help="how train.py was called, seed and all")
    parser.add_argument("--corpus-command", required=True, help="how corpus.py was called")
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    corpus = json.loads((options.work / "corpus.json").read_text())
    log = [json.loads(line) for line in (options.work / options.name / "log.jsonl").read_text().splitlines()]
    config = json.loads((options.work / options.name / "best" / "config.json").read_text())
    figures = json.loads((options.work / "copy-rate.json").read_text())
    overlap = json.loads((options.work / "overlap.json").read_text())
    best = max(log, key=lambda record: record["score"])
    first = {record["step"]: record for record in log}  # a resumed run may note a step twice
    steps = sorted(first)
    shown = [first[s] for s in steps if s == steps[-1] or steps.index(s) % max(1, len(steps) // 12) == 0]
    size = options.gguf.stat().st_size
    with safe_open(str(options.work / options.name / "best" / "model.safetensors"), "np") as file:
        parameters = sum(file.get_tensor(name).size for name in file.keys())
    sha = hashlib.sha256(options.gguf.read_bytes()).hexdigest()
    full, short = corpus["rows"]["full"], corpus["rows"]["short"]
    one = figures["1 API"]

    text = f"""# inhouse-tiny

A CodeGen-shaped language model made from scratch by this project, small enough to be in the repository
({size / 1e6:.1f} MB), so that the demo can generate before a real trained model ships.

**It is very weak.** It has {parameters / 1e6:.2f} M parameters and has read {best["tokens"] / 1e6:.2f} M tokens; CodeGen-350M has 350 M
and read hundreds of billions. It has learned one thing: to take an API's name out of the prompt's block and write a call of it.
Given documentation it never saw, with names it never saw, it names the API in {percent(one["name copied"])} of the cases when the block
holds one API, and writes the whole expected line in {percent(one["line exact"])}. **It does not choose between APIs**: with two or three in the block its
rates are about those of a blind pick (50 % and 33 %). It knows no library, and when unsure it repeats itself. Use it to see the path
work, never to judge the method.

## Measured

Greedy decoding of the float32 weights by transformers, {one["n"]} held-out tasks each; names and documentation sentences are reserved by hash and never
trained on as tasks (words within a name may be known, and a sentence may stand as a docstring in the plain Python), and the prompt says the name
nowhere but in the block. "No block" is the control: the name cannot be known there.

{table(("API block", "name copied", "whole line exact"), [(s, percent(figures[s]["name copied"]), percent(figures[s]["line exact"])) for s in SETTINGS])}

The tasks are made by rule, so the comment often shares words with the documentation; people's comments share fewer, so expect less on problems
that people wrote. `make demo` measures tests/private-library with the quantised file.

## Shape

`{json.dumps({k: config[k] for k in ("vocab_size", "n_embd", "n_layer", "n_head", "rotary_dim", "n_positions")})}`; trained on rows of 128 and 256 tokens: prompts above some
250 tokens are beyond what it has seen. Byte-level BPE read by GPT-2's rule, `<|endoftext|>` = 0, no added tokens for spaces. The merges
are learned so that a name is cut the same way with a space before it and without (corpus.py, `learn_merges`).

## Training

{table(("step", "tokens", "loss, weighted", "loss on completions", "names right, 1 API", "2", "3", "no block"),
       [(r["step"], f'{r["tokens"]:,}', f'{r["loss"]:.3f}' if r["step"] else "", f'{r["completion_loss"]:.3f}' if r["step"] else "", percent(r["1 API"]), percent(r["2 APIs"]), percent(r["3 APIs"]), percent(r["no block"])) for r in shown])}

The columns on names are the log's cheap measure (64 tasks each; every token of the name is the most likely one given what precedes it). The weights here
are those of step {best["step"]}: {best["tokens"]:,} tokens, one thread, {log[-1]["seconds"]:,} s of wall clock for the whole run on a machine shared with
builds ({log[-1]["tokens"] / max(1, log[-1]["seconds"]):,.0f} tokens/s over the run; 2,700 to 4,000 tokens/s where a core is free).
AdamW (0.9, 0.98), weight decay 0.05, warm-up and cosine, clipping at 1; tokens of completions weigh 1, plain Python 0.4, prompts 0.08.

Two heads in layer 0 and two in layer 1 do not start at random but as an induction circuit (circuit.py); training changes them freely.

## Data

{corpus["tasks"]:,} documentation-to-call tasks from {corpus["apis_for_training"]:,} public APIs, every API renamed anew for every task, and {corpus["blocks"]:,} blocks of plain Python.
Tokens prepared: {short["tokens"]:,} in short rows ({json.dumps(short["tokens_by_kind"])}), {full["tokens"]:,} in full rows ({json.dumps(full["tokens_by_kind"])}); plain Python
also fills the rows' ends. Corpus seed {corpus["seed"]}. None of it is in the repository.

{table(("source", "version", "licence", "APIs"), [(name, e["version"], e["licence"], e["apis"]) for name, e in sorted(corpus["sources"].items())])}

## Overlap with the benchmarks

{corpus["overlap"]["n"]}-grams over words and punctuation marks, white space ignored, against prompt, solutions and tests of every problem of
{", ".join(f"`{name}` ({count})" for name, count in corpus["overlap"]["benchmark_files"].items() if "api" not in name and "human" not in name)}
and of the former's variants with APIs. Whatever shared one was left out: {", ".join(f"{count:,} {kind}" for kind, count in corpus["overlap"]["removed"].items())}.
Checked again on the finished rows, decoded: {overlap["documents"]:,} documents, {overlap["sharing"]} with a shared 10-gram{": " + "; ".join(f"`{e}`" for e in overlap["examples"]) if overlap["sharing"] else ""}.

## Make it again

    cd converters/demo-model          # Python 3.11, torch 1.13, transformers 4.36, tokenizers 0.15, numpy; see README.md
    {options.corpus_command}
    {options.command}
    cp DIR/hf/tokenizer* DIR/hf/vocab.json DIR/hf/merges.txt DIR/train/best/
    inhouse-convert gguf --from DIR/train/best --out {options.gguf.name} --quantize Q8_0 --name inhouse-tiny

SHA-256 of {options.gguf.name}: `{sha}`. The weights are the project's own and carry its licence.
"""
    options.out.write_text(text)


if __name__ == "__main__":
    main()
