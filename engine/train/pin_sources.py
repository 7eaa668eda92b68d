"""Writes sources.toml from a folder of wheels and one of sdists: names, versions, hashes and licences, as the packages state them.

    pip download --no-deps --only-binary=:all: -d WHEELS NAME...
    unearth --no-binary --download SDISTS NAME==VERSION             # each; pip would run build scripts
    python3 pin_sources.py WHEELS [SDISTS] > sources.toml

Nothing of a package is run. One whose licence is not in the list of permissive ones is left out with a line on stderr, and so is an
sdist without guides or without a wheel of its name.
"""

import email.parser
import hashlib
import re
import sys
import tarfile
import zipfile
from pathlib import Path

# The paper's 31 libraries (arXiv 2210.17236, section 4.1) by their names at the package index. Not taken: fairseq and jieba have no
# wheel, ansible is under the GPL, TensorFlow and MXNet's wheels are mostly binary (keras stands for the first).
PAPER = set("""pandas numpy scikit-learn torch keras django selenium matplotlib flask scipy seaborn nltk beautifulsoup4 pygame
pillow gensim spacy transformers sqlalchemy scrapy allennlp datasets tokenizers mxnet imageio pytest metpy requests""".split())
# What the benchmarks ask for in other words: torch has the pipes that TorchData shows as its own.
EXCLUDE = {
    "pandas": ["pandas/tests/"],
    "torch": ["torch/utils/data/datapipes/", "torch/_inductor/", "torch/_dynamo/", "torch/testing/", "torch/_refs/", "torch/onnx/",
              "torch/_export/", "torch/_C/", "torch/fx/"],
    "transformers": ["transformers/models/"],
    "diffusers": ["diffusers/pipelines/", "diffusers/models/"],
    "timm": ["timm/models/"],
}
FORBIDDEN = re.compile(r"torchdata|pandas-?eval|monkey|apicoder", re.IGNORECASE)
PERMISSIVE = re.compile(r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|HPND|NCSA|Zlib|Unlicense|LGPL|Lesser General|Biopython", re.I)
REFUSED = re.compile(r"(?<!L)(?<!Lesser )GPL|(?<!Lesser )General Public|Proprietary", re.IGNORECASE)


def licence(metadata):
    """The licence in one short line."""
    classified = [c.split("::")[-1].strip() for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    stated = metadata.get("License-Expression") or "; ".join(classified) or (metadata.get("License") or "").strip().split("\n")[0]
    return stated.strip()[:80]


# Code below prose, in the forms that guides have.
CODE = re.compile(rb">>> |\.\. (?:ipython|code-block|code)::|```\{?py|::\n\n    |\"cell_type\": \"code\"")
# With fewer pieces of code there is no guide.
MIN_PIECES = 40


def metadata_of(path):
    """What the package states of itself, and the pieces of code in its pages (of a wheel: 0)."""
    parse = email.parser.Parser().parsestr
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            name = next(e for e in archive.namelist() if e.endswith(".dist-info/METADATA") and e.count("/") == 1)
            return parse(archive.read(name).decode("utf-8", "ignore")), 0
    metadata, pieces = None, 0
    with tarfile.open(path) as archive:
        for entry in archive:
            depth = entry.name.count("/")
            if entry.isfile() and depth == 1 and entry.name.endswith("/PKG-INFO"):
                metadata = parse(archive.extractfile(entry).read().decode("utf-8", "ignore"))
            elif entry.isfile() and depth > 1 and entry.size < 2 << 20 and entry.name.endswith((".rst", ".md", ".ipynb", ".txt")):
                pieces += len(CODE.findall(archive.extractfile(entry).read()))
            elif entry.isfile() and re.search(r"/(examples|galler(y|ies)|tutorials)/.*\.py$", entry.name):
                pieces += 1
    return metadata, pieces


def rows(paths, kind, wanted=None):
    """Prints one table per package; gives the names."""
    names = set()
    for path in paths:
        metadata, pieces = metadata_of(path)
        name, version, stated = metadata["Name"], metadata["Version"], licence(metadata)
        plain = re.sub(r"[-_.]+", "-", name).lower()
        refused = REFUSED.search(stated) and not re.search("Lesser|LGPL", stated)
        if FORBIDDEN.search(plain) or not PERMISSIVE.search(stated) or refused:
            print(f"left out: {plain} {version} ({stated or 'no licence stated'})", file=sys.stderr)
            continue
        if wanted is not None and (plain not in wanted or pieces < MIN_PIECES):
            print(f"left out: the sdist of {plain} {version} ({pieces} pieces of code)", file=sys.stderr)
            continue
        names.add(plain)
        print(f"\n[[{kind}]]")
        fields = {"name": plain, "version": version, "file": path.name, "licence": stated,
                  "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for key, value in fields.items():
            print(f'{key} = "{value}"')
        if kind == "package" and plain in PAPER:
            print("paper = true")
        if kind == "package" and plain in EXCLUDE:
            print("exclude = [" + ", ".join(f'"{path}"' for path in EXCLUDE[plain]) + "]")
    return names


def main():
    print("# Packages that training data is made from. Written by pin_sources.py; wheels for code and documentation, sdists for guides, never run.")
    folders = [sorted(Path(folder).iterdir(), key=lambda path: path.name.lower()) for folder in sys.argv[1:]]
    names = rows([path for path in folders[0] if path.suffix == ".whl"], "package")
    if len(folders) > 1:
        rows([path for path in folders[1] if path.name.endswith(".tar.gz")], "guide", names)


main()
