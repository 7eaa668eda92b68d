"""How often the model copies an API's name out of the prompt, on names and documentation that training never saw.

    python measure.py --work DIR --model DIR/hf [-n 200]     greedy decoding with transformers
"""

import argparse
import json
import random
import re
from pathlib import Path

import torch

import sources
from corpus import END, encode
from tasks import Maker, Names, word_list

SETTINGS = {"1 API": (1, True), "2 APIs": (2, True), "3 APIs": (3, True), "no block": (1, False)}


def held_out_tasks(work, n, seed=99):
    """{setting: tasks} over reserved APIs and reserved names; a prompt never says the name outside its block."""
    rng = random.Random(seed)
    apis = set()
    for library, _, _, _, text in sources.read(work / "wheels"):
        apis.update(sources.apis_of(library, text))
    apis = sorted(apis, key=repr)
    maker = Maker([api for api in apis if sources.reserved(api.sentence)], Names(rng, word_list(apis), held_out=True), rng)
    drawn = {}
    for setting, (n_apis, block) in SETTINGS.items():
        tasks = []
        while len(tasks) < n:
            task = maker.task(2, n_apis, block)
            context = task.prompt.split("# [end]\n")[-1]
            if task.name not in context and len(task.prompt) < 620:
                tasks.append(task)
        drawn[setting] = tasks
    return drawn


class HeldOut:
    """The cheap measure for a run's log: is every token of the name the most likely one, given what precedes it?"""

    def __init__(self, work, n=64):
        from tokenizers import Tokenizer

        cache = work / "held-out.json"
        if not cache.exists():
            drawn = {setting: [vars(task) for task in tasks] for setting, tasks in held_out_tasks(work, n).items()}
            cache.write_text(json.dumps(drawn))
        self.drawn = json.loads(cache.read_text())
        tokenizer = Tokenizer.from_file(str(work / "hf" / "tokenizer.json"))
        end = tokenizer.token_to_id(END)
        self.batches = {}
        for setting, tasks in self.drawn.items():
            rows, spans = [], []
            for task in tasks:
                before, completion = tokenizer.encode(task["prompt"]).ids, tokenizer.encode(task["completion"])
                start, stop = task["name_at"], task["name_at"] + len(task["name"])
                inside = [i for i, (a, b) in enumerate(completion.offsets) if a < stop and b > start]
                rows.append(before + completion.ids)
                spans.append((len(before) + inside[0], len(before) + inside[-1] + 1))
            length = max(map(len, rows))
            ids = torch.tensor([row + [end] * (length - len(row)) for row in rows])
            self.batches[setting] = (ids, spans)

    @torch.no_grad()
    def teacher_forced(self, model):
        """{setting: share of names whose every token is right, setting + " first": share whose first token is}."""
        scores = {}
        for setting, (ids, spans) in self.batches.items():
            whole = first = rest = 0
            for at in range(0, len(ids), 32):
                hidden = model.hidden(ids[at : at + 32])
                for row, (start, stop) in enumerate(spans[at : at + 32]):
                    guess = model.lm_head(hidden[row, start - 1 : stop - 1]).argmax(-1)
                    right = guess == ids[at + row, start:stop]
                    whole += bool(right.all())
                    first += bool(right[0])
                    rest += bool(right[1:].all())
            scores[setting] = whole / len(ids)
            if setting != "no block":
                scores[setting + " first"], scores[setting + " rest"] = first / len(ids), rest / len(ids)
        scores["score"] = sum(scores[s] for s in ("1 API", "2 APIs", "3 APIs")) / 3
        return scores


@torch.no_grad()
def first_line(model, tokenizer, prompt, most=48):
    """The line that greedy decoding writes behind the prompt, cut after `most` tokens."""
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    start = ids.shape[1]

    def ended(made, _scores):
        return "\n" in tokenizer.decode(made[0, start:].tolist())

    made = model.generate(ids, do_sample=False, max_new_tokens=most, pad_token_id=0, eos_token_id=0,
                          attention_mask=torch.ones_like(ids), stopping_criteria=[ended])
    return tokenizer.decode(made[0, start:].tolist()).split("\n")[0]


def main():
    from tokenizers import Tokenizer
    from transformers import CodeGenForCausalLM

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--show", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = CodeGenForCausalLM.from_pretrained(options.model).eval()
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    figures = {}
    for setting, tasks in held_out_tasks(options.work, options.n, seed=1234).items():
        named = exact = 0
        for number, task in enumerate(tasks):
            line = first_line(model, tokenizer, task.prompt)
            named += bool(re.search(rf"(?<!\w){re.escape(task.name)}\(", line))
            exact += line.strip() == task.completion.split("\n")[0].strip()
            if number < options.show:
                print(f"--- {setting}\n{task.prompt}>>>{line}\n... wanted {task.completion!r}")
        figures[setting] = {"name copied": named / len(tasks), "line exact": exact / len(tasks), "n": len(tasks)}
    print(json.dumps(figures, indent=1))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
