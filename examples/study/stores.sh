#!/bin/bash
# Where machines share no file system, each has a store of its own; the stores are merged when they are brought together:
#   on machine 0 of 2:  examples/study/stores.sh study.toml 0 2
#   on machine 1 of 2:  examples/study/stores.sh study.toml 1 2
#   then:               inhouse study merge --into study.store study.0.store study.1.store
#                       inhouse study report --store study.store --out report.html
set -euo pipefail
config=${1:?usage: stores.sh CONFIG I N}
exec inhouse study run --config "$config" --store "${config%.toml}.${2:?}.store" --shard "$2/${3:?}"
