#!/usr/bin/env bash
# Builds the three commands.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
find_rust
say "building inhouse, evald and inhouse-convert (the first time compiles llama.cpp, candle and wasmtime: about 15 minutes on 2 cores)"
cargo build --release --locked -p inhouse-cli -p evald -p inhouse-convert --features evald/wasi
