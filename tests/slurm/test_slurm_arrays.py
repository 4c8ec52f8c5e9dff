"""Lazy labels are computed by workers that are jobs of Slurm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from slurm.runs import LARGE, OPTIONS, program, run
from slurm.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.timeout(900)
PROGRAM = """
import sys
import numpy as np
from dask_jobqueue import SLURMCluster
from distributed import Client
import nucseg_batch

images, store = sys.argv[1:]
masks = nucseg_batch.open_masks(store)
large = max(masks, key=lambda name: masks[name].size)
x = nucseg_batch.open_images(images, region=REGION)[large]
options = {"cores": 2, "processes": 1, "memory": "4GiB", "log_directory": "logs", "job_name": "nucseg-arrays"}
with SLURMCluster(**options, scheduler_options={"dashboard_address": ":0"}) as cluster, Client(cluster) as client:
    cluster.scale(jobs=2)
    client.wait_for_workers(2, timeout=300)
    labels = nucseg_batch.segment_array(x, region=REGION, diameter=DIAMETER, dense=True).compute()
assert labels.shape == (1, 1, *SHAPE), labels.shape
np.testing.assert_array_equal(labels[0, 0], masks[large])
print(labels.max(), "nuclei")
"""


def test_jobs_of_slurm_give_the_masks_of_a_run(
    slurm: SlurmCluster, images: Path, reference: Path, tmp_path: Path
) -> None:
    """Each job loads the model once, and reads the files itself."""
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue, of the extra hpc")
    values = dict(zip(("REGION", "DIAMETER"), (OPTIONS[1], OPTIONS[3]), strict=True)) | {"SHAPE": LARGE}
    text = PROGRAM
    for name, value in values.items():
        text = text.replace(name, repr(value))
    script = tmp_path / "arrays.py"
    script.write_text(f"if __name__ == '__main__':\n    {text.strip().replace(chr(10), chr(10) + '    ')}\n")
    printed = run(
        "env", "-C", tmp_path, sys.executable, script, images, reference, environment=slurm.environment | program()
    )
    assert "nuclei" in printed
    slurm.wait(lambda: not slurm.call("squeue", "-h", "-n", "nucseg-arrays"), "all workers to be gone")
