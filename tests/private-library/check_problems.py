"""Holds problems.jsonl to its promises; prints a summary and exits with 1 if one is broken.

Every canonical solution passes. Every wrong solution fails: nothing at all, `None` and other constants, each variable of
the prompt handed back as it is, and the canonical solution with a golden API left out or exchanged for another one of the
same class or module. Golden names exist, are used by the canonical solution and do not occur in the prompt. No task is
worded like a docstring of the package. The ratio of problems with one, two and more APIs is about 6:3:1. No prompt
resembles one of the public benchmarks. CPU time is measured and shown, but decides nothing.
"""

import ast
import contextlib
import gzip
import importlib
import inspect
import io
import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import build_problems  # noqa: E402
import gaugewren  # noqa: E402
from gaugewren import gauges, strand  # noqa: E402

SHARED = Path(os.environ.get("INHOUSE_SHARED", HERE.parents[2] / "shared"))
MODULES = ["ticks", "panes", "slate", "strand", "stages", "groupings", "gauges", "almanac", "tallies", "placard"]
GRAM = 10
DOC_GRAM = 6
# The rules by which generation ends: a solution that holds one of these could never be generated whole.
STOPS = ["\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif"]


def api_families():
    """Public names by the class or module they belong to; names registered by strandop count as methods of Strand."""
    families = {}
    for name in MODULES:
        module = importlib.import_module(f"gaugewren.{name}")
        families[name] = set(module.__all__)
        for export in module.__all__:
            member = getattr(module, export)
            if inspect.isclass(member) and not issubclass(member, Exception):
                own = {label for label in vars(member) if not label.startswith("_")}
                families[f"{name}.{export}"] = own
    return families


def run(row, completion):
    """Runs prompt, completion and test; returns None if they pass, else what went wrong."""
    scope = {"__name__": "candidate"}
    # Problems that define units or register stages must not see those of an earlier run.
    known, enrolled = dict(gauges._GAUGES), set(strand._ENROLLED)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(row["prompt"] + completion + "\n" + row["test"], row["task_id"], "exec"), scope)
            if row["entry_point"] == "none":
                scope["check"]()
            else:
                scope["check"](scope[row["entry_point"]])
    except Exception as fault:  # whatever a completion raises is its failure
        return f"{type(fault).__name__}: {fault}"
    finally:
        gauges._GAUGES.clear()
        gauges._GAUGES.update(known)
        for alias in set(strand._ENROLLED) - enrolled:
            del strand._ENROLLED[alias]
            delattr(strand.Strand, alias)
    return None


def used_names(row):
    """Every name and attribute in the canonical solution."""
    source = row["prompt"] + row["canonical_solution"]
    before = Counter(names_in(ast.parse(row["prompt"] + closing_of(row))))
    after = Counter(names_in(ast.parse(source)))
    return set(after - before)


def closing_of(row):
    """What makes the bare prompt parse: a body, or a value."""
    if row["entry_point"] != "none":
        return "    pass"
    return " ]" if row["prompt"].rstrip().endswith("[") else " None"


def names_in(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id


def wrong_completions(row, families):
    """Yields (what it is, completion) for completions that must fail."""
    tree = ast.parse(row["prompt"] + closing_of(row))
    body = row["entry_point"] != "none"
    tail = " for _ in ''" + "]" if row["prompt"].rstrip().endswith("[") else ""
    if body:
        function = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == row["entry_point"])
        values = [argument.arg for argument in function.args.args]
        values += [node.id for node in ast.walk(function) if isinstance(node, ast.Name)]
        yield "pass", "    pass"
    else:
        values = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    for value in ["None", "0", "[]", "''", "True", "False", *dict.fromkeys(values)]:
        if tail:
            yield value, f" {value} for _ in range(3)]"
        else:
            yield value, f"    return {value}" if body else f" {value}"
    if tail:
        yield "empty list", " ]"
    solution = row["canonical_solution"]
    for api in row["apis"]:
        for family, members in families.items():
            if api not in members and not (family == "strand.Strand" and api in gaugewren.known_strandops()):
                continue
            for other in sorted(members - {api}):
                yield f"{other} for {api}", re.sub(rf"\b{api}\b", other, solution)
        # The same step left out: f(x).api(...) becomes f(x).
        stripped = re.sub(rf"\.{api}\([^()]*\)", "", solution)
        if stripped != solution and not re.search(r"=\s*$|\bgw\b(?!\.)", stripped):
            yield f"without {api}", stripped


def grams(text, size=GRAM):
    """All runs of `size` words and punctuation marks."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return {tuple(words[i:i + size]) for i in range(len(words) - size + 1)}


def docstring_grams():
    """The runs of words in the sources of the package, docstrings included."""
    sources = (HERE / "gaugewren" / f"{name}.py" for name in MODULES)
    return set().union(*(grams(source.read_text(encoding="utf-8"), DOC_GRAM) for source in sources))


def public_grams():
    """The 10-grams of the public benchmarks' prompts and tests, or None where they are not at hand."""
    files = sorted((SHARED / "benchmarks").glob("real_*_eval_v3.jsonl.gz"))
    if not files:
        return None
    found = set()
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                found |= grams(row["prompt"])
    return found


def main() -> int:
    faults = []
    if build_problems.TARGET.read_text(encoding="utf-8") != build_problems.built_text():
        faults.append("problems.jsonl is stale: run build_problems.py")
    rows = [json.loads(line) for line in build_problems.TARGET.read_text(encoding="utf-8").splitlines()]
    families = api_families()
    families["strand.Strand"] |= set(gaugewren.known_strandops())
    names = set().union(*families.values())
    documented = docstring_grams()
    wrong = rejected = 0
    slowest = 0.0
    for row in rows:
        where = row["task_id"]
        started = time.process_time()
        fault = run(row, row["canonical_solution"])
        slowest = max(slowest, time.process_time() - started)
        if fault:
            faults.append(f"{where}: the canonical solution fails: {fault}")
        for what, completion in wrong_completions(row, families):
            wrong += 1
            if run(row, completion) is None:
                faults.append(f"{where}: a wrong solution passes ({what}):{completion}")
            else:
                rejected += 1
        used = used_names(row)
        for api in row["apis"]:
            if api not in names:
                faults.append(f"{where}: no public API {api!r}")
            if api not in used:
                faults.append(f"{where}: the canonical solution does not use {api!r}")
            if re.search(rf"\b{re.escape(api)}\b", row["prompt"], re.IGNORECASE):
                faults.append(f"{where}: the prompt gives {api!r} away")
        given = set(re.findall(r"\w+", row["prompt"])) | {"moment", "amount", "origin", "marks", "symbol"}
        for api in sorted((used & names) - set(row["apis"]) - given):
            faults.append(f"{where}: the canonical solution uses {api!r}, which is not listed")
        if "[start]" in row["prompt"] or len(row["query"].split()) < 5:
            faults.append(f"{where}: the prompt needs words of its own and no block of APIs")
        if grams(row["query"], DOC_GRAM) & documented:
            faults.append(f"{where}: the task is worded like the documentation")
        if any(stop in row["canonical_solution"] for stop in STOPS):
            faults.append(f"{where}: the canonical solution holds a stop word")
        if row["test"].count("assert") < 1:
            faults.append(f"{where}: no assertion")
    for key in ("task_id", "prompt", "query"):
        for value, times in Counter(row[key] for row in rows).items():
            if times > 1:
                faults.append(f"{key} repeats: {value[:60]!r}")
    sizes = Counter(min(len(row["apis"]), 3) for row in rows)
    for size, share in ((1, 0.6), (2, 0.3), (3, 0.1)):
        if abs(sizes[size] / len(rows) - share) > 0.05:
            faults.append(f"{sizes[size]} of {len(rows)} problems need {size} APIs: not about {share:.0%}")
    if len(names) < 60 or len(rows) < 50:
        faults.append(f"{len(names)} public APIs and {len(rows)} problems: at least 60 and 50 are promised")
    foreign = public_grams()
    if foreign is None:
        print(f"overlap with public benchmarks: skipped, {SHARED / 'benchmarks'} is not there")
    else:
        overlap = [row["task_id"] for row in rows if grams(row["prompt"]) & foreign]
        faults += [f"{where}: shares {GRAM} words in a row with a public benchmark" for where in overlap]
        print(f"overlap with public benchmarks: {len(overlap)} problems share a {GRAM}-gram ({len(foreign)} compared)")
    golden = {api for row in rows for api in row["apis"]}
    print(f"{len(names)} public API names ({sum(map(len, families.values()))} with their classes), "
          f"{len(golden)} of them golden")
    print(f"{len(rows)} problems: {sizes[1]} with one API, {sizes[2]} with two, {sizes[3]} with three or more; "
          f"{sum(row['entry_point'] == 'none' for row in rows)} expressions, "
          f"{sum(row['entry_point'] != 'none' for row in rows)} function bodies")
    print(f"{rejected} of {wrong} wrong solutions rejected; slowest canonical solution {1000 * slowest:.1f} ms of CPU")
    for fault in faults:
        print("FAULT", fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
