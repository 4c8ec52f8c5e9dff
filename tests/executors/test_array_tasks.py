"""The network itself on lazy arrays, in this process and in those of a cluster: the masks of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from distributed import Client, LocalCluster
from numpy.typing import NDArray
from pictures import disks, fluorescence

import nucseg_batch

SHAPE = (313, 421)
CHUNKS = ((3, 40, 1, 90, 64, 64, 51), (100, 1, 7, 200, 113))
KINDS: dict[str, dict[str, Any]] = {
    "regions, at the size that is estimated": {"region": 128},
    "regions, enlarged": {"region": 128, "diameter": 15},
    "whole": {},
}
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint16]:
    """Nuclei all over a plane, many of them on borders of regions; some touch."""
    rng = np.random.default_rng(5)
    centres = [(int(rng.integers(0, SHAPE[0])), int(rng.integers(0, SHAPE[1]))) for _ in range(60)]
    return fluorescence(disks(SHAPE, centres, 12), seed=3).astype(np.uint16) * 16


@pytest.fixture(scope="module")
def masks(pixels: NDArray[np.uint16], tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.uint32]]:
    """What `segment` makes of it, by kind."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "in").mkdir()
    tifffile.imwrite(folder / "in" / "a.tif", pixels)
    found = {}
    for number, (kind, options) in enumerate(KINDS.items()):
        nucseg_batch.segment(folder / "in", folder / f"{number}.zarr", **options)
        found[kind] = nucseg_batch.open_masks(folder / f"{number}.zarr")["a.tif"]
    assert all(one.max() > 40 for one in found.values())
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunks", [-1, CHUNKS], ids=["one block", "7 x 5 blocks"])
def test_the_network_finds_what_it_finds_in_a_run(
    pixels: NDArray[np.uint16], masks: dict[str, NDArray[np.uint32]], kind: str, chunks: Any
) -> None:
    """The same labels if they are dense, and one label for each nucleus if not."""
    x = da.from_array(pixels, chunks=chunks)
    options = KINDS[kind]
    dense = nucseg_batch.segment_array(x, dense=True, **options).compute()
    np.testing.assert_array_equal(dense, masks[kind])
    sparse = nucseg_batch.segment_array(x, **options).compute()
    pairs = set(zip(sparse.ravel().tolist(), dense.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == dense.max() + 1


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two processes with a thread each."""
    place: dict[str, Any] = {"dashboard_address": None, "silence_logs": logging.CRITICAL}
    with LocalCluster(n_workers=2, threads_per_worker=1, **place) as cluster, Client(cluster) as client:
        yield client


def loaded() -> int:
    """How many models the process of a worker has."""
    from nucseg_batch.executors import array_tasks

    return len(array_tasks._predictors)


def test_two_workers_give_the_masks_of_one_process(
    client: Client, pixels: NDArray[np.uint16], masks: dict[str, NDArray[np.uint32]], tmp_path: Path
) -> None:
    """Of a dask array, a zarr array and blocks that the cluster holds; each loads one model."""
    kind = "regions, at the size that is estimated"
    stored = zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, chunks=(50, 70), dtype="uint16")
    stored[:] = pixels
    x = da.from_array(pixels, chunks=CHUNKS)
    for array in (x, stored, x.persist() + np.uint16(0)):
        labels = nucseg_batch.segment_array(array, dense=True, **KINDS[kind])
        np.testing.assert_array_equal(labels.compute(), masks[kind])
    assert set(client.run(loaded).values()) == {1}
