#!/usr/bin/env python3
"""CPU time and memory of `inhouse docs` and `griffe dump` on the same pandas sources: docs.py PANDAS_WHEEL.

Both write JSON. griffe runs on the wheel's folder twice over: as it is, tests included (what its user types), and without
`tests` folders, which `inhouse docs` does not read either.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from report import Run, head, median, output

ROOT = Path(__file__).resolve().parents[2]
RUNS = 3


def peer():
    python = ROOT / ".env/peers/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "griffe==2.4.1"], check=True)
    return python.parent / "griffe"


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    wheel, griffe, inhouse = Path(sys.argv[1]), peer(), ROOT / "target/release/inhouse"
    with tempfile.TemporaryDirectory() as folder:
        whole, bare, out = Path(folder, "whole"), Path(folder, "bare"), Path(folder, "out")
        zipfile.ZipFile(wheel).extractall(whole)
        shutil.copytree(whole, bare, ignore=shutil.ignore_patterns("tests"))
        commands = {
            "inhouse docs (the wheel)": [inhouse, "docs", wheel, "--out", out],
            "inhouse docs (the folder without tests)": [inhouse, "docs", bare / "pandas", "--out", out],
            "griffe dump (the folder without tests)": [griffe, "dump", "pandas", "-s", bare, "-o", out],
            "griffe dump (the folder as it is)": [griffe, "dump", "pandas", "-s", whole, "-o", out],
        }
        head(
            f"Documentation of {wheel.name}",
            {"inhouse": output([inhouse, "--version"]), "griffe": output([griffe, "--version"]), "runs": f"{RUNS}, in turns"},
        )
        runs = {name: [] for name in commands}
        for _ in range(RUNS):
            for name, command in commands.items():
                runs[name].append(Run([str(word) for word in command]))
    ours = median([run.cpu for run in runs["inhouse docs (the folder without tests)"]])
    print("| command | CPU s, each run | peak MiB | CPU, times inhouse on the folder |\n|---|---|---|---|")
    for name, done in runs.items():
        cpu = ", ".join(f"{run.cpu:.2f}" for run in done)
        ratio = median([run.cpu for run in done]) / ours
        print(f"| {name} | {cpu} | {median([run.peak_mib for run in done]):.0f} | {ratio:.1f} |")


main()
