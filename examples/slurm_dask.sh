#!/bin/bash
# Workers are jobs of their own that may come and go; one program hands them their work. Needs `pip install
# 'nucseg-batch[hpc]'`.
#   slurm_dask.sh IN OUT.zarr WORKERS [options of segment, such as --diameter 30 or --job-option=--partition=gpu]
# Run it on a login node (in tmux or screen), or submit it: `sbatch slurm_dask.sh IN OUT.zarr 8`. It computes nothing
# itself. Change: what a worker's job gets, below. The same line again does what is missing.
#SBATCH --job-name=nucseg-dask
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: slurm_dask.sh IN OUT.zarr WORKERS [options of segment]" >&2; exit 2; }
images=$1 out=$2 workers=$3
shift 3

# What makes nucseg-batch known on the nodes, unless it is where you call this:
# module load cuda; source ~/nucseg/bin/activate

exec nucseg-batch segment "$images" "$out" --cluster slurm --jobs "$workers" \
    --job-option=--gres=gpu:1 --job-option=--time=4:00:00 "$@"
