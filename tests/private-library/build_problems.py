"""Builds problems.jsonl from the sources in problems/.

    python3 build_problems.py            writes problems.jsonl
    python3 build_problems.py --check    exits with 1 if problems.jsonl is not what the sources give
"""

import importlib
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE / "problems.jsonl"
PARTS = ["streams", "windows", "tables", "units", "figures"]


def query_of(prompt: str) -> str:
    """The task in words: the comment lines of the prompt, joined."""
    lines = (line.strip() for line in prompt.splitlines())
    return " ".join(line.lstrip("#").strip() for line in lines if line.startswith("#"))


def built_text() -> str:
    """The contents of problems.jsonl as the sources give it."""
    sys.path.insert(0, str(HERE))
    for part in PARTS:
        importlib.import_module(f"problems.{part}")
    rows = []
    for number, source in enumerate(importlib.import_module("problems").PROBLEMS):
        rows.append({
            "task_id": f"GaugewrenEval/{number}",
            "prompt": source["prompt"],
            "entry_point": source["entry_point"],
            "canonical_solution": source["canonical_solution"],
            "test": source["test"],
            "apis": source["apis"],
            "query": query_of(source["prompt"]),
            "gold": source["apis"],
            **({"trust": source["trust"]} if source["trust"] else {}),
        })
    return "".join(json.dumps(row) + "\n" for row in rows)


def main(arguments) -> int:
    text = built_text()
    if arguments == ["--check"]:
        fresh = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text
        print(f"{TARGET.name} is up to date" if fresh else f"{TARGET.name} is stale: run build_problems.py")
        return 0 if fresh else 1
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    draft = TARGET.with_suffix(".tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, TARGET)
    print(f"{TARGET.name}: {text.count(chr(10))} problems")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
