# Sourced by every script here: messages, and the tools wherever they are.
# shellcheck shell=bash

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$1" >&2; shift; for line in "$@"; do printf '       %s\n' "$line" >&2; done; exit 1; }

# cargo may be on the PATH while HOME points elsewhere (a container, a CI user): rustup then looks for its toolchains
# in the wrong place. The folder beside cargo's own tells where they are.
find_rust() {
    if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    command -v cargo >/dev/null 2>&1 || return 1
    if ! cargo --version >/dev/null 2>&1; then
        local cargo_home
        cargo_home=$(dirname "$(dirname "$(command -v cargo)")")
        if [ -d "$cargo_home/../.rustup" ]; then
            export RUSTUP_HOME="${RUSTUP_HOME:-$cargo_home/../.rustup}" CARGO_HOME="${CARGO_HOME:-$cargo_home}"
        fi
    fi
    cargo --version >/dev/null 2>&1
}

# The interpreter for the Python environment. The distribution's own is preferred: version managers put shims on the
# PATH that depend on HOME.
find_python() {
    local python
    for python in /usr/bin/python3 "$(command -v python3 2>/dev/null)"; do
        if [ -x "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
            printf '%s\n' "$python"
            return 0
        fi
    done
    return 1
}

# The features of everything that is tested. One set in one form (--workspace --features "$features") keeps cargo from compiling llama.cpp,
# candle and wasmtime again for each selection of packages.
features=inhouse/llama,inhouse/candle,inhouse-cli/candle,evald/wasi
