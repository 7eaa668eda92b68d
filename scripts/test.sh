#!/usr/bin/env bash
# All tests. Runs on after a failure and names at the end what failed; the exit status says the same.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
find_rust || exit 1

failed=()
step() { # step NAME COMMAND...: runs on after a failure, so that one run shows all of them
    local name=$1
    shift
    say "$name"
    "$@" || { failed+=("$name"); note "FAILED: $name"; }
}

# The environments of the published benchmarks, where those and a fitting Python are at hand; without them the tests that
# need them say so and skip.
if [ -d "${INHOUSE_SHARED:-../shared}/benchmarks" ]; then
    scripts/benchmark-env.sh wheels || note "tests that read pandas' and torchdata's wheels will skip"
    export INHOUSE_WHEELS=$PWD/.env/wheels
    scripts/benchmark-env.sh pandas || note "tests that need pandas 1.3.5 will skip"
    if /usr/bin/python3 -c 'import torch' 2>/dev/null; then
        scripts/benchmark-env.sh torchdata || note "tests that need torchdata will skip"
    fi
fi

# What tier T4 runs; without it its tests say so and skip.
export EVALD_WASI=${EVALD_WASI:-$PWD/.env/wasi}

step "format" cargo fmt --all --check
step "check without backends" cargo check --release --locked -p inhouse -p inhouse-study -p inhouse-ffi -p inhouse-cli -p evald --no-default-features
# With these companions (the converter, llama.cpp's crate, T4) every dependency has the features that the whole workspace gives it, so that
# llama.cpp and candle are compiled once and not once a combination.
for combination in inhouse/llama inhouse/candle; do
    step "build with $combination alone" cargo build --release --locked -p inhouse -p inhouse-study -p inhouse-ffi -p inhouse-cli \
        -p evald -p inhouse-convert -p inhouse-llama --no-default-features --features "$combination,evald/wasi"
done
# Last, since each of the above leaves its own `inhouse` behind: tests run what users get.
step "build (all features)" cargo build --release --locked --workspace --features "$features"
# What a test prints is shown, so that a skipped one says why.
rust_tests() {
    cargo test --release --locked --workspace --features "$features" --no-fail-fast -- --show-output 2>&1 | tee target/test.log
}
step "Rust, C and C++ tests" rust_tests
# A workspace of its own, without backends: the model runs in the worker that was built above. Its lock file follows what
# the engine depends on, so that it is not held to (--locked) here.
step "the C++ bridge" env INHOUSE_WORKER="$PWD/target/release/inhouse-worker" \
    cargo test --release --manifest-path ffi/cxx/Cargo.toml --target-dir target/cxx -- --show-output
if grep -q '^skipped' target/test.log; then
    say "skipped"
    grep '^skipped' target/test.log | sort | uniq -c >&2
fi
if [ "$(id -u)" = 0 ] && command -v runuser >/dev/null; then
    # Users are not root: the sandbox must hold for them too.
    step "evald's tests as an unprivileged user" scripts/test-unprivileged.sh
fi
# Starts the daemon that was built above.
step "the Python package evald, and recipes for other harnesses" scripts/test-python.sh
step "the private library's tests and problems" \
    env PYTHONDONTWRITEBYTECODE=1 "$(find_python)" -m unittest discover -q -s tests/private-library -t tests/private-library

if [ ${#failed[@]} -gt 0 ]; then
    say "failed: ${failed[*]}"
    exit 1
fi
say "all tests passed"
