"""Proof that no benchmark problem is in the corpus: 10-grams over lexical tokens.

corpus.py asks it for what to leave out; run by itself it reads the finished rows back, decodes them and looks again:

    python overlap.py --work DIR
"""

import argparse
import gzip
import json
import re
from pathlib import Path

N = 10  # lexical tokens
TOKEN = re.compile(r"\w+|[^\w\s]")


def grams(text):
    """The 10-grams of a text's words and punctuation marks; white space does not count."""
    tokens = TOKEN.findall(text)
    return {tuple(tokens[i : i + N]) for i in range(len(tokens) - N + 1)}


def _rows(path):
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else open(path)
    with opened as file:
        return [json.loads(line) for line in file if line.strip()]


def problem_grams(shared, repository):
    """(10-grams of every problem's prompt, solutions and tests, {file: problems}); files that are absent are not listed."""
    paths = sorted(Path(shared, "benchmarks").glob("real_*_eval*.jsonl.gz"))
    paths += sorted(Path(repository, "tests", "private-library").glob("problems*.jsonl"))
    found, files = set(), {}
    for path in paths:
        rows = _rows(path)
        files[path.name] = len(rows)
        for row in rows:
            solutions = row.get("canonical_solution") or []
            solutions = [solutions] if isinstance(solutions, str) else solutions
            for solution in solutions or [""]:
                found |= grams(row["prompt"] + solution)
            found |= grams(str(row.get("test", "")))
    return found, files


def documents(work):
    """The text of every document in the finished rows."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(work / "hf" / "tokenizer.json"))
    for name in ("short", "full"):
        with np.load(work / f"rows-{name}.npz") as file:
            ids, document = file["ids"], file["document"]
        for row, numbers in zip(ids, document):
            cuts = np.flatnonzero(np.diff(numbers)) + 1
            yield from (tokenizer.decode(part.tolist()) for part in np.split(row, cuts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[3] / "shared")
    options = parser.parse_args()
    forbidden, files = problem_grams(options.shared, Path(__file__).parents[2])
    count, sharing, examples = 0, 0, []
    for text in documents(options.work):
        count += 1
        common = grams(text) & forbidden
        if common:
            sharing += 1
            examples.append(" ".join(sorted(common)[0]))
    report = {"documents": count, "sharing": sharing, "examples": sorted(set(examples))[:20], "problems": sum(files.values()), "files": len(files)}
    (options.work / "overlap.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
