#!/usr/bin/env bash
# Runs evald's tests in the tiers that need cgroup v2 (T0 as root, T1 as an unprivileged user) in a virtual machine:
# for hosts, containers above all, whose own cgroups cannot be delegated. `make test` does not call it; where the host
# can, the tests themselves run in T0 and T1.
#
#   scripts/test-tiers-vm.sh [FILTER...]       # all of tests/it, or those whose names contain a FILTER
#
# The machine is QEMU with a Debian kernel (unpacked below target/, never installed) and a root file system in memory:
# python3, evald, its test binary and the libraries that they load. It has no disk and no network.
#
#   EVALD_VM_ACCEL     tcg (default: software emulation, works everywhere) or kvm
#   EVALD_VM_SLOWNESS  how many times longer the tests' limits are; default 4 under tcg, 1 under kvm
#   EVALD_VM_MINUTES   the machine is stopped after so long; default 30
#   EVALD_VM_TIERS     tiers to test; default T0,T1
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
find_rust || die "no cargo on the PATH; install Rust from rustup.rs"
accel=${EVALD_VM_ACCEL:-tcg}
slowness=${EVALD_VM_SLOWNESS:-$([ "$accel" = kvm ] && echo 1 || echo 4)}
tiers=${EVALD_VM_TIERS:-T0,T1}
target=${CARGO_TARGET_DIR:-$PWD/target}
work=$target/tiers-vm
mkdir -p "$work"

say "what the machine is made of"
needed=(qemu-system-x86 busybox-static cpio)
if ! command -v qemu-system-x86_64 busybox cpio >/dev/null || ! busybox true; then
    [ "$(id -u)" = 0 ] || die "packages are missing" "apt-get install --no-install-recommends ${needed[*]}"
    apt-get install -y -q --no-install-recommends "${needed[@]}" >&2 || die "cannot install ${needed[*]}" "apt-get update"
fi
mkdir -p "$work/kernel/boot"
kernel=$(find "$work/kernel/boot" -name 'vmlinuz-*' 2>/dev/null | sort | tail -n 1)
if [ -z "$kernel" ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    [ -n "$package" ] || die "apt knows no linux-image-cloud-amd64" "apt-get update; a Debian of the amd64 architecture is needed"
    (cd "$work" && rm -f ./*.deb && apt-get download -q "$package" >&2) || die "cannot download $package"
    dpkg-deb -x "$work/$package"_*.deb "$work/kernel"
    rm -f "$work"/*.deb
    kernel=$(find "$work/kernel/boot" -name 'vmlinuz-*' | sort | tail -n 1)
fi
note "kernel $(basename "$kernel"), $(qemu-system-x86_64 --version | head -n 1), $accel"

say "evald and its tests"
cargo build --release --locked -p evald
tests=$(cargo test --release --locked -p evald --test it --no-run --message-format json 2>/dev/null |
    "$(find_python)" -c '
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    if row.get("executable") and row.get("target", {}).get("name") == "it":
        print(row["executable"])' | tail -n 1)
[ -n "$tests" ] || die "no test binary of evald"

say "the root file system"
root=$work/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,etc,var,mnt,run}
chmod 1777 "$root/tmp"
# add FILE...: a file under its own name, with the libraries that it loads.
add() {
    local file library
    for file in "$@"; do
        mkdir -p "$root$(dirname "$file")"
        cp -L "$file" "$root$file"
        for library in $(ldd "$file" 2>/dev/null | grep -o '/[^ )]*'); do
            [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"; }
        done
    done
}
cp "$(command -v busybox)" "$root/bin/busybox"
python=$(find_python) || die "no python3 of 3.8 or newer"
case $python in /usr/bin/*) ;; *) die "the tests want a /usr/bin/python3, found only $python" ;; esac
add "$python" "$target/release/evald" "$target/release/libevald.so" "$tests"
for folder in $("$python" -I -S -c 'import sys; print(*(path for path in sys.path if not path.endswith(".zip")))'); do
    [ -d "$folder" ] || continue
    mkdir -p "$root$folder"
    (cd "$folder" && find . -name test -prune -o -name '*.pyc' -prune -o -type f -print0 | cpio -pduL0 --quiet "$root$folder")
    find "$folder" -name '*.so' -print0 | while IFS= read -r -d '' extension; do add "$extension"; done
done
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
cat >"$root/bin/as-nobody" <<'EOF'
import os, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
os.execv(sys.argv[1], sys.argv[1:])
EOF
cat >"$root/init" <<EOF
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
# A root that pivot_root may leave: the first one is no mount like others.
mount --bind / /mnt && cd /mnt && mount --move . / && exec chroot . /bin/sh /bin/tests
EOF
cat >"$root/bin/tests" <<EOF
cd /
mount -t proc none /proc && mount -t sysfs none /sys && mount -t devtmpfs none /dev
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
ulimit -c 0
export EVALD_TEST_SLOWNESS=$slowness EVALD_TEST_TIERS=$tiers
echo "--- root: evald check"
$target/release/evald check
echo "--- root: tests"
$tests --test-threads 1 --nocapture $* </dev/null
echo "EVALD-VM root \$?"
echo "--- root: groups that are left"
find /sys/fs/cgroup -mindepth 1 -type d -name 'evald-*' ! -name 'evald-it-*' ! -path '*/evald-it-*/launch'
# As \`Delegate=\` would: a group of nobody's, and in it the group that the tests start in.
own=/sys/fs/cgroup/nobody
echo '+memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
mkdir \$own && echo '+memory +pids' >\$own/cgroup.subtree_control && mkdir \$own/launch
chown nobody \$own \$own/launch \$own/cgroup.procs \$own/cgroup.threads \$own/cgroup.subtree_control \$own/launch/cgroup.procs
echo \$\$ >\$own/launch/cgroup.procs
rm -rf /tmp/evald-it-*
echo "--- nobody: evald check"
python3 /bin/as-nobody $target/release/evald check
echo "--- nobody: tests"
python3 /bin/as-nobody $tests --test-threads 1 --nocapture $* </dev/null
echo "EVALD-VM nobody \$?"
echo "--- nobody: groups that are left"
find \$own -mindepth 1 -type d -name 'evald-*'
poweroff -f
EOF
chmod +x "$root/init"
(cd "$root" && find . -print0 | cpio -o0 -H newc --quiet -R 0:0 >"$work/root.cpio")
note "$(du -h "$work/root.cpio" | cut -f 1) in memory"

say "the machine"
log=$work/console.log
clock=() processors=2
# The machine's clock counts its own instructions (2 ns each) and skips what it would sleep: however slow and loaded this
# host is, limits in the machine are not.
# With that clock QEMU boots one processor only.
[ "$accel" = kvm ] || clock=(-icount shift=1,sleep=off) processors=1
timeout --foreground "$((60 * ${EVALD_VM_MINUTES:-30}))" nice -n 10 qemu-system-x86_64 \
    -accel "$accel" "${clock[@]}" -cpu "$([ "$accel" = kvm ] && echo host || echo max)" -smp "$processors" -m 3072 -nic none -display none -no-reboot \
    -serial stdio -monitor none -kernel "$kernel" -initrd "$work/root.cpio" \
    -append "console=ttyS0 panic=-1 quiet mitigations=off" </dev/null | stdbuf -oL tr -d '\r' | tee "$log" || note "the machine was stopped"
status=0
for user in root nobody; do
    grep -q "^EVALD-VM $user 0\$" "$log" || { note "FAILED or not finished: the tests as $user"; status=1; }
done
for tier in ${tiers//,/ }; do
    grep -o "Setting { tier: \"$tier\".*attacks held" "$log" | sed 's/^/    /' >&2 || note "no attack ran in $tier"
done
exit $status
