#!/usr/bin/env bash
# Writes the Python package evald, with the daemon in it, as a wheel into target/wheels. Builds nothing: make build does.
#   EVALD_BUILD     the folder with evald and libevald.so; default: target/release
#   WHEELS          where the wheel goes; default: target/wheels
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
python=$(find_python) || die "no Python here" "run: make setup"
folder=${WHEELS:-${CARGO_TARGET_DIR:-target}/wheels}
wheel=$(PYTHONDONTWRITEBYTECODE=1 "$python" evald/python/build_wheel.py "$folder")
say "$wheel"
note "pip install $wheel"
