"""The Slurm that other tests rely on does what theirs need: else they would pass for the wrong reason."""

from __future__ import annotations

from pathlib import Path

from slurm.slurm_cluster import SlurmCluster


def script(folder: Path, body: str, name: str = "job.sh") -> Path:
    path = folder / name
    path.write_text("#!/bin/bash\n" + body)
    return path


def test_tasks_of_an_array_have_their_own_codes_and_logs(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Each share is judged by its own exit code."""
    body = 'echo "task $SLURM_ARRAY_TASK_ID gpu $CUDA_VISIBLE_DEVICES"; exit "$SLURM_ARRAY_TASK_ID"\n'
    job = slurm.submit("--array=0-2", "--gres=gpu:1", script(tmp_path, body), folder=tmp_path)
    tasks = slurm.ended(job)
    assert [(task.job, task.code) for task in tasks] == [(f"{job}_0", 0), (f"{job}_1", 1), (f"{job}_2", 2)]
    assert slurm.log(f"{job}_1", tmp_path) == "task 1 gpu 0\n"
