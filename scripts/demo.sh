#!/usr/bin/env bash
# The main job on a private library that no model has seen: documentation in, code that calls it out, pass@k beside it.
# Everything it makes lies in target/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

library=tests/private-library/gaugewren
problems=tests/private-library/problems.jsonl
model=models/inhouse-tiny/inhouse-tiny.Q8_0.gguf
python=.env/python/bin/python
n=${DEMO_SAMPLES:-10}
out=target/demo
mkdir -p "$out"
PATH="$PWD/target/release:$PATH"

run() { # shows a command, then runs it
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

say "1. The documentation of a private library, read without importing it"
run inhouse docs "$library" --out "$out/apis.jsonl"
run inhouse index build "$out/apis.jsonl" --out "$out/index"

say "2. The APIs that a task needs, found in it"
run inhouse retrieve --index "$out/index" -k 3 "only report a reading when it differs enough from the last reported one"
run inhouse retrieve --index "$out/index" --problems "$problems"

say "3. Code that calls them"
note "The model is models/inhouse-tiny: 3 million parameters, trained by this project on CPUs for an hour. It is far weaker than"
note "any model you would use; what it shows is that the whole path works. Give your own with --model."
cat > "$out/draft.py" <<'PYTHON'
from gaugewren import Strand

level = Strand.metronome([20.0, 20.1, 20.3, 21.0, 21.2, 20.2], cadence=60)
# Only report a reading when it differs enough from the last reported one.
reported =
PYTHON
truncate -s -1 "$out/draft.py" # the cursor stands right behind the `=`
printf '\n\033[1m$ cat %s\033[0m\n' "$out/draft.py"
cat "$out/draft.py"
echo
for apis in none top:2; do
    run inhouse complete --index "$out/index" --model "$model" --apis "$apis" --temperature 0 --max-tokens 40 "$out/draft.py"
done

say "4. How often is it right? Every sample runs in a sandbox of its own"
run evald check
run inhouse eval --problems "$problems" --canonical --env "$python:gaugewren" --out "$out/canonical.results.jsonl"
for apis in none top:2 perfect; do
    run inhouse generate --problems "$problems" --model "$model" --index "$out/index" --apis "$apis" -n "$n" --max-tokens 40 \
        --temperature 0.4 --out "$out/${apis/:/}.samples.jsonl"
    run inhouse eval --problems "$problems" --samples "$out/${apis/:/}.samples.jsonl" --env "$python:gaugewren" --k 1,5,10 --json \
        --out "$out/${apis/:/}.results.jsonl" | tee "$out/${apis/:/}.json"
done

say "pass@k on $problems ($n samples a problem; the canonical solutions show what a perfect model would get)"
"$python" - "$out" <<'PYTHON'
import json, sys

out = sys.argv[1]
print(f"{'APIs in the prompt':24}{'pass@1':>9}{'pass@5':>9}{'pass@10':>9}")
for label, name in (("none", "none"), ("retrieved, top 2", "top2"), ("golden (perfect)", "perfect")):
    row = json.load(open(f"{out}/{name}.json"))
    print(f"{label:24}" + "".join(f"{row[k]:9.4f}" if k in row else f"{'-':>9}" for k in ("pass@1", "pass@5", "pass@10")))
passed = [json.loads(line)["passed"] for line in open(f"{out}/canonical.results.jsonl")]
print(f"{'canonical solutions':24}{sum(passed) / len(passed):9.4f}")
PYTHON
