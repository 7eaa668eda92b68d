#!/usr/bin/env python3
"""Judges constrained samples independently of the engine: with Python's own parser and the library itself, imported.

    inhouse generate --constrain ... --out samples.jsonl
    python3 benches/peers/constrain_check.py PROBLEMS SAMPLES FOLDER_OF_LIBRARY MODULE

Every `module.name` and `from module import name` in prompt + completion must name something that exists. A completion is
cut anywhere, so the longest part of its lines that parses is judged, with brackets and quotes left open closed first.
"""

import ast
import importlib
import json
import re
import sys


def is_name(character):
    return character == "_" or character.isalnum()


def parse(prompt, completion):
    """The tree of prompt + the longest beginning of completion that parses, trying the ends that a cut leaves open."""
    text = prompt + completion
    for end in range(len(text), len(prompt), -1):
        if end < len(text) and is_name(text[end - 1]) and is_name(text[end]):
            continue  # within a name
        for tail in ("", ")", "]", "}'", '}"', "}\n", "'", '"'):
            try:
                return ast.parse(text[:end] + tail)
            except (SyntaxError, ValueError, RecursionError):
                continue
    return None


def exists(module, name):
    if hasattr(module, name):
        return True
    try:
        importlib.import_module(f"{module.__name__}.{name}")
        return True
    except ImportError:
        return False


def main():
    problems_file, samples_file, folder, name = sys.argv[1:5]
    sys.path.insert(0, folder)
    importlib.import_module(name)
    prompts = {row["task_id"]: row["prompt"] for row in map(json.loads, open(problems_file))}
    samples = judged = references = 0
    wrong = []
    for row in map(json.loads, open(samples_file)):
        samples += 1
        completion = row["completion"]
        if row.get("finish_reason") in ("length", "context_full"):
            # The limit of tokens cuts names, too: the last one may not be whole.
            completion = completion[: len(completion) - len(re.search(r"\w*\Z", completion).group())]
        tree = parse(prompts[row["task_id"]], completion)
        if tree is None:
            continue
        judged += 1
        aliases = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name == name:
                        aliases[alias.asname or alias.name] = sys.modules[name]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
                references += 1
                if not exists(aliases[node.value.id], node.attr):
                    wrong.append((row["task_id"], node.attr, row["completion"]))
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == name:
                for alias in node.names:
                    references += 1
                    if alias.name != "*" and not exists(sys.modules[name], alias.name):
                        wrong.append((row["task_id"], alias.name, row["completion"]))
    print(json.dumps({"samples": samples, "judged": judged, "references": references, "wrong": len(wrong)}))
    for task, attr, completion in wrong[:20]:
        print(task, attr, repr(completion))
    sys.exit(bool(wrong))


main()
