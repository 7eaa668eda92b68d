#!/usr/bin/env bash
# Installs libinhouse: shared and static library, headers, a pkg-config file, a CMake package, and the program that runs a
# model in a process of its own.
#   PREFIX (/usr/local)    where hosts will find it
#   DESTDIR (empty)        put in front of PREFIX while installing, for packages
#   FEATURES (llama,evald) what to build with: "llama" and "candle" are backends, "evald" is evaluation; "" for none
#   MODEL (default)        the code model to install: "default", which is made first where it can be (scripts/default-model.sh), or
#                          "small" (4 MB)
#   BUILT                  a folder with libinhouse_ffi.so, .a and inhouse-worker (or beside it) that are built already;
#                          else cargo builds them
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

prefix=${PREFIX:-/usr/local}
case "$prefix" in /*) ;; *) die "PREFIX is '$prefix': it must begin with /" ;; esac
root=${DESTDIR:-}${prefix}
built=${BUILT:-}
if [ -z "$built" ]; then
    find_rust
    features=${FEATURES-llama,evald}
    say "building libinhouse with ${features:-no backend}"
    cargo build --release --locked -p inhouse-ffi -p inhouse-cli --lib --bin inhouse-worker \
        --no-default-features --features "$features"
    built=${CARGO_TARGET_DIR:-target}/release
fi
worker=$built/inhouse-worker
[ -f "$worker" ] || worker=$built/../inhouse-worker
[ -f "$worker" ] || die "there is no inhouse-worker in $built: cargo build --release -p inhouse-cli"
version=$(sed -n '/^\[workspace.package\]/,/^version/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[ -n "$version" ] || die "Cargo.toml names no version"
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

# The shared library exports inhouse_* and nothing else; its other symbols are only of use in a debugger.
strip --strip-unneeded -o "$temporary/libinhouse.so" "$built/libinhouse_ffi.so"

# The static library is one object in which only inhouse_* is global: a host may link its own llama.cpp, or another
# static library written in Rust, beside it.
nm -D --defined-only "$temporary/libinhouse.so" | awk '{ print $3 }' >"$temporary/exported"
roots=()
while read -r name; do roots+=(-u "$name"); done <"$temporary/exported"
ld -r --force-group-allocation --gc-sections "${roots[@]}" -T packaging/merge.ld \
    --whole-archive "$built/libinhouse_ffi.a" -o "$temporary/merged.o"
objcopy --strip-unneeded --strip-debug --keep-global-symbols="$temporary/exported" "$temporary/merged.o"
# C++ gives some statics a binding of their own ("unique"), which only becomes local by way of weak.
nm "$temporary/merged.o" | awk '$2 == "u" { print $3 }' >"$temporary/unique"
objcopy --weaken-symbols="$temporary/unique" "$temporary/merged.o"
objcopy --localize-symbols="$temporary/unique" "$temporary/merged.o" "$temporary/inhouse.o"
ar rcs "$temporary/libinhouse.a" "$temporary/inhouse.o"

strip -o "$temporary/inhouse-worker" "$worker"

static_libs="-lpthread -ldl -lm -lgcc_s"
if nm -u "$temporary/inhouse.o" | grep ' _ZNSt' >/dev/null; then
    static_libs="-lstdc++ $static_libs"
fi
fill() { # fill TEMPLATE: with the names between @
    sed -e "s|@PREFIX@|$prefix|g; s|@VERSION@|$version|g; s|@STATIC_LIBS@|${2:-$static_libs}|g" "packaging/$1.in" >"$temporary/$1"
}
fill inhouse.pc
fill inhouse-config.cmake "${static_libs// /;}"
fill inhouse-config-version.cmake

# The library looks for it there, from where it lies itself; a program of another version would be of no use to it.
libexec=$root/libexec/inhouse-$version
install -d "$root/include/inhouse" "$root/lib/pkgconfig" "$root/lib/cmake/inhouse" "$libexec"
install -m 755 "$temporary/inhouse-worker" "$libexec/"
install -D -m 644 -t "$root/share/inhouse" models/inhouse-retriever/inhouse-retriever.gguf models/inhouse-coder/inhouse-coder.gguf
if [ "${MODEL:-default}" = default ]; then
    scripts/default-model.sh
    if [ -f models/inhouse-smollm2/inhouse-smollm2.gguf ]; then
        install -m 644 models/inhouse-smollm2/inhouse-smollm2.gguf "$root/share/inhouse/"
    fi
fi
install -m 644 include/inhouse.h include/inhouse.hpp "$root/include/"
install -m 644 include/inhouse/*.hpp "$root/include/inhouse/"
install -m 755 "$temporary/libinhouse.so" "$root/lib/libinhouse.so.$version"
ln -sfn "libinhouse.so.$version" "$root/lib/libinhouse.so.0"
ln -sfn libinhouse.so.0 "$root/lib/libinhouse.so"
install -m 644 "$temporary/libinhouse.a" "$root/lib/"
install -m 644 "$temporary/inhouse.pc" "$root/lib/pkgconfig/"
install -m 644 "$temporary/inhouse-config.cmake" "$temporary/inhouse-config-version.cmake" "$root/lib/cmake/inhouse/"
say "installed libinhouse $version in $root: shared $(stat -c %s "$root/lib/libinhouse.so.$version") bytes, static $(stat -c %s "$root/lib/libinhouse.a") bytes, worker $(stat -c %s "$libexec/inhouse-worker") bytes"
if [ -z "${DESTDIR:-}" ] && [ "$(id -u)" = 0 ] && [ "$prefix" = /usr/local ]; then
    ldconfig
fi
