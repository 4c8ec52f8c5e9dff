"""The example for one GPU is run as a user runs it, at a site that has RequeueExit=75."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm.processes import is_locked
from slurm.runs import EXAMPLES, OPTIONS, assert_same, program, root_locked, run
from slurm.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.timeout(900)


def test_a_job_that_is_warned_and_then_preempted_ends_as_if_nothing_had_happened(
    slurm: SlurmCluster, images: Path, reference: Path, tmp_path: Path
) -> None:
    """Time limits and other people's urgent jobs cost time, never results."""
    lock = tmp_path / "out.run" / "locks" / "share-00000.lock"
    run("nucseg-batch", "plan", images, tmp_path / "out.zarr", *OPTIONS)
    with root_locked(tmp_path / "out.zarr"):  # it cannot be done before the signals come
        job = slurm.submit(
            EXAMPLES / "slurm_one_gpu.sbatch", images, "out.zarr", *OPTIONS, folder=tmp_path, environment=program()
        )
        slurm.wait(lambda: is_locked(lock), "the run to begin", job=job)
        slurm.signal(job, "USR1")
        slurm.requeued(job)
        slurm.wait(lambda: is_locked(lock), "the run to begin again", job=job)
        urgent = slurm.submit("-p", "urgent", "--nodes=2", "--exclusive", "--wrap=true", folder=tmp_path)
        slurm.wait(lambda: slurm.task(job).state != "RUNNING", "the job to be preempted")
    slurm.requeued(job, times=2)
    (task,) = slurm.ended(job)
    slurm.ended(urgent)
    log = slurm.log(job, tmp_path)
    assert (task.state, task.code, task.restarts) == ("COMPLETED", 0, 2), log
    assert "DUE TO PREEMPTION" in log
    assert_same(tmp_path / "out.zarr", reference)


def test_a_job_that_a_person_cancels_is_not_started_again(slurm: SlurmCluster, images: Path, tmp_path: Path) -> None:
    """It leaves with the code that otherwise means `run me again`."""
    run("nucseg-batch", "plan", images, tmp_path / "out.zarr", *OPTIONS)
    with root_locked(tmp_path / "out.zarr"):
        job = slurm.submit(
            EXAMPLES / "slurm_one_gpu.sbatch", images, "out.zarr", *OPTIONS, folder=tmp_path, environment=program()
        )
        slurm.wait(lambda: is_locked(tmp_path / "out.run" / "locks" / "share-00000.lock"), "the run to begin", job=job)
        slurm.call("scancel", job)
        slurm.ended(job)
    (task,) = slurm.ended(job)
    assert (task.state, task.code, task.restarts) == ("CANCELLED", 75, 0), slurm.log(job, tmp_path)
    assert "not complete" in run("nucseg-batch", "status", tmp_path / "out.zarr")
