"""What the model learns from: the standard library and a pinned list of wheels, read with `ast`, never imported.

Gives API records (name, signature, first sentence) and blocks of plain Python.
"""

import ast
import email.parser
import hashlib
import re
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# Not permitted: the libraries that the benchmarks ask for, and what would bring them along.
FORBIDDEN = re.compile(r"^(pandas|numpy|torch|torchdata|monkey)$", re.IGNORECASE)
# Standard-library folders that are tests, data tables or other people's wheels.
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "encodings", "ensurepip", "site-packages", "dist-packages",
           "__pycache__", "pydoc_data", "turtledemo", "_vendor", "lexers", "styles", "locale-data", "unicode"}
MAX_FILE_BYTES = 400_000


@dataclass(frozen=True)
class Api:
    """One documented function, method or class of a public library."""

    library: str
    name: str
    kind: str  # "function", "method" or "class"
    signature: str  # between the parentheses, without self or cls
    required: tuple  # parameters a caller must give, in order
    optional: tuple  # (name, default as source) pairs
    sentence: str


def packages():
    """Names and versions in packages.txt."""
    lines = (line.split("#")[0].strip() for line in (HERE / "packages.txt").read_text().splitlines())
    pairs = [tuple(line.split("==")) for line in lines if line]
    for name, _ in pairs:
        if FORBIDDEN.match(name):
            raise ValueError(f"packages.txt names {name}, whose APIs the benchmarks ask for")
    return pairs


def download(folder):
    """Fetches the pinned wheels that `folder` lacks, with pip and without what they depend on."""
    folder.mkdir(parents=True, exist_ok=True)
    have = {(w.name.split("-")[0].replace("_", "-").lower(), w.name.split("-")[1]) for w in folder.glob("*.whl")}
    lacking = [f"{name}=={version}" for name, version in packages() if (name.lower(), version) not in have]
    if lacking:
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder), *lacking], check=True)


def licence(metadata):
    """The licence as a wheel's METADATA states it, in one short line."""
    classified = [c.split("::")[-1].strip() for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    stated = metadata.get("License-Expression") or "; ".join(classified) or (metadata.get("License") or "").split("\n")[0]
    return stated.strip() or "see the wheel"


def read(folder):
    """Every source file: yields (library, version, licence, path, text), sorted, so that runs agree."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    version = ".".join(map(str, sys.version_info[:3]))
    for path in sorted(standard.rglob("*.py")):
        inside = path.relative_to(standard)
        if SKIPPED.isdisjoint(inside.parts) and path.stat().st_size < MAX_FILE_BYTES:
            text = path.read_bytes().decode("utf-8", errors="ignore")
            yield "python", version, "PSF-2.0", str(inside), text
    for wheel in sorted(folder.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        with zipfile.ZipFile(wheel) as archive:
            entries = archive.namelist()
            metadata_name = next(e for e in entries if e.endswith(".dist-info/METADATA"))
            metadata = email.parser.Parser().parsestr(archive.read(metadata_name).decode("utf-8", errors="ignore"))
            for entry in sorted(e for e in entries if e.endswith(".py")):
                if SKIPPED.isdisjoint(Path(entry).parts) and archive.getinfo(entry).file_size < MAX_FILE_BYTES:
                    yield name, version, licence(metadata), entry, archive.read(entry).decode("utf-8", errors="ignore")


def first_sentence(doc):
    """The first sentence on one line, or "" where it does not read like one."""
    paragraph = re.split(r"\n\s*\n", doc.strip())[0]
    text = " ".join(paragraph.split())
    text = re.sub(r":\w+:`~?([^`<]*?)(\s*<[^`]*>)?`", r"\1", text)  # :func:`name` -> name
    text = text.replace("``", "").replace("`", "").replace("*", "")
    end = re.search(r"(?<!e\.g)(?<!i\.e)(?<!etc)\.(\s|$)", text)
    text = text[: end.start()] if end else text
    words = text.split()
    good = 3 <= len(words) <= 22 and text.isascii() and text[0].isalpha() and not re.search(r">>>|::|[{}\\|=]", text)
    return text + "." if good else ""


def _signature(node, method):
    """(text, required, optional) of a call, or None where it is too long to be worth a line."""
    arguments = node.args
    if any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list):
        method = False
    positional = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    pairs = list(zip(positional, defaults))
    if method:
        pairs = pairs[1:]
    pieces, required, optional = [], [], []

    def add(argument, default):
        note = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
        if default is None:
            pieces.append(argument.arg + note)
            required.append(argument.arg)
        else:
            value = ast.unparse(default)
            pieces.append(f"{argument.arg}{note} = {value}" if note else f"{argument.arg}={value}")
            optional.append((argument.arg, value))

    for argument, default in pairs:
        add(argument, default)
    if arguments.vararg:
        pieces.append("*" + arguments.vararg.arg)
    elif arguments.kwonlyargs:
        pieces.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults):
        if default is None:
            return None  # a required keyword: rare, and no call below would give it
        add(argument, default)
    if arguments.kwarg:
        pieces.append("**" + arguments.kwarg.arg)
    text = ", ".join(pieces)
    if len(text) > 90 or len(required) > 4 or not text.isascii() or "\n" in text:
        return None
    return text, tuple(required), tuple(optional)


def apis_of(library, text):
    """The documented public APIs of one file; a file that does not parse has none."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    todo = [(tree, "")]
    while todo:
        owner, inside = todo.pop()
        for node in owner.body:
            name = getattr(node, "name", "_")
            if name.startswith("_") or len(name) < 3:
                continue
            sentence = first_sentence(ast.get_docstring(node) or "") if not isinstance(node, ast.ExceptHandler) else ""
            if isinstance(node, ast.ClassDef):
                todo.append((node, name))
                starts = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
                found = _signature(starts[0], True) if starts else None
                kind = "class"
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if any(getattr(d, "id", getattr(d, "attr", "")) in ("property", "setter") for d in node.decorator_list):
                    continue
                found = _signature(node, bool(inside))
                kind = "method" if inside else "function"
            else:
                continue
            if sentence and found:
                yield Api(library, name, kind, *found, sentence)


def blocks_of(text, rng, lines=(4, 18)):
    """Plain Python: top-level statements and class bodies cut into pieces of some lines, dedented by whole blocks."""
    rows = [row.rstrip() for row in text.split("\n")]
    starts = [i for i, row in enumerate(rows) if re.match(r"(def|class|@|import|from|if|for|with|try|[a-z_]\w* = )", row)]
    position = 0
    for start in starts:
        if start < position:
            continue
        length = rng.randint(*lines)
        piece = "\n".join(rows[start : start + length]).strip("\n")
        position = start + length
        if piece.isascii() and "\t" not in piece and max(map(len, piece.split("\n"))) <= 110 and len(piece) > 60:
            yield piece + "\n"


def reserved(text, one_in=20):
    """Whether a name or a sentence is kept away from training, so that measuring uses what was never seen."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % one_in == 0
