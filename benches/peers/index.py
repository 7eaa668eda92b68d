"""An index over a million APIs beside hnswlib and FAISS, on the same vectors.

    python3 benches/peers/index.py data PAIRS MINILM DATA       # needs torch, transformers, numpy
    python3 benches/peers/index.py build hnswlib|faiss-hnsw|faiss-ivf|faiss-ivf-sq8 DATA [N]    # needs hnswlib, faiss-cpu, numpy
    python3 benches/peers/index.py ask hnswlib|faiss-hnsw|faiss-ivf|faiss-ivf-sq8 DATA [N]
    cargo build --release -p inhouse-core --example index_at_scale
    target/release/examples/index_at_scale DATA INDEX

PAIRS is the cache of `inhouse train pairs` (docs/*.jsonl.gz, code/*.jsonl.gz): documentation of public packages, and what their
code says where it calls them. MINILM is a Hugging Face folder of all-MiniLM-L6-v2.

`data` takes 20,000 of the records, and makes a million by renaming: in each of 49 twins two fifths of the words that names are made
of are exchanged for others that are as frequent, in names, signatures and descriptions alike. 20,000 records and 4,000 of their
twins are encoded; the vector of every other twin is its original's plus the difference between one of these twins and its
original, at random and scaled by .75 to 1.25. Queries are comments and docstrings of code. Everything on one thread.
"""

import collections
import glob
import gzip
import json
import os
import random
import re
import resource
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np  # noqa: E402

DIM = 384
RECORDS = 1_000_000
BASE = 20_000
ENCODED_TWINS = 4_000
QUERIES = 1_000
FAISS_FACTORIES = {"faiss-ivf": "IVF1024,Flat", "faiss-ivf-sq8": "IVF1024_HNSW32,SQ8"}
PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
WORD = re.compile(r"[A-Za-z]+")


def records(pairs):
    """Distinct records with a description, at most 3,000 of a package."""
    files = {}
    for path in sorted(glob.glob(f"{pairs}/docs/*.jsonl.gz")):
        files[os.path.basename(path).rsplit("-", 1)[0]] = path
    found = {}
    for path in sorted(files.values()):
        of_package = 0
        for line in gzip.open(path, "rt"):
            api = json.loads(line).get("Api") if line.startswith('{"Api"') else None
            if of_package > 3000 or not api or api.get("kind") == "module" or not api.get("description"):
                continue
            key = (api["name"], api["description"])
            fields = ("name", "qualified_name", "kind", "signature", "description", "module")
            api = {field: api[field] for field in fields if field in api}
            if key not in found and len(json.dumps(api)) <= 1500:
                found[key] = api
                of_package += 1
    return list(found.values())


def queries(pairs):
    found = []
    for path in sorted(glob.glob(f"{pairs}/code/*.jsonl.gz")):
        for line in gzip.open(path, "rt"):
            if line.startswith('{"Pair"'):
                pair = json.loads(line)["Pair"]
                if pair["origin"] in ("comment", "docstring") and 20 < len(pair["query"]) < 400:
                    found.append(pair["query"])
    random.shuffle(found)
    return list(dict.fromkeys(found))[: 2 * QUERIES]


def bands(base):
    """Words that names are made of, in bands of like frequency."""
    count = collections.Counter()
    for api in base:
        count.update(word.lower() for word in PART.findall(api["name"]) + WORD.findall(api["description"]))
    named = {w.lower() for api in base for w in PART.findall(api["name"]) if len(w) > 2 and not w.isdigit()}
    words = sorted(named, key=lambda word: (-count[word], word))
    found, at = [], 8
    while at < len(words):
        end = at * 3 // 2 + 8
        found.append(words[at:end])
        at = end
    return found


def exchanges(twin, word_bands):
    chance = random.Random(twin)
    table = {}
    for band in word_bands:
        chosen = [word for word in band if chance.random() < 0.4]
        others = chosen[:]
        chance.shuffle(others)
        table.update(zip(chosen, others))
    return table


def renamed(api, twin, table):
    def exchange(match):
        word = match.group(0)
        other = table.get(word.lower())
        if other is None:
            return word
        return other.upper() if word.isupper() and len(word) > 1 else other.capitalize() if word[0].isupper() else other

    api = dict(api)
    for field in ("name", "signature", "module", "qualified_name"):
        if field in api:
            api[field] = PART.sub(exchange, api[field])
    api["description"] = WORD.sub(exchange, api["description"])
    for field in ("module", "qualified_name"):
        library, dot, rest = api.get(field, "").partition(".")
        if dot:
            api[field] = f"{library}{twin}.{rest}"
    return api


def parameter_names(signature):
    inside, depth, names, current = signature.strip()[1:], 0, [], ""
    for char in inside:
        if depth == 0 and char == ")":
            break
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            names.append(current)
            current = ""
        else:
            current += char
    found = (re.match(r"\s*\**\s*([A-Za-z_]\w*)", name) for name in names + [current])
    return [name.group(1) for name in found if name and name.group(1) not in ("self", "cls", "args", "kwargs", "kwds")]


def document_text(api):
    """What `inhouse_core::index::document_text` gives, or nearly."""

    def words(name):
        return " ".join(PART.findall(name)).lower() or name

    text = f"{words(api['name'])}: {api['description'].strip()}"
    names = parameter_names(api.get("signature", "")) if api.get("signature", "").startswith("(") else []
    return text + (f" ({', '.join(map(words, names))})" if names else "")


def encode(minilm, texts):
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    vectors = np.zeros((len(texts), DIM), "f4")
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for at in range(0, len(texts), 64):
        rows = order[at : at + 64]
        batch = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=96, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).float()
        vectors[rows] = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return vectors


def make_data(pairs, minilm, data):
    random.seed(1)
    os.makedirs(data, exist_ok=True)
    base = records(pairs)
    random.shuffle(base)
    base, asked = base[:BASE], queries(pairs)
    word_bands = bands(base)
    tables = {twin: exchanges(twin, word_bands) for twin in range(1, RECORDS // BASE + 1)}
    twins = [renamed(api, i % 50 + 1, tables[i % 50 + 1]) for i, api in enumerate(base[:ENCODED_TWINS])]
    of_queries = encode(minilm, asked)
    of_base = encode(minilm, [document_text(api) for api in base])
    of_twins = encode(minilm, [document_text(api) for api in twins])
    cosines = (of_twins * of_base[:ENCODED_TWINS]).sum(1)
    print("cosine of record and twin, quantiles .05 .25 .5 .75:", np.quantile(cosines, [0.05, 0.25, 0.5, 0.75]).round(3))
    differences = (of_twins - of_base[:ENCODED_TWINS])[cosines < 0.98]
    chance = np.random.default_rng(7)
    with open(f"{data}/vectors.f32", "wb") as out:
        for at in range(0, RECORDS, 10_000):
            rows = np.arange(at, at + 10_000)
            vectors = of_base[rows % BASE].copy()
            which = chance.integers(0, len(differences), len(rows))
            scale = chance.random((len(rows), 1)).astype("f4") * 0.5 + 0.75
            twin = rows >= BASE
            vectors[twin] += (differences[which] * scale)[twin]
            (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4").tofile(out)
    with open(f"{data}/apis.jsonl", "w") as out:
        for i in range(RECORDS):
            api, twin = base[i % BASE], i // BASE
            out.write(json.dumps(renamed(api, twin, tables[twin]) if twin else api) + "\n")
    json.dump(asked, open(f"{data}/queries.json", "w"))
    of_queries.astype("<f4").tofile(f"{data}/queries.f32")
    exact = nearest(load(data, RECORDS), load_queries(data))
    with open(f"{data}/exact.txt", "w") as out:
        out.writelines(" ".join(map(str, row)) + "\n" for row in exact)


def load(data, n):
    return np.memmap(f"{data}/vectors.f32", "<f4", "r", shape=(RECORDS, DIM))[:n]


def load_queries(data):
    return np.fromfile(f"{data}/queries.f32", "<f4").reshape(-1, DIM)[:QUERIES]


def nearest(vectors, asked, k=10):
    """The numbers of the k vectors with the largest products, [queries, k]."""
    scores, rows = np.full((len(asked), k), -np.inf, "f4"), np.zeros((len(asked), k), "i8")
    for at in range(0, len(vectors), 50_000):
        product = asked @ vectors[at : at + 50_000].T
        part = np.argpartition(-product, k, axis=1)[:, :k]
        scores = np.concatenate([scores, np.take_along_axis(product, part, 1)], 1)
        rows = np.concatenate([rows, part + at], 1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return rows


def build(what, vectors, data):
    """The peer's index of the vectors, built on one thread, saved and loaded again later by `search_of`."""
    n, step = len(vectors), 10_000
    start, saving = time.process_time(), 0.0
    if what == "hnswlib":
        import hnswlib

        index = hnswlib.Index("ip", DIM)
        index.init_index(n, M=16, ef_construction=100, random_seed=1)

        def add(at):
            index.add_items(vectors[at : at + step], np.arange(at, min(n, at + step)), num_threads=1)

        def save(path):
            index.save_index(path)
    else:
        import faiss

        faiss.omp_set_num_threads(1)
        if what == "faiss-hnsw":
            index = faiss.IndexHNSWFlat(DIM, 16, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = 100
        else:
            index = faiss.index_factory(DIM, FAISS_FACTORIES[what], faiss.METRIC_INNER_PRODUCT)
            index.train(np.ascontiguousarray(vectors[np.sort(np.random.default_rng(1).permutation(n)[:65_536])]))

        def add(at):
            index.add(np.ascontiguousarray(vectors[at : at + step]))

        def save(path):
            faiss.write_index(index, path)

    for at in range(0, n, step):
        add(at)
        done = min(n, at + step)
        if done % 50_000 == 0 or done == n:
            print(f"  {what}, {done}: {time.process_time() - start - saving:.1f} s", flush=True)
        if done in (100_000, 250_000, 500_000) or done == n:
            before = time.process_time()
            save(f"{data}/{what}-{done}.bin")
            saving += time.process_time() - before
    print(f"{what} over {n}: built in {time.process_time() - start - saving:.1f} s of CPU; "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB at most", flush=True)


def searches(what, data, n):
    """A search of the built index, and the efforts to try."""
    if what == "hnswlib":
        import hnswlib

        index = hnswlib.Index("ip", DIM)
        index.load_index(f"{data}/{what}-{n}.bin")

        def search(query, effort):
            index.set_ef(effort)
            return index.knn_query(query, k=10, num_threads=1)[0][0]
    else:
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.read_index(f"{data}/{what}-{n}.bin")

        def search(query, effort):
            if what == "faiss-hnsw":
                index.hnsw.efSearch = effort
            else:
                index.nprobe = effort
            return index.search(query, 10)[1][0]

    return search, (32, 64, 128, 256, 512, 1024, 2048) if "hnsw" in what else (4, 8, 16, 32, 64, 128)


def ask(what, data, n):
    asked = load_queries(data)
    exact_at = f"{data}/exact-{n}.txt"
    if not os.path.exists(exact_at):
        np.savetxt(exact_at, nearest(load(data, n), asked), fmt="%d")
    exact = np.loadtxt(exact_at, dtype="i8")
    search, efforts = searches(what, data, n)
    for effort in efforts:
        times, hits = [], 0
        for query, right in zip(asked, exact):
            start = time.thread_time()
            found = search(query[None], effort)
            times.append(time.thread_time() - start)
            hits += len(set(found) & set(right))
        ms = np.quantile(np.array(times) * 1e3, [0.5, 0.99])
        print(f"{what} {effort}: recall@10 {hits / exact.size:.4f}, CPU p50 {ms[0]:.2f} ms, p99 {ms[1]:.2f} ms", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["data"] and len(sys.argv) == 5:
        make_data(*sys.argv[2:])
    elif sys.argv[1:2] in (["build"], ["ask"]) and len(sys.argv) in (4, 5):
        many = int(sys.argv[4]) if len(sys.argv) == 5 else RECORDS
        if sys.argv[1] == "build":
            build(sys.argv[2], load(sys.argv[3], many), sys.argv[3])
        else:
            ask(sys.argv[2], sys.argv[3], many)
    else:
        sys.exit(__doc__)
