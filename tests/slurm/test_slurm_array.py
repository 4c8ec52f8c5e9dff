"""The example of a job array is run as a user runs it, on a cluster where everything goes wrong."""

from __future__ import annotations

import fcntl
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from slurm.processes import alive, is_locked
from slurm.runs import EXAMPLES, OPTIONS, assert_same, held, program, program_of, root_locked, run
from slurm.slurm_cluster import PATIENCE, SlurmCluster

pytestmark = pytest.mark.timeout(900)


def lock_of(folder: Path, share: int) -> Path:
    return folder / "out.run" / "locks" / f"share-{share:05d}.lock"


def submit_array(slurm: SlurmCluster, images: Path, folder: Path, shares: int) -> tuple[str, str]:
    """Calls the example; returns the numbers of the array and of the job that finishes, which wait to be released."""
    told = subprocess.run(
        [EXAMPLES / "slurm_array.sh", images, "out.zarr", str(shares), *map(str, OPTIONS)],
        cwd=folder,
        env=slurm.environment | program() | {"SBATCH_HOLD": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    array, last = re.search(r"array (\d+), .* job (\d+)", told.stdout).groups()
    return array, last


def test_an_array_survives_a_signal_a_lost_node_and_a_memory_kill(
    slurm: SlurmCluster, images: Path, reference: Path, tmp_path: Path
) -> None:
    """Four shares, three mishaps, at a site that requeues nobody for his exit code: the bytes of a quiet run."""
    with slurm.without_requeue_exit():
        array, last = submit_array(slurm, images, tmp_path, 4)
        stopped, lost, quiet, hungry = (f"{array}_{share}" for share in range(4))
        slurm.call("scontrol", "update", f"jobid={hungry}", "MinMemoryNode=150")

        with ExitStack() as meanwhile:
            with root_locked(tmp_path / "out.zarr"):  # neither share can be done before this has happened
                slurm.release(array, last)
                slurm.wait(lambda: is_locked(lock_of(tmp_path, 0)), "share 0 to begin", job=stopped)
                slurm.signal(stopped, "USR1")
                slurm.wait(lambda: slurm.task(stopped).restarts == 1, "share 0 to be stopped")
                slurm.wait(lambda: is_locked(lock_of(tmp_path, 1)), "share 1 to begin", job=lost)
                node, first = slurm.task(lost).node, program_of(slurm, lost)
                slurm.lose_node(node)
                meanwhile.enter_context(held(first))  # not before: who is stopped as its parents die gets HUP
            # share 1's first process lives on and holds the share: the second copy must leave it alone
            slurm.requeued(stopped)
            slurm.requeued(lost)
            slurm.wait(lambda: slurm.task(lost).restarts == 2, "the second copy of share 1 to leave")
        slurm.wait(lambda: not alive(first), "the first copy of share 1 to end by itself")
        slurm.return_node(node)
        slurm.requeued(lost, times=2)

        tasks = {task.job: task for task in slurm.ended(array)}
        logs = {job: slurm.log(job, tmp_path) for job in tasks}
        assert (tasks[stopped].code, tasks[stopped].restarts) == (0, 1), logs[stopped]
        assert (tasks[lost].code, tasks[lost].restarts) == (0, 2), logs[lost]
        assert re.search(rf"in use by .*\b{first}\b", logs[lost]), logs[lost]
        assert (tasks[quiet].code, tasks[quiet].restarts) == (0, 0), logs[quiet]
        assert (tasks[hungry].state, tasks[hungry].killed_by) == ("FAILED", 9), logs[hungry]

        assert [task.code for task in slurm.ended(last)] == [3], slurm.log(last, tmp_path)
        again = slurm.submit(
            "--array=3", EXAMPLES / "slurm_share.sbatch", "out.zarr", folder=tmp_path, environment=program()
        )
        assert [task.code for task in slurm.ended(again)] == [0], slurm.log(f"{again}_3", tmp_path)
    assert_same(tmp_path / "out.zarr", reference)


def test_a_share_that_is_never_free_gives_up_in_the_end(slurm: SlurmCluster, images: Path, tmp_path: Path) -> None:
    """A task that requeues itself for ever fills the queue and nobody is told."""
    run("nucseg-batch", "plan", images, tmp_path / "out.zarr", "--shares", 2, *OPTIONS)
    lock_of(tmp_path, 1).parent.mkdir(exist_ok=True)
    with open(lock_of(tmp_path, 1), "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        job = slurm.submit(
            "--array=1",
            EXAMPLES / "slurm_share.sbatch",
            "out.zarr",
            folder=tmp_path,
            environment=program() | {"NUCSEG_RESTARTS": "1"},
        )
        slurm.requeued(f"{job}_1")
        (task,) = slurm.ended(job)
    assert (task.state, task.code, task.restarts) == ("FAILED", 1, 1)
    assert "share 1: started again 1 times, giving up" in slurm.log(task.job, tmp_path)


def test_a_task_that_a_person_cancels_stays_cancelled(slurm: SlurmCluster, images: Path, tmp_path: Path) -> None:
    """The script puts itself into the queue again, but not against the will of its owner."""
    run("nucseg-batch", "plan", images, tmp_path / "out.zarr", "--shares", 2, *OPTIONS)
    with root_locked(tmp_path / "out.zarr"):
        job = slurm.submit(
            "--array=0", EXAMPLES / "slurm_share.sbatch", "out.zarr", folder=tmp_path, environment=program()
        )
        slurm.wait(lambda: is_locked(lock_of(tmp_path, 0)), "the share to begin", job=f"{job}_0")
        slurm.call("scancel", job)
        slurm.ended(job)
    (task,) = slurm.ended(job)
    assert (task.state, task.restarts) == ("CANCELLED", 0), slurm.log(task.job, tmp_path)


def test_more_shares_than_the_cluster_allows_are_refused_before_anything_is_planned(
    slurm: SlurmCluster, images: Path, tmp_path: Path
) -> None:
    """Else sbatch would only say that the array is invalid, after minutes of planning."""
    told = run(EXAMPLES / "slurm_array.sh", images, tmp_path / "out.zarr", 102, environment=slurm.environment, code=2)
    assert "at most 101 tasks here (MaxArraySize)" in told
    assert list(tmp_path.iterdir()) == []
