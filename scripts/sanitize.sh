#!/usr/bin/env bash
# The C and C++ hosts under AddressSanitizer with UBSan, valgrind, and ThreadSanitizer with eight threads.
# The hosts are instrumented; of libinhouse, which is not, the sanitizers see what it allocates, frees and copies.
#   scripts/sanitize.sh [SECONDS]    of the run with threads (3); 300 for the long one
#   BUILT                            a folder with libinhouse_ffi.so (target/release)
#   ONLY                             "asan", "valgrind" or "tsan": that one alone
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

seconds=${1:-3}
built=${BUILT:-target/release}
only=${ONLY:-asan valgrind tsan}
model=models/inhouse-coder/inhouse-coder.gguf
source=tests/private-library/gaugewren
encoder=tests/fixtures/bert
evald=$(realpath -q "$built/evald") || evald=
[ -f "$built/libinhouse_ffi.so" ] || die "$built/libinhouse_ffi.so is not built"
for tool in gcc g++ "$built/inhouse"; do command -v "$tool" >/dev/null || die "$tool is not here"; done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$built/libinhouse_ffi.so" "$work/libinhouse.so.0"
export LD_LIBRARY_PATH=$work
cat >"$work/apis.jsonl" <<'JSON'
{"name": "open_ledger", "qualified_name": "ledgers.open_ledger", "signature": "(path)", "description": "Opens a ledger."}
{"name": "close_ledger", "qualified_name": "ledgers.close_ledger", "signature": "(path)", "description": "Closes what was opened."}
{"name": "tally", "qualified_name": "ledgers.tally", "signature": "(path)", "description": "Sums the entries of a month."}
JSON
"$built/inhouse" index build "$work/apis.jsonl" --encoder none --out "$work/index" >/dev/null || die "the index was not built"

status=0
host() { # host PROGRAM SOURCE COMPILER FLAGS...
    local program=$work/$1 source=tests/hosts/$2
    shift 2
    "$@" -g -O1 -I include "$source" -o "$program" -L"$work" -l:libinhouse.so.0 -lpthread
}
check() { # check NAME COMMAND...: shows the output where it fails
    local name=$1
    shift
    if "$@" >"$work/log" 2>&1 && tail -n 1 "$work/log" | grep -x ok >/dev/null; then
        note "$name: ok"
    else
        tail -n 60 "$work/log" >&2
        note "$name: FAILED"
        status=1
    fi
}
for way in $only; do
    say "$way"
    case $way in
    asan)
        sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all"
        # shellcheck disable=SC2086
        host c-asan complete.c gcc -std=c99 $sanitize && check "complete.c" "$work/c-asan" "$work/index" $model
        # shellcheck disable=SC2086
        host cc-asan complete.cc g++ -std=c++17 $sanitize && check "complete.cc" "$work/cc-asan" "$work/index" $model
        # shellcheck disable=SC2086
        host i-asan index.c gcc -std=c99 $sanitize && mkdir -p "$work/i-asan.d" &&
            check "index.c" "$work/i-asan" "$source" "$work/i-asan.d"
        # shellcheck disable=SC2086
        host v-asan encode.c gcc -std=c99 $sanitize && mkdir -p "$work/v-asan.d" && cp -r "$encoder" "$work/v-asan.e" &&
            check "encode.c" "$work/v-asan" "$work/v-asan.e" "$work/v-asan.d" candle
        # shellcheck disable=SC2086
        host e-asan evaluate.c gcc -std=c99 $sanitize && mkdir -p "$work/e-asan.d" &&
            check "evaluate.c" "$work/e-asan" "$work/e-asan.d" ${evald:+"$evald"}
        # shellcheck disable=SC2086
        host t-asan threads.c gcc -std=c11 $sanitize && check "threads.c" "$work/t-asan" "$work/index" $model "$seconds"
        ;;
    valgrind)
        if command -v valgrind >/dev/null; then
            memcheck=(valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite
                --error-exitcode=9)
            host c complete.c gcc -std=c99 && check "complete.c" "${memcheck[@]}" "$work/c" "$work/index" $model
            host i index.c gcc -std=c99 && mkdir -p "$work/i.d" && check "index.c" "${memcheck[@]}" "$work/i" "$source" "$work/i.d"
            host v encode.c gcc -std=c99 && mkdir -p "$work/v.d" && cp -r "$encoder" "$work/v.e" &&
                check "encode.c" "${memcheck[@]}" "$work/v" "$work/v.e" "$work/v.d" candle
            host e evaluate.c gcc -std=c99 && mkdir -p "$work/e.d" && check "evaluate.c" "${memcheck[@]}" "$work/e" "$work/e.d"
        else
            echo "skipped: valgrind is not installed"
        fi
        ;;
    tsan)
        # What the library does with its own locks is not seen, so races are looked for in the host's code and memory.
        export TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1"
        host t-tsan threads.c gcc -std=c11 -fsanitize=thread &&
            check "threads.c, $seconds s" "$work/t-tsan" "$work/index" $model "$seconds"
        grep INHOUSE_ "$work/log" >&2
        ;;
    *) die "ONLY is '$way', expected asan, valgrind or tsan" ;;
    esac || status=1
done
exit $status
