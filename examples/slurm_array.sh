#!/bin/bash
# Shares a large collection out over a job array: a plan, a task for each share, and a last job that joins the tables.
#   slurm_array.sh IN OUT.zarr SHARES [options of segment, such as --diameter 30]
# Run it where you call sbatch; planning reads headers only. What a task gets (GPU, memory, time, partition) is said in
# slurm_share.sbatch beside this file; sbatch's own variables, such as SBATCH_PARTITION, win over it.
# The same line again does what is missing, whatever happened to the tasks.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: slurm_array.sh IN OUT.zarr SHARES [options of segment]" >&2; exit 2; }
images=$1 out=$2 shares=$3
shift 3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

[[ $shares =~ ^[1-9][0-9]*$ ]] || { echo "SHARES must be a number from 1, but is '$shares'." >&2; exit 2; }
most=$(scontrol show config | awk '$1 == "MaxArraySize" { print $3 }')
if [ "$shares" -gt "${most:-1001}" ]; then
    echo "SHARES is $shares, but arrays have at most $most tasks here (MaxArraySize): take fewer, larger shares." >&2
    exit 2
fi

nucseg-batch plan "$images" "$out" --shares "$shares" "$@"
array=$(sbatch --parsable --array="0-$((shares - 1))" "$here/slurm_share.sbatch" "$out")
array=${array%%;*} # where there are several clusters, the name of one follows
# afterany, not afterok: after a task that failed an afterok job waits for ever. finish sees for itself what is missing
printf -v command 'exec nucseg-batch finish %q' "$out"
last=$(sbatch --parsable --job-name=nucseg-finish --dependency="afterany:$array" \
    --cpus-per-task=2 --mem=8G --time=2:00:00 --wrap="$command")
echo "array $array, one task for each of $shares shares; then finish, job ${last%%;*}"
