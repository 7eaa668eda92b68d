#!/usr/bin/env bash
# rustfmt and clippy; warnings are errors.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
find_rust
cargo fmt --all --check
cargo fmt --manifest-path ffi/cxx/Cargo.toml --check
cargo clippy --release --locked --workspace --all-targets --features inhouse/llama,inhouse/candle,inhouse-cli/candle,evald/wasi -- -D warnings
# The parts that features leave out are other code: a signature that changed in one form only is found here.
cargo clippy --release --locked -p inhouse -p inhouse-study -p inhouse-ffi -p inhouse-cli -p evald --no-default-features --all-targets -- -D warnings
cargo clippy --release --manifest-path ffi/cxx/Cargo.toml --target-dir target/cxx --all-targets -- -D warnings
