"""Writes the wheel of evald: the Python package with the daemon's executable and library in it.

A PEP 517 backend of its own (a wheel is a zip file with a list of what is in it), so that building needs no network:

    python3 build_wheel.py FOLDER      prints the path of the wheel that it wrote

``EVALD_BUILD`` names the folder with ``evald`` and ``libevald.so``; default: ``target/release`` of the checkout.
The same input gives the same bytes.
"""

import base64
import hashlib
import os
import platform
import re
import subprocess
import sys
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SUMMARY = "Runs generated Python in a sandbox and computes pass@k, as human-eval and code_eval do"
PYTHON = ">=3.9"
SCRIPTS = {
    "evald": "evald.command:main",
    "evaluate_functional_correctness": "evald.human_eval:main",
}


def _version():
    with open(os.path.join(ROOT, "Cargo.toml"), encoding="utf-8") as file:
        found = re.search(r'^\[workspace\.package\][^[]*?^version = "([^"]+)"', file.read(), re.MULTILINE | re.DOTALL)
    if not found:
        sys.exit(f"error: no version of the workspace in {ROOT}/Cargo.toml")
    return found[1]


def _binaries():
    """The daemon's files by their place in the wheel: bytes."""
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
    folder = os.environ.get("EVALD_BUILD") or os.path.join(target, "release")
    files = {}
    for name in ("evald", "libevald.so"):
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            sys.exit(f"error: no {name} in {folder}; run make build first, or say where it is: EVALD_BUILD=FOLDER")
        with open(path, "rb") as file:
            files[f"evald/bin/{name}"] = file.read()
    # The two must be of one build: the daemon itself checks that, and says so, when it warms an interpreter.
    check = [os.path.join(folder, "evald"), "serve", "--stdio", "--env", f"python={sys.executable}"]
    ended = subprocess.run(check, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if "no libevald.so of this build" in ended.stderr:
        sys.exit(f"error: evald and libevald.so in {folder} are of two builds; run make build again")
    return files


def _tag(binaries):
    """The wheel's tag: any Python 3, and this processor with the glibc that the executables need (PEP 600)."""
    minors = [int(minor) for data in binaries.values() for minor in re.findall(rb"\0GLIBC_2\.(\d+)(?=[.\0])", data)]
    if not minors:
        sys.exit("error: the executables name no version of glibc; a wheel for other C libraries cannot be made")
    return f"py3-none-manylinux_2_{max(minors)}_{platform.machine()}"


def _metadata(version):
    with open(os.path.join(HERE, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    lines = [
        "Metadata-Version: 2.1",
        "Name: evald",
        f"Version: {version}",
        f"Summary: {SUMMARY}",
        f"Requires-Python: {PYTHON}",
        "License-File: LICENSE",
        "Description-Content-Type: text/markdown",
    ]
    return "\n".join(lines) + "\n\n" + readme


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Writes the wheel into ``wheel_directory`` and returns its name (PEP 517)."""
    version, binaries = _version(), _binaries()
    tag, info = _tag(binaries), f"evald-{version}.dist-info"
    files = {}
    package = os.path.join(HERE, "evald")
    for name in sorted(os.listdir(package)):
        if name.endswith(".py") or name == "py.typed":
            with open(os.path.join(package, name), "rb") as file:
                files[f"evald/{name}"] = file.read()
    files.update(binaries)
    with open(os.path.join(ROOT, "LICENSE"), "rb") as file:
        files[f"{info}/LICENSE"] = file.read()
    scripts = "".join(f"{name} = {target}\n" for name, target in sorted(SCRIPTS.items()))
    files[f"{info}/METADATA"] = _metadata(version).encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: evald\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()

    os.makedirs(wheel_directory, exist_ok=True)
    wheel = f"evald-{version}-{tag}.whl"
    path = os.path.join(wheel_directory, wheel)
    with zipfile.ZipFile(path + ".new", "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            # Installers keep the mode of what may be executed.
            entry.external_attr = (0o100755 if name.startswith("evald/bin/") else 0o100644) << 16
            archive.writestr(entry, data)
    os.replace(path + ".new", path)
    return wheel


def _digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: build_wheel.py FOLDER")
    print(os.path.join(sys.argv[1], build_wheel(sys.argv[1])))
