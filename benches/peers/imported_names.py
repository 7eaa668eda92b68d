"""Prints, as JSON lines, what an import of a package says: imported_names.py PACKAGE [--top].

One line a module: {"module", "names": {name: thing}, "dir": [name]}, where a thing is {"kind", "signature", "members"}; a signature is a list of
[name, kind of inspect.Parameter, has a default]. Run by docs_import.py in the package's own environment.

Public names of a module are those of its `__all__`; without one, those that `dir` shows, but for modules, names that begin with an
underscore, and what another package (or Python) defines. Of a module that is no package only what it defines itself counts then: its
imports are for its own use.
"""

import ast
import enum
import functools
import importlib
import inspect
import io
import json
import os
import pkgutil
import sys
import types
import warnings

SKIPPED = {"tests", "test", "conftest", "setup", "__main__", "_vendor", "vendor", "migrations"}


@functools.cache
def assigned_once(module):
    return assigned(module)


def modules(package, top_only):
    found = [package]
    top = importlib.import_module(package)
    if not top_only and hasattr(top, "__path__"):
        waiting = [(package, top)]
        while waiting:
            name, module = waiting.pop()
            for child in pkgutil.iter_modules(module.__path__):
                last = child.name
                if last.startswith("_") or last in SKIPPED or last.startswith("test_") or last.endswith("_test"):
                    continue
                full = f"{name}.{last}"
                try:
                    loaded = importlib.import_module(full)
                except BaseException:
                    continue
                found.append(full)
                if hasattr(loaded, "__path__"):
                    waiting.append((full, loaded))
    return found


def parameters(value, drop_first):
    try:
        found = list(inspect.signature(value).parameters.values())
    except (ValueError, TypeError, NameError, AttributeError):
        return None
    except Exception:
        return None
    if drop_first and found and found[0].kind in (0, 1):
        found = found[1:]
    rows = [[p.name, int(p.kind), p.default is not p.empty] for p in found]
    # `(*args, **kwargs)` says nothing that could be compared.
    return None if [row[1] for row in rows] == [2, 4] else rows


def assigned(module):
    """The names that a module's own source binds outside imports; None where it has no source."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return None
    found = set()
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
        else:
            waiting.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.stmt, ast.ExceptHandler)))
    return found


def belongs(module, name, value, package):
    if name == "TYPE_CHECKING" or type(value).__name__ in ("TypeVar", "ParamSpec", "TypeVarTuple", "Logger", "_Feature"):
        return False
    home = getattr(value, "__module__", None)
    home = home if type(home) is str and home else None
    if home and home.split(".")[0].lstrip("_") != package:
        return False
    if hasattr(module, "__path__"):
        return True
    if isinstance(value, type) or inspect.isroutine(value):
        return home is None or home == module.__name__
    own = assigned_once(module)
    return own is None or name in own


def public_names(module, package):
    listed = getattr(module, "__all__", None)
    if listed is not None:
        # An empty list is what C extensions with stubs have; it says nothing.
        listed = [name if type(name) is str else getattr(name, "__name__", "") for name in listed] or None
    for name in sorted(set(listed if listed is not None else dir(module))):
        if name.startswith("_") or not name.isidentifier():
            continue
        try:
            value = getattr(module, name)
        except BaseException:
            continue
        if isinstance(value, types.ModuleType):
            continue
        if listed is None and not belongs(module, name, value, package):
            continue
        yield name, value


def own_members(value):
    found = {}
    for name, raw in list(vars(value).items()):
        if name.startswith("_"):
            continue
        if isinstance(raw, (staticmethod, classmethod)):
            try:
                found[name] = {"kind": "method", "signature": parameters(getattr(value, name), False)}
            except Exception:
                continue
        elif inspect.isfunction(raw):
            found[name] = {"kind": "method", "signature": parameters(raw, True)}
        else:
            found[name] = {"kind": "other"}
    return found


def thing(value, package, seen):
    if isinstance(value, type):
        made = {"kind": "class"}
        # A protocol is not called; the signature of an enumeration or exception is Python's own.
        plain = not getattr(value, "_is_protocol", False) and not issubclass(value, (enum.Enum, BaseException, tuple)) or "__init__" in vars(value)
        if plain and not issubclass(value, enum.Enum):
            made["signature"] = parameters(value, False)
        home = getattr(value, "__module__", "")
        if type(home) is str and home.split(".")[0] == package and id(value) not in seen:
            seen.add(id(value))
            made["members"] = own_members(value)
        return made
    if inspect.isroutine(value) or callable(value):
        return {"kind": "function", "signature": parameters(value, False)}
    return {"kind": "constant"}


def main():
    package, top_only = sys.argv[1], "--top" in sys.argv[2:]
    warnings.simplefilter("ignore")
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = io.StringIO()
    if package == "django":
        from django.conf import settings

        settings.configure()
        import django

        django.setup()
    seen = set()
    for name in modules(package, top_only):
        module = importlib.import_module(name)
        names = {}
        for child, value in public_names(module, package):
            try:
                names[child] = thing(value, package, seen)
            except Exception:
                continue
        shown = sorted({*dir(module), *(n for n in getattr(module, "__all__", None) or () if type(n) is str)})
        channel.write(json.dumps({"module": name, "names": names, "dir": shown}) + "\n")
    channel.flush()
    os._exit(0)


main()
