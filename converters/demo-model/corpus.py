"""Makes what training reads: a tokenizer and rows of whole documents, packed without padding.

    python corpus.py --work DIR

Writes DIR/hf (tokenizer), DIR/rows-{short,full}.npz (ids, document numbers, loss weights: [rows, length])
and DIR/corpus.json (what went in, what was removed).
"""

import argparse
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import overlap
import sources
from tasks import Maker, Names, word_list

END = "<|endoftext|>"
# Loss weights in hundredths. Names in an API block are random, so learning to guess them is waste.
COMPLETION, PROMPT, PLAIN, SIGHT = 100, 8, 40, 0


def learn_merges(texts, vocabulary, with_space):
    """A byte-level BPE model in which a name is cut the same way with a space before it and without.

    GPT-2's merges glue the space to a word's first letters, so that `# foo(` and `.foo(` share no token, and
    nothing of this size gets to copy one into the other. Here the space is split off while merges are learned;
    afterwards the `with_space` most frequent words that are one token get their space back by a last merge each.
    The text is cut at run time by GPT-2's own rule, so every reader of GPT-2 tokenizers reads this one.
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    apart = pre_tokenizers.Split(Regex("^\u0120(?=[^\u0120\u010a])"), "isolated")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence([byte_level, apart])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocabulary - with_space, special_tokens=[END], initial_alphabet=alphabet, show_progress=False))
    model = json.loads(learner.to_str())["model"]
    ids, merges = model["vocab"], [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    words = Counter(word for text in texts for word, _ in byte_level.pre_tokenize_str(text) if word[0] == "\u0120")
    frequent = [word for word, _ in sorted(words.items(), key=lambda pair: (-pair[1], pair[0])) if word[1:] in ids and word not in ids]
    for word in frequent[:with_space]:
        ids[word] = len(ids)
        merges.append((word[0], word[1:]))
    return models.BPE(vocab=ids, merges=merges)


def train_tokenizer(texts, vocabulary, folder, with_space=256):
    """A byte-level BPE tokenizer with a small vocabulary, saved in the layout of GPT-2's."""
    tokenizer = Tokenizer(learn_merges(texts, vocabulary, with_space))
    tokenizer.add_special_tokens([END])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    end = {"content": END, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "bos_token": END, "eos_token": END, "unk_token": END,
                "model_max_length": 512, "added_tokens_decoder": {"0": {**end, "special": True}}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps({k: END for k in ("bos_token", "eos_token", "unk_token")}) + "\n")
    return tokenizer


def encode(tokenizer, pieces, end):
    """[(text, weight)] to (ids, weights). Pieces are encoded apart, as prompt and completion are when generating."""
    ids, weights = [], []
    for text, weight in pieces:
        found = tokenizer.encode(text).ids
        ids += found
        weights += [weight] * len(found)
    ids.append(end)
    weights.append(pieces[-1][1])
    weights[0] = 0
    return ids, weights


def repeats(rng, vocabulary):
    """Random tokens said over and over: all that can be learned from it is to copy."""
    part = [rng.randrange(1, vocabulary) for _ in range(rng.randint(3, 16))]
    times = max(2, rng.randint(24, 64) // len(part))
    return part * times + [0], [SIGHT] * len(part) + [COMPLETION] * (len(part) * (times - 1) + 1)


class Packer:
    """Rows of `length` tokens: whole documents first fit, then the start of a plain block fills what is left."""

    def __init__(self, length, plain):
        self.length, self.plain, self.open, self.done = length, plain, [], []

    def add(self, ids, weights):
        if len(ids) > self.length:
            return False
        for row in self.open:
            if sum(len(i) for i, _ in row) + len(ids) <= self.length:
                row.append((ids, weights))
                break
        else:
            self.open.append([(ids, weights)])
            if len(self.open) > 24:
                fullest = max(self.open, key=lambda row: sum(len(i) for i, _ in row))
                self.open.remove(fullest)
                self.close(fullest)
        return True

    def close(self, row):
        left = self.length - sum(len(i) for i, _ in row)
        while left:
            ids, weights = self.plain()
            row.append((ids[:left], weights[:left]))
            left -= len(row[-1][0])
        self.done.append(row)

    def arrays(self, rng):
        for row in self.open:
            self.close(row)
        self.open = []
        rng.shuffle(self.done)
        shape = (len(self.done), self.length)
        ids, document, weight = np.zeros(shape, np.uint16), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        for r, row in enumerate(self.done):
            at = 0
            for number, (i, w) in enumerate(row):
                ids[r, at : at + len(i)], weight[r, at : at + len(i)], document[r, at : at + len(i)] = i, w, number
                at += len(i)
        return {"ids": ids, "document": document, "weight": weight}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[3] / "shared")
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--short-tokens", type=int, default=1_500_000)
    parser.add_argument("--full-tokens", type=int, default=8_000_000)
    parser.add_argument("--seed", type=int, default=20221)
    options = parser.parse_args()
    rng = random.Random(options.seed)

    sources.download(options.work / "wheels")
    apis, blocks, listed = set(), [], {}
    for library, version, licence, _, text in sources.read(options.work / "wheels"):
        found = set(sources.apis_of(library, text))
        entry = listed.setdefault(library, {"version": version, "licence": licence, "files": 0, "apis": 0})
        entry["files"] += 1
        entry["apis"] += len(found - apis)
        apis |= found
        blocks.extend(sources.blocks_of(text, rng))
    apis = sorted(apis, key=repr)

    forbidden, files = overlap.problem_grams(options.shared, Path(__file__).parents[2])
    removed = Counter()

    def clean(kind, text):
        hit = not forbidden.isdisjoint(overlap.grams(text))
        removed[kind] += hit
        return not hit

    blocks = [block for block in blocks if clean("plain blocks", block)]
    training = [api for api in apis if not sources.reserved(api.sentence) and clean("APIs", f"# {api.name}({api.signature}): {api.sentence}")]
    maker = Maker(training, Names(rng, word_list(apis)), rng)

    sample = [maker.task(2) for _ in range(12_000)]
    texts = [task.prompt + task.completion for task in sample] + rng.sample(blocks, min(6_000, len(blocks)))
    tokenizer = train_tokenizer(texts, options.vocabulary, options.work / "hf")
    end = tokenizer.token_to_id(END)

    state = {"order": [], "seen": 0}

    def plain():
        if not state["order"]:
            state["order"] = rng.sample(range(len(blocks)), len(blocks))
        return encode(tokenizer, [(blocks[state["order"].pop()], PLAIN)], end)

    def task(level):
        while True:
            made = maker.task(level)
            if clean("tasks", made.prompt + made.completion):
                state["seen"] += 1
                return encode(tokenizer, [(made.prompt, PROMPT), (made.completion, COMPLETION)], end)

    report = {"seed": options.seed, "apis": len(apis), "apis_for_training": len(training), "blocks": len(blocks), "sources": listed,
              "overlap": {"n": overlap.N, "benchmark_files": files, "benchmark_grams": len(forbidden)}, "rows": {}}
    # (share of documents) repeats, one-API tasks, all tasks, plain Python; packing's fillers add to the last
    plans = {"short": (128, options.short_tokens, (25, 70, 0, 5)), "full": (256, options.full_tokens, (3, 17, 60, 20))}
    for name, (length, tokens, mix) in plans.items():
        packer = Packer(length, plain)
        kinds = Counter()
        while len(packer.done) * length < tokens:
            kind = rng.choices(("repeats", "one", "all", "plain"), mix)[0]
            made = {"repeats": lambda: repeats(rng, options.vocabulary), "one": lambda: task(1), "all": lambda: task(2), "plain": plain}[kind]()
            if packer.add(*made):
                kinds[kind] += len(made[0])
            else:
                kinds["too long (left out)"] += len(made[0])
        arrays = packer.arrays(rng)
        np.savez(options.work / f"rows-{name}.npz", **arrays)
        report["rows"][name] = {"rows": len(arrays["ids"]), "length": length, "tokens": int(arrays["ids"].size),
                                "tokens_by_kind": dict(kinds), "weighted_tokens": int((arrays["weight"] > 0).sum())}
    report["overlap"]["removed"] = dict(removed)
    report["tasks"] = state["seen"]
    (options.work / "corpus.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "sources"}, indent=1))


if __name__ == "__main__":
    main()
