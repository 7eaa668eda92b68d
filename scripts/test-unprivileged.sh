#!/usr/bin/env bash
# Runs evald's test binaries as `nobody`, from a folder that user can read.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
find_rust
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
binaries=$(cargo test --release --locked -p evald -p evald-proto --no-run --message-format json 2>/dev/null |
    "$(find_python)" -c '
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    if row.get("executable") and row.get("profile", {}).get("test"):
        print(row["executable"])')
mkdir "$folder/bin"
cp target/release/evald "$folder/bin/"
cp -r evald "$folder/evald"
status=0
for binary in $binaries; do
    name=$(basename "$binary")
    cp "$binary" "$folder/bin/$name"
    mkdir -p "$folder/tmp" && chmod 1777 "$folder/tmp"
    note "$name"
    (cd "$folder/evald" && runuser -u nobody -- env HOME=/nonexistent TMPDIR="$folder/tmp" EVALD_BIN="$folder/bin/evald" \
        "$folder/bin/$name" --quiet) || status=1
done
exit $status
