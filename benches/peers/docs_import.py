#!/usr/bin/env python3
"""What `inhouse docs` reads of installed packages, against what an import of them says: docs_import.py [FOLDER] [PACKAGE...] [--verify].

Installs the pinned packages below into FOLDER (default .env/docs-import) with pip, one environment for all; imports each in a process
of its own (imported_names.py) and compares: names that are missing, names that do not exist (phantoms), signatures whose parameters
(name, kind, whether there is a default) differ. Keywords that are spelled out where run time shows `**kwargs` count as the same. `--misses N` lists the first N of each; `--verify` asks the command to hold its source against run time. INHOUSE names the command.
"""

import argparse
import ast
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Import name -> pinned distributions.
PACKAGES = {
    "numpy": ["numpy==2.5.5"],
    "cv2": ["opencv-python-headless==5.0.0.93"],
    "transformers": ["transformers==5.24.0"],
    "fastapi": ["fastapi==0.165.0"],
    "pydantic": ["pydantic==2.14.4"],
    "networkx": ["networkx==3.7"],
    "skimage": ["scikit-image==0.26.0"],
    "sqlalchemy": ["sqlalchemy==2.1.9"],
    "django": ["django==6.1.3"],
    "polars": ["polars==2.1.0"],
    "textual": ["textual==8.2.8"],
    "jax": ["jax==0.12.0.1"],
    "sklearn": ["scikit-learn==1.9.1"],
    "trio": ["trio==0.35.0"],
    "rich": ["rich==15.0.0"],
}
# Packages of which only the names of the package itself are compared: importing all of their modules takes minutes or more libraries.
TOP_ONLY = {"transformers"}


def install(folder):
    python = folder / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        pins = [pin for pins in PACKAGES.values() for pin in pins]
        subprocess.run([python, "-m", "pip", "install", "-q", *pins], check=True)
    sdists = folder / "sdist"
    if not sdists.exists():
        pin = PACKAGES["sqlalchemy"]
        command = [python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", *pin, "-d", sdists]
        subprocess.run(command, check=True)
    return python, next(sdists.glob("*.tar.gz"))


def truth(python, package, folder):
    kept = folder / f"{package}.truth.jsonl"
    if not kept.exists():
        script = Path(__file__).with_name("imported_names.py")
        flags = ["--top"] if package in TOP_ONLY else []
        done = subprocess.run(
            [python, script, package, *flags], capture_output=True, cwd=folder, timeout=1200, env={**os.environ, "DJANGO_SETTINGS_MODULE": ""}
        )
        if not done.stdout:
            raise SystemExit(f"{package} cannot be imported: {done.stderr.decode()[-500:]}")
        kept.write_bytes(done.stdout)
    rows = [json.loads(row) for row in kept.read_text().splitlines()]
    return {row["module"]: row["names"] for row in rows}, {row["module"]: set(row["dir"]) for row in rows}


def read(inhouse, source, site, verified_by=None):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "apis.jsonl.gz")
        how = ["--verify", "--env", verified_by] if verified_by else []
        done = subprocess.run([inhouse, "docs", source, "--site", site, "--out", out, *how], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{source}: {done.stderr[-500:]}")
        with gzip.open(out, "rt") as rows:
            return expanded([json.loads(row) for row in rows])


def expanded(rows):
    """The rows with the names that they leave out because the `bases` of classes lead to them (`inherited_by`)."""
    classes = {}
    for row in rows:
        if row.get("kind") == "class":
            classes.setdefault(row["qualified_name"], row)
    followed = {row["name"] for row in rows if row.get("inherited_by")}
    bound = {name: {} for name in followed}
    for field in (lambda row: [row.get("qualified_name", "")], lambda row: row.get("aliases", [])):
        for row in rows:
            for full in field(row):
                owner, _, name = full.rpartition(".")
                if name in followed and owner in classes:
                    bound[name].setdefault(owner, row)
    for name, known in bound.items():
        explicit, looked = dict(known), set(known)

        def find(owner):
            if owner not in looked:
                looked.add(owner)
                brought = (find(base) for base in classes[owner].get("bases", []) if base in classes)
                row = next((row for row in brought if row is not None), None)
                if row is not None and row.get("inherited_by"):
                    known[owner] = row
            return known.get(owner)

        for owner in classes:
            row = find(owner)
            if row is not None and owner not in explicit:
                row.setdefault("aliases", []).append(f"{owner}.{name}")
    return rows


def parsed(signature):
    """The parameters of a written signature as imported_names.py lists them; None where there are none to compare."""
    if not signature:
        return None
    body = signature.replace("= ...", "= None").replace("=...", "=None").replace("=<", "=None or <")
    try:
        made = ast.parse(f"def f{body}: pass").body[0].args
    except SyntaxError:
        return None
    rows = []
    positional = made.posonlyargs + made.args
    without = len(positional) - len(made.defaults)
    for at, one in enumerate(positional):
        rows.append([one.arg, 0 if at < len(made.posonlyargs) else 1, at >= without])
    if made.vararg:
        rows.append([made.vararg.arg, 2, False])
    for one, default in zip(made.kwonlyargs, made.kw_defaults):
        rows.append([one.arg, 3, default is not None])
    if made.kwarg:
        rows.append([made.kwarg.arg, 4, False])
    return rows


def as_called(rows):
    """What a caller can tell apart: the order of keywords, and the names of what is never given by name, are nothing to him."""
    named = [["" if kind in (0, 2, 4) else name, kind, default] for name, kind, default in rows]
    return [row for row in named if row[1] != 3] + sorted(row for row in named if row[1] == 3)


def same_call(found, expected):
    """Whether both take the same calls: keywords that the reader names (of `**kwargs: Unpack[Options]`, of a model whose fields run time has not
    put together yet) are among those that `**kwargs` takes at run time."""
    found, expected = as_called(found), as_called(expected)
    if found == expected:
        return True
    rest = [row for row in found if row[1] != 3 or row in expected]
    if len(rest) == len(found) or not any(row[1] == 4 for row in expected):
        return False
    return [row for row in rest if row[1] != 4] == [row for row in expected if row[1] != 4]


class Tally:
    def __init__(self):
        self.names = self.found = self.signatures = self.same = self.phantoms = self.listed = 0
        self.missing, self.differing, self.unreal = [], [], []

    def add(self, name, thing, api):
        self.names += 1
        if api is None:
            self.missing.append(name)
            return
        self.found += 1
        expected = thing.get("signature")
        if expected is None:
            return
        self.signatures += 1
        found = parsed(api.get("signature", ""))
        if found is not None and same_call(found, expected):
            self.same += 1
        else:
            self.differing.append((name, api.get("signature", ""), expected))

    def row(self, package):
        def share(part, whole):
            return f"{100 * part / whole:.1f} % ({part}/{whole})" if whole else "-"

        return f"| {package} | {share(self.found, self.names)} | {share(self.same, self.signatures)} | {share(self.phantoms, self.listed)} |"


def compare(apis, expected, shown):
    by_name = {}
    for api in apis:
        by_name.setdefault(api.get("qualified_name", api["name"]), api)
    for api in apis:
        for alias in api.get("aliases", []):
            # A function may be called like the module that it is imported from: as an attribute the name is the function.
            if by_name.setdefault(alias, api).get("kind") == "module":
                by_name[alias] = api
    names, members = Tally(), Tally()
    for module, things in expected.items():
        for name, thing in things.items():
            full = f"{module}.{name}"
            api = by_name.get(full)
            names.add(full, thing, api)
            for member, what in thing.get("members", {}).items():
                at = by_name.get(f"{full}.{member}") or api and by_name.get(f"{api['qualified_name']}.{member}")
                members.add(f"{full}.{member}", what, at)
    for api in apis:
        full, module = api.get("qualified_name", ""), api.get("module", "")
        if module not in expected or full.count(".") != module.count(".") + 1 or api.get("kind") == "module":
            continue
        names.listed += 1
        if api["name"] not in shown[module]:
            names.phantoms += 1
            names.unreal.append(full)
    return names, members


def main():
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("folder", nargs="?", default=ROOT / ".env/docs-import", type=Path)
    ask.add_argument("packages", nargs="*")
    ask.add_argument("--misses", type=int, default=0)
    ask.add_argument("--verify", action="store_true")
    given = ask.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    inhouse = os.environ.get("INHOUSE", ROOT / "target/release/inhouse")
    python, sdist = install(given.folder)
    site = next((given.folder / "venv/lib").glob("python3*/site-packages"))
    print("| package | names | signatures | phantoms |\n|---|---|---|---|")
    for package in given.packages or PACKAGES:
        expected, shown = truth(python, package, given.folder)
        sources = [(package, package if given.verify else site / package)]
        if package == "sqlalchemy" and not given.verify:
            sources.append(("sqlalchemy (sdist)", sdist))
        for label, source in sources:
            names, members = compare(read(inhouse, source, site, python if given.verify else None), expected, shown)
            print(names.row(label))
            print(members.row(f"{label}: members"))
            for tally in (names, members):
                for what in ("missing", "differing", "unreal"):
                    for miss in getattr(tally, what)[: given.misses]:
                        print(f"    {what}: {miss}")


main()
