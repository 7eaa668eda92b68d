"""Learns and measures the ranker's weights (models/inhouse-ranker) from what `usage_ranking` prints.

    python3 fit.py fit LEARN.jsonl...                     weights by listwise softmax, five folds by library, then over all; numpy
    python3 fit.py measure RANKER.json NAME=FILE.jsonl... recall@1/2/3/5 with the weights, and with each signal alone and left out

A row: {"task_id", "query", "gold": [names], "hits": [{"name", "aliases", "signals": {signal: value}}]}. Recall is by name, micro.
Each library counts the same in the fit, whatever the number of its queries.
"""

import json
import sys

import numpy as np

SIGNALS = ["words", "meaning", "files", "around", "named"]
KS = (1, 2, 3, 5, 10)


def bare(name):
    return name.rsplit(".", 1)[-1]


def read(path):
    rows = []
    for line in open(path, encoding="utf-8"):
        row = json.loads(line)
        gold = {bare(name) for name in row["gold"]}
        if not gold or not row["hits"]:
            continue
        values = np.array([[hit["signals"].get(s, 0.0) for s in SIGNALS] for hit in row["hits"]])
        owned = [[{hit["name"], *map(bare, hit["aliases"])} & gold, hit["name"]] for hit in row["hits"]]
        rows.append((values, owned, gold))
    return rows


def recall(rows, weights):
    found = np.zeros(len(KS))
    total = 0
    for values, owned, gold in rows:
        order = np.argsort(-(values @ weights), kind="stable")
        total += len(gold)
        for i, k in enumerate(KS):
            found[i] += len(set().union(*(owned[j][0] for j in order[:k])))
    return found / max(total, 1)


def fit(libraries, free, steps=400, ridge=0.02):
    """Gradient descent on the softmax of the golden hits among the others, each library alike."""
    weights = np.zeros(len(SIGNALS))
    weights[[0, 1]] = [0.25, 0.75]
    start = weights.copy()
    momentum = np.zeros_like(weights)
    for step in range(steps):
        gradient = np.zeros_like(weights)
        for rows in libraries:
            of_library = np.zeros_like(weights)
            n = 0
            for values, owned, _ in rows:
                right = np.array([bool(names) for names, _ in owned])
                if not right.any() or right.all():
                    continue
                scores = values @ weights
                p = np.exp(scores - scores.max())
                p /= p.sum()
                q = np.where(right, p, 0)
                q /= q.sum()
                of_library += (p - q) @ values
                n += 1
            gradient += of_library / max(n, 1)
        gradient = gradient / len(libraries) + ridge * (weights - start)
        gradient[~free] = 0
        momentum = 0.9 * momentum + gradient
        weights = weights - 0.1 * momentum
    return weights


def show(title, values):
    print(f"{title:34}" + " ".join(f"{value:.3f}" for value in values))


def free_of(names):
    return np.array([s in names for s in SIGNALS])


def main():
    if sys.argv[1] == "fit":
        libraries = {path.rsplit("/", 1)[-1].removesuffix(".jsonl"): read(path) for path in sys.argv[2:]}
        libraries = {name: rows for name, rows in libraries.items() if len(rows) >= 5}
        names = list(libraries)
        plain = np.zeros(len(SIGNALS))
        plain[[0, 1]] = [0.25, 0.75]
        sets = {
            "found": ["words", "meaning"],
            "+ files": ["words", "meaning", "files"],
            "+ around": ["words", "meaning", "around"],
            "+ files, around": ["words", "meaning", "files", "around"],
            "+ files, around, named": ["words", "meaning", "files", "around", "named"],
            "all": SIGNALS,
        }
        for title, chosen in sets.items():
            before, after = [], []
            for fold in range(5):
                held = names[fold::5]
                if not held:
                    continue
                weights = fit([libraries[n] for n in names if n not in held], free_of(chosen))
                before += [recall(libraries[n], plain) for n in held]
                after += [recall(libraries[n], weights) for n in held]
            if title == "found":
                show("as searched, mean of libraries", np.mean(before, axis=0))
            show(title + ", cross-validated", np.mean(after, axis=0))
        for title, chosen in sets.items():
            weights = fit(list(libraries.values()), free_of(chosen))
            print(title, json.dumps({s: round(float(w), 3) for s, w in zip(SIGNALS, weights)}))
        for name in names:
            print(name, len(libraries[name]), "queries")
    else:
        ranker = json.load(open(sys.argv[2], encoding="utf-8"))
        weights = np.array([ranker["weights"][s] for s in SIGNALS])
        plain = np.zeros(len(SIGNALS))
        plain[[0, 1]] = [0.25, 0.75]
        for argument in sys.argv[3:]:
            name, path = argument.split("=", 1)
            rows = read(path)
            print(name, len(rows), "queries, recall @" + " @".join(map(str, KS)))
            show("  words and meaning", recall(rows, plain))
            show("  all signals", recall(rows, weights))
            show("  any of those found", [len(set().union(*(names for r in rows for names, _ in r[1]))) and
                 sum(len(set().union(*(n for n, _ in owned))) for _, owned, _ in rows) / sum(len(g) for *_, g in rows)])
            for i, signal in enumerate(SIGNALS):
                if weights[i]:
                    without = weights.copy()
                    without[i] = 0
                    alone = plain.copy() if i > 1 else np.zeros(len(SIGNALS))
                    alone[i] = weights[i]
                    show(f"  without {signal}", recall(rows, without))
                    show(f"  {'found + ' if i > 1 else ''}{signal}", recall(rows, alone))


main()
