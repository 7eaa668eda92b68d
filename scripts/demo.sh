#!/usr/bin/env bash
# The main job on a private library that no model has seen: documentation in, code that calls it out, pass@k beside it.
# Everything it makes lies in target/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

library=tests/private-library/gaugewren
problems=tests/private-library/problems.jsonl
python=.env/python/bin/python
out=target/demo
mkdir -p "$out"
PATH="$PWD/target/release:$PATH"

run() { # shows a command, then runs it
    printf '\n\033[1m$ %s\033[0m\n' "$*" >&2
    "$@"
}

say "1. The documentation of a private library, read without importing it"
run inhouse docs "$library" --out "$out/apis.jsonl"
run inhouse index build "$out/apis.jsonl" --out "$out/index"

say "2. The APIs that a task needs, found in it"
run inhouse retrieve --index "$out/index" -k 3 "draw the amounts as a single row of block characters"
run inhouse retrieve --index "$out/index" --problems "$problems"

say "3. Code that calls them"
if [ -f models/inhouse-smollm2/inhouse-smollm2.gguf ]; then
    note "The model is models/inhouse-smollm2: SmolLM2-135M with an adapter of this project's, which reads the lines of APIs. It has never"
    note "seen this library. It is small: any larger code model does better (--model)."
else
    note "The model is models/inhouse-coder: 3.8 million parameters, which serves where the base of the default model cannot be fetched. It is far"
    note "weaker than any model you would use; what it shows is that the whole path works. Give your own with --model."
fi
# The cursor stands behind the dot.
printf '%s\n' 'import gaugewren as gw' '' 'def compact(amounts):' '    # Draw the amounts as one row of characters.' >"$out/draft.py"
printf '    return gw.' >>"$out/draft.py"
run cat "$out/draft.py"
echo
for apis in none top:2; do
    run inhouse complete --index "$out/index" --apis "$apis" --temperature 0 --max-tokens 24 "$out/draft.py"
done

say "4. How often is it right? Every program runs in a sandbox of its own, its test out of its reach"
run evald check
run inhouse eval --problems "$problems" --canonical --env "$python:gaugewren" --out "$out/canonical.results.jsonl"
for apis in none top:2 perfect; do
    run inhouse generate --problems "$problems" --index "$out/index" --apis "$apis" -n 1 --max-tokens 40 \
        --temperature 0 --out "$out/${apis/:/}.samples.jsonl"
    run inhouse eval --problems "$problems" --samples "$out/${apis/:/}.samples.jsonl" --env "$python:gaugewren" --k 1 --json \
        --out "$out/${apis/:/}.results.jsonl" | tee "$out/${apis/:/}.json"
done

say "pass@1 on $problems (the most likely program of each problem; the canonical solutions show what a perfect model would get)"
"$python" - "$out" <<'PYTHON'
import json, sys

out = sys.argv[1]
print(f"{'APIs in the prompt':24}{'pass@1':>9}{'passed':>9}")
for label, name in (("none", "none"), ("retrieved, top 2", "top2"), ("golden (perfect)", "perfect")):
    row = json.load(open(f"{out}/{name}.json"))
    print(f"{label:24}{row['pass@1']:9.4f}{row['verdicts'].get('passed', 0):9}")
passed = [json.loads(line)["passed"] for line in open(f"{out}/canonical.results.jsonl")]
print(f"{'canonical solutions':24}{sum(passed) / len(passed):9.4f}{sum(passed):9}")
PYTHON
