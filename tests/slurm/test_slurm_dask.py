"""The example with dask-jobqueue is run as a user runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from executors.worker_preload import told
from slurm.runs import EXAMPLES, OPTIONS, assert_same, program
from slurm.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.timeout(900)


def jobs(slurm: SlurmCluster, states: str) -> list[str]:
    """Numbers of the workers' jobs in some states."""
    return slurm.call("squeue", "-h", "-t", states, "-n", "nucseg-batch", "-o", "%A").split()


def test_workers_that_are_killed_cost_nothing_but_time(
    slurm: SlurmCluster, images: Path, reference: Path, tmp_path: Path
) -> None:
    """Workers are jobs like others, and jobs die; new ones take their places."""
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue, of the extra hpc")
    command = [EXAMPLES / "slurm_dask.sh", images, "out.zarr", 2, *OPTIONS]
    begun, hold = tmp_path / "out.run" / "begun", tmp_path / "hold"
    hold.touch()  # so that the first workers do not get everything done before they are killed
    with open(tmp_path / "told.txt", "w+") as output:
        hands_out = subprocess.Popen(
            [str(part) for part in command],
            cwd=tmp_path,
            env=told(hold_begun=str(hold)) | slurm.environment | program(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            slurm.wait(lambda: any(begun.glob("*")) or hands_out.poll() is not None, "work to begin", every=0.02)
            killed = jobs(slurm, "running")
            for job in killed:
                slurm.call("scancel", "--signal=KILL", "--full", job)
            slurm.wait(lambda: not set(killed) & set(jobs(slurm, "running")), "the workers to die")
            hold.unlink()
            code = hands_out.wait(600)
        finally:
            hands_out.kill()
        output.seek(0)
        lines = output.read()
    assert code == 0, f"{lines}\n{slurm.report()}"
    assert killed
    assert len(jobs(slurm, "all")) > 2, f"nobody was sent in again: {lines}"
    assert_same(tmp_path / "out.zarr", reference)
    slurm.wait(lambda: not jobs(slurm, "pending,running,completing"), "all workers to be gone")
