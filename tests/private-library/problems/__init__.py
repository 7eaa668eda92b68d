"""The sources of problems.jsonl: one file for each part of the package, one `problem(...)` for each problem."""

from typing import Dict, List

PROBLEMS: List[Dict[str, object]] = []


def problem(apis: str, prompt: str, solution: str, test: str, entry_point: str = "none",
            trust: str = "") -> None:
    """Registers a problem.

    `apis` names the golden APIs, parted by spaces, in the order of use; `prompt` is what is completed; `solution` is
    a completion that is right; `test` defines `check()`, or `check(candidate)` where there is an entry point. `trust` is
    "in_process" where the test looks at what a completion does to the library itself, which another process does not see.
    """
    prompt = prompt.strip("\n")
    PROBLEMS.append({
        "apis": apis.split(),
        # A body is completed from a fresh line, an expression from behind the equals sign.
        "prompt": prompt + "\n" if entry_point != "none" else prompt,
        "entry_point": entry_point,
        "canonical_solution": solution.strip("\n"),
        "test": "\n\n" + test.strip("\n") + "\n",
        "trust": trust,
    })
