#!/usr/bin/env bash
# Runs every fuzz target for SECONDS (default 60) each: with cargo-fuzz and a nightly toolchain where both are there, else
# with the driver of fuzz/src/bin/mutate.rs on the pinned toolchain. Further arguments are folders with more seeds.
#
#   scripts/fuzz.sh            scripts/fuzz.sh 600 ~/my-seeds
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=$(sed -n 's/^pub fn \([a-z]*\)(data: &\[u8\]).*/\1/p' fuzz/src/lib.rs)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/fuzz/target}

if cargo fuzz --version >/dev/null 2>&1 && cargo +nightly --version >/dev/null 2>&1; then
    for target in $targets; do
        mkdir -p "fuzz/corpus/$target"
        cargo +nightly fuzz run --features libfuzzer "$target" "fuzz/corpus/$target" fuzz/seeds "$@" -- \
            -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=4096
    done
else
    echo "fuzz: no cargo-fuzz or no nightly toolchain; plain mutation on the pinned one" >&2
    cargo build --release --manifest-path fuzz/Cargo.toml --bin mutate
    for target in $targets; do
        timeout $((seconds + 120)) "$CARGO_TARGET_DIR/release/mutate" "$target" "$seconds" "$@"
    done
fi
