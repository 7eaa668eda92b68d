"""Writes sources.toml from a folder of wheels: names, versions, hashes and licences, as the wheels state them.

    pip download --no-deps --only-binary=:all: -d WHEELS NAME...
    python3 pin_sources.py WHEELS > sources.toml

Nothing of a wheel is run. A wheel whose licence is not in the list of permissive ones is left out with a line on stderr.
"""

import email.parser
import hashlib
import re
import sys
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


def main():
    print("# Packages that the retriever's training pairs are made from. Written by pin_sources.py; wheels only, never run.")
    for wheel in sorted(Path(sys.argv[1]).glob("*.whl"), key=lambda path: path.name.lower()):
        with zipfile.ZipFile(wheel) as archive:
            name = next(e for e in archive.namelist() if e.endswith(".dist-info/METADATA") and e.count("/") == 1)
            metadata = email.parser.Parser().parsestr(archive.read(name).decode("utf-8", "ignore"))
        name, version, stated = metadata["Name"], metadata["Version"], licence(metadata)
        plain = re.sub(r"[-_.]+", "-", name).lower()
        refused = REFUSED.search(stated) and not re.search("Lesser|LGPL", stated)
        if FORBIDDEN.search(plain) or not PERMISSIVE.search(stated) or refused:
            print(f"left out: {plain} {version} ({stated or 'no licence stated'})", file=sys.stderr)
            continue
        print("\n[[package]]")
        fields = {"name": plain, "version": version, "file": wheel.name, "licence": stated,
                  "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
        for key, value in fields.items():
            print(f'{key} = "{value}"')
        if plain in PAPER:
            print("paper = true")
        if plain in EXCLUDE:
            print("exclude = [" + ", ".join(f'"{path}"' for path in EXCLUDE[plain]) + "]")


main()
