"""What can be known of the examples for schedulers without running them for long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from slurm.runs import EXAMPLES, OPTIONS, assert_same, run
from slurm.slurm_cluster import SlurmCluster

SCRIPTS = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".sh", ".sbatch", ".pbs"))
FOR_SLURM = [path for path in SCRIPTS if "#SBATCH" in path.read_text()]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound_and_says_how_it_is_called(path: Path) -> None:
    """A script that fails after a day in the queue, or goes on after an error, is worse than none."""
    run("bash", "-n", path)
    text = path.read_text()
    assert text.startswith("#!/bin/bash\n# ")
    assert "\nset -euo pipefail\n" in text
    assert os.access(path, os.X_OK)
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("path", FOR_SLURM, ids=lambda path: path.name)
def test_slurm_takes_the_options_of_a_script(slurm: SlurmCluster, path: Path) -> None:
    """Nothing is run: Slurm only says whether and when it would."""
    run("sbatch", "--test-only", path, environment=slurm.environment)


def test_the_pbs_array_does_its_share(images: Path, reference: Path, tmp_path: Path) -> None:
    """PBS itself is not at hand: its variables are set as PBS Pro and Torque set them."""
    run("nucseg-batch", "plan", images, tmp_path / "out.zarr", "--shares", 2, *OPTIONS)
    for index in ({"PBS_ARRAY_INDEX": "0"}, {"PBS_ARRAYID": "1"}):
        pbs = {"PBS_O_WORKDIR": str(tmp_path), "OUT": "out.zarr"} | index
        run("bash", EXAMPLES / "pbs_array.pbs", environment=pbs)
    run("nucseg-batch", "finish", tmp_path / "out.zarr")
    assert_same(tmp_path / "out.zarr", reference)


def test_the_pbs_array_says_what_is_missing(tmp_path: Path) -> None:
    """`qsub` without -J or -v is the mistake that everybody makes once."""
    bare = {"PBS_O_WORKDIR": str(tmp_path)}
    assert "qsub -J" in run("bash", EXAMPLES / "pbs_array.pbs", environment=bare, code=1)
    bare |= {"PBS_ARRAY_INDEX": "0"}
    assert "qsub -v OUT=" in run("bash", EXAMPLES / "pbs_array.pbs", environment=bare, code=1)
