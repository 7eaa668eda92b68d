#!/bin/bash
# A study as a Slurm array over one store on a shared file system:
#   sbatch --array=0-15 examples/study/slurm.sh study.toml /shared/study.store
# A task that was killed or ran out of time goes on when it is submitted again; --array=3,7 submits single ones. When all are
# done: inhouse study report --store /shared/study.store --out report.html
#SBATCH --job-name=inhouse-study
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
set -euo pipefail
config=${1:?usage: sbatch --array=0-N slurm.sh CONFIG STORE}
store=${2:?usage: sbatch --array=0-N slurm.sh CONFIG STORE}
# Array numbers must begin at 0 and have no gaps: their count is the count of shards. For single ones give the whole count as SHARDS.
shards=${SHARDS:-$SLURM_ARRAY_TASK_COUNT}
# `exec`: the signal before the end reaches inhouse, which stops with whole units.
exec inhouse --progress json study run --config "$config" --store "$store" --shard "$SLURM_ARRAY_TASK_ID/$shards"
