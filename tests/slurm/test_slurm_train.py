"""The training example is run as a user runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from pictures import annotated_folder
from slurm.runs import EXAMPLES, program
from slurm.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.timeout(900)


def test_a_training_whose_time_runs_out_goes_on_where_it_was(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Nobody has to be there at night; passes that were finished are not done again."""
    annotated_folder(tmp_path / "data", 3)
    size = ["--epochs", 2, "--steps", 2, "--size-steps", 2, "--batch-size", 1, "--crop", 64, "--precision", "float32"]
    command = [EXAMPLES / "slurm_train.sbatch", "data", "m.keras", *size]
    hold = tmp_path / "hold"
    hold.touch()  # after the first pass, so that the signal comes before the second
    held = {"PYTHONPATH": str(Path(__file__).parent / "hold"), "NUCSEG_TEST_HOLD": str(hold)}
    job = slurm.submit(*command, folder=tmp_path, environment=program() | held)
    state = tmp_path / "m.resume.json"
    slurm.wait(lambda: state.exists() and '"epochs_done": 0' not in state.read_text(), "a pass to end", job=job)
    slurm.signal(job, "USR1")
    slurm.wait(lambda: slurm.task(job).restarts == 1, "the training to be stopped")
    hold.unlink()
    slurm.requeued(job)
    (task,) = slurm.ended(job)
    log = slurm.log(job, tmp_path)
    assert (task.state, task.code, task.restarts) == ("COMPLETED", 0, 1), log
    assert "continuing after" in log
    with open(tmp_path / "m.history.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]

    job = slurm.submit(*command, folder=tmp_path, environment=program())
    assert [task.code for task in slurm.ended(job)] == [0]
    assert "m.keras is there: nothing to do" in slurm.log(job, tmp_path)
