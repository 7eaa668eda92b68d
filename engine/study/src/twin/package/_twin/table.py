"""The rename table, read once from `table.json` beside this file."""
import json
import os

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "table.json"), encoding="utf-8") as _file:
    _table = json.load(_file)

#: Import name of the public library, and the twin's own.
LIBRARY = _table["library"]
NAME = _table["name"]
#: Whether private words also stand for the public ones where the library does not own the object (`length` for `len`).
EVERYWHERE = _table["everywhere"]
#: Top-level modules whose classes and functions are the library's own.
ROOTS = frozenset([LIBRARY] + _table["modules"])
TO_PRIVATE = _table["public_to_private"]
TO_PUBLIC = {private: public for public, private in TO_PRIVATE.items()}
#: Every name that needs a look.
WORDS = frozenset(TO_PRIVATE) | frozenset(TO_PUBLIC)


def is_owned_module(name):
    """Whether a module of that dotted name is the library's."""
    return isinstance(name, str) and name.split(".", 1)[0] in ROOTS


def public_path(path):
    """A dotted module path of the twin in public names; None where a part is a public name that has a private one."""
    parts = path.split(".")
    if any(part in TO_PRIVATE and TO_PRIVATE[part] != part for part in parts):
        return None
    return ".".join(TO_PUBLIC.get(part, part) for part in parts)


def private_path(path):
    """A dotted module path of the library in private words."""
    return ".".join(TO_PRIVATE.get(part, part) for part in path.split("."))


def public_text(text):
    """A text with every private word replaced, inside longer words too: how published problem sets were renamed."""
    for public, private in TO_PRIVATE.items():
        text = text.replace(private, public)
    return text
