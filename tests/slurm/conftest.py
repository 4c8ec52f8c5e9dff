"""A real Slurm for the tests of this folder; where it is not installed they skip and say so."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm.runs import OPTIONS, collection, run
from slurm.slurm_cluster import SlurmCluster, missing


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A running Slurm of two nodes, shared by all tests; each must leave it idle."""
    if (program := missing()) is not None:
        pytest.skip(f"needs Slurm: {program} is not installed")
    # not in pytest's own folder: names of sockets may have 107 letters only
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        cluster = SlurmCluster(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection that all runs of these tests segment."""
    return collection(tmp_path_factory.mktemp("collection") / "in")


@pytest.fixture(scope="session")
def reference(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of one process that nobody disturbed: what every other run must write to the last bit."""
    store = tmp_path_factory.mktemp("reference") / "out.zarr"
    run("nucseg-batch", "segment", images, store, *OPTIONS)
    return store
