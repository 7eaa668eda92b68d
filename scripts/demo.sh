#!/usr/bin/env bash
# The main job on a private library that no model has seen: documentation in, code that calls it out, pass@k beside it.
# Everything it makes lies in target/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

library=tests/private-library/gaugewren
problems=tests/private-library/problems.jsonl
python=.env/python/bin/python
n=${DEMO_SAMPLES:-10}
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
note "The model is models/inhouse-coder, which comes with the engine: 3.8 million parameters, trained by this project on one core. It is"
note "far weaker than any model you would use; what it shows is that the whole path works. Give your own with --model."
note "(The draft was chosen because the model manages it. The table at the end shows how seldom it does.)"
cat > "$out/draft.py" <<'PYTHON'
import gaugewren as gw

def one_line_chart(amounts):
    # Draw the amounts as a single row of block characters.
PYTHON
run cat "$out/draft.py"
for apis in none top:1; do
    run inhouse complete --index "$out/index" --apis "$apis" --temperature 0 --max-tokens 40 "$out/draft.py"
done

say "4. How often is it right? Every sample runs in a sandbox of its own"
run evald check
run inhouse eval --problems "$problems" --canonical --env "$python:gaugewren" --out "$out/canonical.results.jsonl"
for apis in none top:1 perfect; do
    run inhouse generate --problems "$problems" --index "$out/index" --apis "$apis" -n "$n" --max-tokens 40 \
        --temperature 0.4 --out "$out/${apis/:/}.samples.jsonl"
    run inhouse eval --problems "$problems" --samples "$out/${apis/:/}.samples.jsonl" --env "$python:gaugewren" --k 1,5,10 --json \
        --out "$out/${apis/:/}.results.jsonl" | tee "$out/${apis/:/}.json"
done

say "pass@k on $problems ($n samples a problem; the canonical solutions show what a perfect model would get)"
"$python" - "$out" <<'PYTHON'
import json, sys

out = sys.argv[1]
print(f"{'APIs in the prompt':24}{'pass@1':>9}{'pass@5':>9}{'pass@10':>9}")
for label, name in (("none", "none"), ("retrieved, top 1", "top1"), ("golden (perfect)", "perfect")):
    row = json.load(open(f"{out}/{name}.json"))
    print(f"{label:24}" + "".join(f"{row[k]:9.4f}" if k in row else f"{'-':>9}" for k in ("pass@1", "pass@5", "pass@10")))
passed = [json.loads(line)["passed"] for line in open(f"{out}/canonical.results.jsonl")]
print(f"{'canonical solutions':24}{sum(passed) / len(passed):9.4f}")
PYTHON
