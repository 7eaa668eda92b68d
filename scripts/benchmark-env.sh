#!/usr/bin/env bash
# Python environments of the published benchmarks, for the tests and measurements that use them:
#   scripts/benchmark-env.sh pandas      .env/pandas: Python 3.10, numpy 1.21.4, pandas 1.3.5 (123 MB)
#   scripts/benchmark-env.sh torchdata   .env/torchdata: the distribution's torch (690 MB, needs root) and torchdata 0.3.0
#   scripts/benchmark-env.sh wheels      .env/wheels: the wheels that the documentation reader is held against (12 MB)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

case "${1:-}" in
pandas)
    [ -x .env/pandas/bin/python ] && .env/pandas/bin/python -c 'import pandas' 2>/dev/null && exit 0
    python=""
    for candidate in python3.10 "$(realpath "$(dirname "$(command -v python3.10 || echo /)")/..")"/versions/3.10.*/bin/python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] || die "the pandas environment needs Python 3.10, which is not here"
    say "making .env/pandas: numpy 1.21.4, pandas 1.3.5"
    rm -rf .env/pandas
    "$python" -m venv .env/pandas
    .env/pandas/bin/python -m pip install -q --disable-pip-version-check 'numpy==1.21.4' 'pandas==1.3.5'
    ;;
torchdata)
    [ -x .env/torchdata/bin/python ] && .env/torchdata/bin/python -c 'import torchdata.datapipes.iter' 2>/dev/null && exit 0
    /usr/bin/python3 -c 'import torch' 2>/dev/null || {
        [ "$(id -u)" = 0 ] || die "needs root to install python3-torch"
        say "installing python3-torch"
        apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends python3-torch python3-venv >/dev/null
    }
    say "making .env/torchdata: torchdata 0.3.0"
    rm -rf .env/torchdata
    /usr/bin/python3 -m venv --system-site-packages .env/torchdata
    .env/torchdata/bin/python -m pip install -q --disable-pip-version-check --no-deps 'torchdata==0.3.0' portalocker
    # torch 1.13 renamed a function that torchdata 0.3.0 imports.
    site=$(.env/torchdata/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    grep -rl check_lambda_fn --include='*.py' "$site/torchdata" | xargs sed -i 's/\bcheck_lambda_fn\b/_check_unpickable_fn/g'
    .env/torchdata/bin/python -c 'import torchdata.datapipes.iter'
    ;;
wheels)
    [ -f .env/wheels/complete ] && exit 0
    say "fetching the wheels of torchdata 0.3.0 and pandas 1.5.3 into .env/wheels (they are read, not installed)"
    mkdir -p .env/wheels
    "$(find_python)" -m venv .env/fetch
    .env/fetch/bin/python -m pip download -q --disable-pip-version-check --no-deps -d .env/wheels --only-binary=:all: \
        --python-version 3.11 --implementation cp --abi cp311 --abi none --platform manylinux_2_17_x86_64 --platform any \
        'torchdata==0.3.0' 'pandas==1.5.3'
    rm -rf .env/fetch
    touch .env/wheels/complete
    ;;
*) die "usage: scripts/benchmark-env.sh pandas|torchdata|wheels" ;;
esac
