"""Proof that no benchmark problem is in the corpus: 10-grams over lexical tokens."""

import gzip
import json
import re
from pathlib import Path

N = 10
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
