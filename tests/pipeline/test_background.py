"""`--measure background` in whole runs: intensities above that of the plane and of rings, whole or by regions."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from small_runs import SmallRun, mosaic, small_run

from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.pipeline.background import last_regions

SHAPE = (150, 190)


def rows_of(run: SmallRun) -> list[dict[str, str]]:
    with open(RunLayout(run.store).tables["nuclei"], newline="") as file:
        return list(csv.DictReader(file))


def two_channels(place: Path, monkeypatch: pytest.MonkeyPatch, region: int, dtype: str = "uint16") -> SmallRun:
    """A run over one image of nuclei and of noise with a slope."""
    run = small_run(place, monkeypatch, region=region, ring="1,3", measure="background", channel="DAPI")
    random = np.random.default_rng(5)
    gfp = random.integers(0, 60, SHAPE) + np.arange(SHAPE[1])
    dapi = np.minimum(mosaic(SHAPE, step=11), 140) + random.integers(0, 40, SHAPE)
    about = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}}
    planes = (np.stack([gfp, dapi]) * (1.0 if dtype == "uint16" else 0.7)).astype(dtype)
    tifffile.imwrite(run.folder / "a.ome.tif", planes, metadata=about, ome=True)
    run.segment()
    return run


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("region", [256, 64])
def test_columns_are_those_of_numpy_on_the_whole_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, region: int, dtype: str
) -> None:
    """Rings of many nuclei lie in two or four regions; cells of the table are compared as they are written."""
    run = two_channels(tmp_path, monkeypatch, region, dtype)
    assert [unit.label_array.regional for unit in run.units] == [region == 64] * (9 if region == 64 else 1)
    gfp, dapi = tifffile.imread(run.folder / "a.ome.tif")
    nuclei, rings = (open_masks(run.store, label=label)["a.ome.tif"] for label in ("nuclei", "rings"))
    rows = rows_of(run)
    assert [int(row["label"]) for row in rows] == list(range(1, int(nuclei.max()) + 1))
    assert len(rows) > 150
    for suffix, plane in (("", dapi), ("-DAPI", dapi), ("-GFP", gfp)):
        level = np.median(plane[nuclei == 0])
        for row in rows:
            label = int(row["label"])
            inside, around = plane[nuclei == label].astype(float), np.median(plane[rings == label].astype(float))
            expected = {
                "background_intensity_median": level,
                "corrected_intensity_mean": inside.mean() - level,
                "corrected_intensity_sum": (inside - level).sum(),
                "ring_intensity_median": around,
                "ring_corrected_intensity_mean": inside.mean() - around,
                "ring_corrected_intensity_sum": (inside - around).sum(),
            }
            # levels of floats are rounded to 16 significant bits
            close = {"rel": 1e-6} if dtype == "uint16" else {"rel": 1e-6, "abs": inside.size * 2**-16 * float(level)}
            for name, value in expected.items():
                assert float(row[name + suffix]) == pytest.approx(float(value), **close), name


def test_a_plane_without_rings_and_one_without_background_have_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path, monkeypatch, measure="corrected_intensity_sum")
    pixels = np.full((30, 41), 20, np.uint8)
    pixels[5:10, 7:13] = 150
    run.put("a.tif", pixels)
    run.put("full.tif", np.full((30, 41), 150, np.uint8))
    run.segment()
    rows = {row["image"]: row for row in rows_of(run)}
    assert rows["a.tif"]["corrected_intensity_sum"] == str(30 * 130)
    assert rows["full.tif"]["corrected_intensity_sum"] == ""
    assert "background_intensity_median" not in rows["a.tif"]
    assert "ring_intensity_median" not in rows["a.tif"]


def test_rings_have_columns_of_the_background_only_if_both_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path, monkeypatch, ring="1,3", measure="shape")
    run.put("a.tif", mosaic((40, 50)))
    run.segment()
    assert not [name for name in rows_of(run)[0] if "corrected" in name or "median" in name]


def test_a_ring_ends_in_the_last_region_that_it_can_reach() -> None:
    """Of a nucleus that two regions saw, in the last that either of them reaches."""
    cores = [(slice(y, y + 10), slice(x, x + 10)) for y in (0, 10, 20) for x in (0, 10, 20)]
    ends: NDArray[np.int64] = np.array([[0, 0], [4, 5], [8, 5], [8, 8], [30, 30], [5, 15]])
    seen = [np.array([0, 1, 2, 3, 5]), np.array([0, 5]), *[np.array([0])] * 6, np.array([4])]
    assert last_regions(ends, seen, cores, 3)[1:].tolist() == [0, 3, 4, 8, 5]
