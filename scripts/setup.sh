#!/usr/bin/env bash
# Installs what building and testing need. Everything that is already there is left alone, so a second run is quick.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

packages=(build-essential cmake clang libclang-dev pkg-config python3 python3-venv)

need_packages() {
    # What the packages are for: a C and C++ compiler, cmake and libclang build llama.cpp; Python runs evaluated code.
    command -v cc >/dev/null && command -v c++ >/dev/null && command -v cmake >/dev/null && command -v clang >/dev/null &&
        command -v pkg-config >/dev/null &&
        find_python >/dev/null && "$(find_python)" -c 'import venv, ensurepip' 2>/dev/null && return 1
    return 0
}

if need_packages; then
    id_like=$( (. /etc/os-release 2>/dev/null && echo "${ID:-} ${ID_LIKE:-}") || true)
    case " $id_like " in
    *" debian "* | *" ubuntu "*) ;;
    *) die "this system ($(uname -s) ${id_like:-unknown}) is not Debian or Ubuntu, and not all tools are here" \
        "install by hand: a C and C++ compiler, cmake, clang with libclang, python3 with venv; then run this again" ;;
    esac
    if [ "$(id -u)" = 0 ]; then
        as_root=()
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        die "system packages are missing and there is no root here" "ask an administrator to run:" \
            "apt-get install ${packages[*]}"
    fi
    say "installing system packages: ${packages[*]}"
    log=$(mktemp)
    if ! { "${as_root[@]}" apt-get update -q && DEBIAN_FRONTEND=noninteractive "${as_root[@]}" \
        apt-get install -y -q --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        die "apt-get failed (no network?); the whole log is in $log"
    fi
    rm -f "$log"
fi

if ! find_rust; then
    if command -v rustup >/dev/null; then
        die "the Rust toolchain of rust-toolchain.toml is not installed" "run: rustup toolchain install"
    fi
    die "no Rust here" "install rustup (Debian 13 and Ubuntu 24.04: apt-get install rustup) and run this again;" \
        "it picks the toolchain of rust-toolchain.toml by itself"
fi

# The environment in which generated code runs: the private library and nothing else.
if [ ! -x .env/python/bin/python ]; then
    say "making the Python environment for evaluated code in .env/python"
    rm -rf .env/python
    "$(find_python)" -m venv --without-pip .env/python || die "python3 -m venv failed"
fi
site=$(.env/python/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "${site:?}/gaugewren"
cp -r tests/private-library/gaugewren "$site/"
.env/python/bin/python -m compileall -q "$site"

# The default code model; the small one serves without.
scripts/default-model.sh

# What evald's tier T4 runs; all else works without.
scripts/wasi.sh || note "skipped: evald's tier T4 is not tested without CPython for WASI"
