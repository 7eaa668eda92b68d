#!/usr/bin/env bash
# Runs evald's test binaries as `nobody`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
find_rust
if ! runuser -u nobody -- test -x target/release/evald; then
    note "skipped: nobody cannot read $PWD/target (a checkout below a private home folder?)"
    exit 0
fi
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
chmod 1777 "$temporary"
mapfile -t binaries < <(cargo test --release --locked --workspace --features "$features" --no-run --message-format json 2>/dev/null |
    "$(find_python)" -c '
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    if row.get("executable") and row.get("profile", {}).get("test") and "/evald" in row["manifest_path"]:
        print(row["executable"])')
[ ${#binaries[@]} -gt 0 ] || die "no test binaries of evald"
cd evald
status=0
for binary in "${binaries[@]}"; do
    runuser -u nobody -- env HOME=/nonexistent TMPDIR="$temporary" "$binary" --quiet || status=1
done
exit $status
