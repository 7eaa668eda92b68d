#!/bin/sh
# Makes torchdata 0.3.0 importable beside torch 1.13: a function it imports was renamed there.
# Usage: patch_torchdata.sh VENV   (a virtual environment in which torchdata 0.3.0 is installed; may be run again)
set -eu
venv=${1:?usage: patch_torchdata.sh VENV}
python="$venv/bin/python"
[ -x "$python" ] || { echo "patch_torchdata.sh: no interpreter $python" >&2; exit 1; }
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
for file in datapipes/iter/util/cacheholder.py datapipes/iter/transform/flatmap.py datapipes/map/util/utils.py; do
    path="$packages/torchdata/$file"
    [ -f "$path" ] || { echo "patch_torchdata.sh: no $path; is torchdata 0.3.0 installed?" >&2; exit 1; }
    sed -i 's/\([^_]\|^\)check_lambda_fn/\1_check_unpickable_fn/g' "$path"
done
"$python" -c 'import torchdata.datapipes'
