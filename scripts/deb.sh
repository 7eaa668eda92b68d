#!/usr/bin/env bash
# Debian packages of libinhouse: libinhouse0 (the shared library and the worker) and libinhouse-dev (headers, static library,
# pkg-config and CMake files).
#   scripts/deb.sh [FOLDER]    where they go (target/deb); FEATURES, MODEL and BUILT as in scripts/install.sh,
#                              COMPRESSION (xz) as dpkg-deb -Z takes it
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

out=${1:-target/deb}
command -v dpkg-deb >/dev/null || die "dpkg-deb is not here: packages are made on Debian or Ubuntu"
architecture=$(dpkg --print-architecture)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
DESTDIR=$stage/dev PREFIX=/usr scripts/install.sh
version=$(basename "$stage"/dev/usr/lib/libinhouse.so.*.*.* | sed 's/^libinhouse\.so\.//')
install -d "$stage/lib/usr/lib"
mv "$stage/dev/usr/lib/libinhouse.so.$version" "$stage/dev/usr/lib/libinhouse.so.0" "$stage/lib/usr/lib/"
mv "$stage/dev/usr/libexec" "$stage/dev/usr/share" "$stage/lib/usr/"

# The oldest C library that has every symbol the library and the worker ask for.
libc=$(objdump -T "$stage/lib/usr/lib/libinhouse.so.$version" "$stage"/lib/usr/libexec/*/inhouse-worker | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
depends="libc6 (>= $libc), libgcc-s1"
if objdump -p "$stage/lib/usr/lib/libinhouse.so.$version" | grep 'NEEDED.*libstdc++' >/dev/null; then
    depends="$depends, libstdc++6 (>= $(g++ -dumpversion))"
fi
package() { # package FOLDER NAME SECTION DEPENDS DESCRIPTION
    install -d "$stage/$1/DEBIAN" "$stage/$1/usr/share/doc/$2"
    install -m 644 LICENSE "$stage/$1/usr/share/doc/$2/copyright"
    cat >"$stage/$1/DEBIAN/control" <<CONTROL
Package: $2
Version: $version
Architecture: $architecture
Section: $3
Priority: optional
Maintainer: the inhouse project
Installed-Size: $(du -sk "$stage/$1/usr" | cut -f 1)
Depends: $4
Description: $5
CONTROL
    find "$stage/$1" -type d -exec chmod 755 {} +
    mkdir -p "$out"
    dpkg-deb --root-owner-group "-Z${COMPRESSION:-xz}" --build "$stage/$1" "$out/$2_${version}_$architecture.deb" >&2
}
printf 'activate-noawait ldconfig\n' >"$stage/triggers"
install -d "$stage/lib/DEBIAN"
install -m 644 "$stage/triggers" "$stage/lib/DEBIAN/triggers"
package lib libinhouse0 libs "$depends" "engine that writes code against private libraries"
package dev libinhouse-dev libdevel "libinhouse0 (= $version)" "engine that writes code against private libraries: headers"
