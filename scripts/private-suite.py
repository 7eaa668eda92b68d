#!/usr/bin/env python3
"""Runs a library's own tests against its private twin, and says how many still pass.

    scripts/private-suite.py --python venv/bin/python --private DIR [--pytest DIR] TEST_PATH...

DIR is what `inhouse privatize LIBRARY --scope everywhere ...` made. TEST_PATHs lie below the installed library's folder
(`tests/series/methods`). They run twice: as they are, and in private words. For the second run each attribute, keyword and import
is put in the twin's words (whether or not the object is the library's: that is what the scope `everywhere` is for), and every
lookup goes through the twin; names that tests make up at run time are converted where they call getattr. Reported are the tests
that pass both times, of those that pass as they are.
"""
import argparse
import ast
import builtins
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

LOOKUPS = {"getattr", "hasattr", "setattr", "delattr"}
SUITE = "suite_of_twin"


class Private(ast.NodeTransformer):
    """Public names of a test in private words. Names that it binds stay its own."""

    def __init__(self, table):
        self.library, self.name = table["library"], table["name"]
        self.words = table["public_to_private"]
        self.ours, self.foreign, self.own = set(), set(), set()

    def path(self, path):
        return ".".join(self.words.get(part, part) for part in path.split("."))

    def is_ours(self, path):
        return path is not None and path.split(".")[0] == self.library

    def is_foreign(self, function):
        """Whether a call is surely not the library's: of a test's own function, a builtin, another module's."""
        if isinstance(function, ast.Name) and function.id not in self.ours:
            # A class that a test is given (`klass(data=...)`) is the library's; what it makes of other words, the twin finds out.
            return hasattr(builtins, function.id) or function.id in self.own
        while isinstance(function, ast.Attribute):
            function = function.value
        return isinstance(function, ast.Name) and function.id in self.foreign

    def visit_Import(self, node):
        for alias in node.names:
            if not self.is_ours(alias.name):
                self.foreign.add(alias.asname or alias.name.split(".")[0])
            else:
                alias.asname = alias.asname or (None if "." in alias.name else alias.name)
                alias.name = self.path(alias.name)
        return node

    def visit_ImportFrom(self, node):
        if node.level == 0 and self.is_ours(node.module):
            node.module = self.path(node.module)
            for alias in node.names:
                self.ours.add(alias.asname or alias.name)
                if alias.name in self.words:
                    alias.asname = alias.asname or alias.name
                    alias.name = self.words[alias.name]
        return node

    def visit_Module(self, node):
        made = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        self.own = {found.name for found in ast.walk(node) if isinstance(found, made)}
        self.generic_visit(node)
        return node

    def visit_Attribute(self, node):
        self.generic_visit(node)
        node.attr = self.words.get(node.attr, node.attr)
        return node

    def visit_Call(self, node):
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in LOOKUPS and len(node.args) > 1:
            made = ast.parse("__import__('{}._twin.table', None, None, ['x']).TO_PRIVATE".format(self.name), mode="eval").body
            get = ast.Attribute(made, "get", ast.Load())
            node.args[1] = ast.Call(get, [node.args[1], node.args[1]], [])
        if not self.is_foreign(node.func):
            for keyword in node.keywords:
                keyword.arg = self.words.get(keyword.arg, keyword.arg)
        return node


def files_for(package, paths):
    """The test files, and the conftest and package files around them."""
    found = set()
    for path in paths:
        whole = os.path.join(package, path)
        for root, _, files in os.walk(whole) if os.path.isdir(whole) else [(os.path.dirname(whole), (), [os.path.basename(path)])]:
            found.update(os.path.relpath(os.path.join(root, file), package) for file in files if file.endswith(".py"))
        around = os.path.dirname(path)
        while True:
            for file in ("conftest.py", "__init__.py"):
                if os.path.exists(os.path.join(package, around, file)):
                    found.add(os.path.join(around, file))
            if not around:
                break
            around = os.path.dirname(around)
    return sorted(found)


def kept_of(path, text):
    """The package's own __init__.py is the library: the suite's is empty."""
    return "" if path == "__init__.py" else text


def junit(path):
    found = {}
    for case in xml.parse(path).getroot().iter("testcase"):
        state = {child.tag for child in case}
        # Without the folder, which differs between the two.
        key = case.get("classname").split("tests.", 1)[-1] + "::" + case.get("name")
        found[key] = "failed" if state & {"failure", "error"} else "skipped" if "skipped" in state else "passed"
    return found


def run(command, folder, environment, report):
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if not os.path.exists(report):
        sys.exit("the tests do not run:\n" + done.stdout[-4000:])
    return junit(report)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--private", required=True, metavar="DIR")
    parser.add_argument("--pytest", metavar="DIR", help="folder named site-packages with pytest, where the interpreter has none")
    parser.add_argument("--keep", metavar="DIR", help="where the two suites are written")
    parser.add_argument("test_path", nargs="+")
    arguments = parser.parse_args()
    arguments.python = os.path.abspath(arguments.python) if os.sep in arguments.python else arguments.python
    with open(os.path.join(arguments.private, "rename.json"), encoding="utf-8") as file:
        table = json.load(file)
    library, name = table["library"], table["name"]
    if not table.get("everywhere"):
        sys.exit("{}: made without --scope everywhere, which this conversion needs".format(arguments.private))
    where = "import {0}; print({0}.__path__[0])".format(library)
    package = subprocess.run([arguments.python, "-c", where], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    folder = os.path.abspath(arguments.keep or tempfile.mkdtemp(prefix="private-suite-"))
    suite = os.path.join(folder, SUITE)
    shutil.rmtree(suite, ignore_errors=True)
    for path in files_for(package, arguments.test_path):
        target = os.path.join(suite, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(os.path.join(package, path), encoding="utf-8") as file:
            tree = Private(table).visit(ast.parse(file.read() if os.path.dirname(path) else kept_of(path, file.read())))
        with open(target, "w", encoding="utf-8") as file:
            file.write(ast.unparse(ast.fix_missing_locations(tree)))
    results = []
    for kind, start, root in (("public", ["-m", "pytest"], package), ("private", ["-m", name, "-m", "pytest"], suite)):
        report = os.path.join(folder, kind + ".xml")
        if os.path.exists(report):
            os.remove(report)
        options = ["-qq", "--assert=plain", "-p", "no:cacheprovider", "-W", "ignore", "--junitxml", report]
        paths = [os.path.join(root, path) for path in arguments.test_path]
        search = [folder, os.path.abspath(arguments.private)] + [arguments.pytest] * bool(arguments.pytest)
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(search), PYTHONDONTWRITEBYTECODE="1")
        results.append(run([arguments.python] + start + options + ["--rootdir", root] + paths, folder, environment, report))
        counts = {state: sum(v == state for v in results[-1].values()) for state in ("passed", "failed", "skipped")}
        print("{}: {}".format(kind, counts), flush=True)
    public, private = results
    solved = [key for key, state in public.items() if state == "passed"]
    lost = [key for key in solved if private.get(key) != "passed"]
    for key in lost[:200]:
        print("lost: {} ({})".format(key, private.get(key, "not collected")))
    share = 100.0 * (len(solved) - len(lost)) / max(1, len(solved))
    print("{} of {} tests that pass as they are pass through the twin ({:.2f} %)".format(len(solved) - len(lost), len(solved), share))
    print("suites and reports: " + folder)


if __name__ == "__main__":
    main()
