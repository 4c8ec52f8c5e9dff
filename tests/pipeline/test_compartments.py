"""Rings and cells of whole runs: as the functions of arrays give them for the whole plane, whole or by regions."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.arrays.compartment_sums import CompartmentSums, measured_compartments
from nucseg_batch.arrays.compartments import expanded, rings
from nucseg_batch.columns import channel_columns, compartment_columns, names
from nucseg_batch.errors import InputMissingError, UsageError
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.files.run_layout import RunLayout

RECORDS = compartment_columns(ring=True, cell=True)


def labels_of(run: SmallRun, key: str) -> dict[str, NDArray[np.uint32]]:
    return {label: open_masks(run.store, label=label)[key] for label in ("nuclei", "rings", "cells")}


def rows_of(run: SmallRun, key: str) -> list[dict[str, str]]:
    with open(RunLayout(run.store).tables["nuclei"], newline="") as file:
        return [row for row in csv.DictReader(file) if row["image"] == key]


def texts(values: NDArray[np.generic]) -> list[str]:
    """As the tables have them."""
    return ["" if value != value else f"{value:.7g}" if values.dtype.kind == "f" else str(value) for value in values]


def assert_compartments(run: SmallRun, key: str, channels: dict[str, NDArray[np.generic]], reach: float = 4.0) -> None:
    """Label images and columns of an image, against the functions of arrays on its whole mask."""
    found, rows = labels_of(run, key), rows_of(run, key)
    nuclei = found["nuclei"]
    np.testing.assert_array_equal(found["rings"], rings(nuclei, 1, reach - 1))
    np.testing.assert_array_equal(found["cells"], expanded(nuclei, reach))
    assert found["rings"].any()
    ids = np.array([int(row["label"]) for row in rows])
    assert ids.tolist() == list(range(1, int(nuclei.max()) + 1))
    sums = {"ring": CompartmentSums.of(found["rings"], channels), "cell": CompartmentSums.of(found["cells"], channels)}
    count = np.bincount(nuclei.ravel())[1:]
    means = {
        f"intensity_mean-{name}" if name else "intensity_mean": np.bincount(nuclei.ravel(), plane.ravel())[1:] / count
        for name, plane in channels.items()
    }
    expected = measured_compartments({"label": ids, **means}, sums)
    columns = names((*RECORDS, *channel_columns([name for name in channels if name], RECORDS)))
    assert set(columns) == expected.keys()
    for name in columns:
        assert [row[name] for row in rows] == texts(expected[name]), name


def test_a_plane_by_regions_has_the_compartments_of_the_whole_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nuclei lie on borders of regions, and rings reach from one region into the next; ties are many."""
    pixels = mosaic((100, 120), step=11)
    run = small_run(tmp_path, monkeypatch, ring="1,3", expand="4")
    run.put("large.tif", pixels)
    run.put("small.tif", pixels[:40, :50])
    run.segment()
    assert [unit.label_array.regional for unit in run.units] == [False, True, True, True, True]
    assert_compartments(run, "large.tif", {"": pixels})
    assert_compartments(run, "small.tif", {"": pixels[:40, :50]})
    assert run.verify().damage == ()


def test_a_ring_wider_than_a_region_is_that_of_the_whole_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The margin around a region may contain whole regions beyond its neighbours."""
    pixels = mosaic((200, 220), step=90)
    run = small_run(tmp_path, monkeypatch, ring="1,69", expand="70")
    run.put("large.tif", pixels)
    run.segment()
    assert_compartments(run, "large.tif", {"": pixels}, 70)


def test_every_channel_is_measured_whole_and_by_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the columns of nuclei; units with several planes, too."""
    run = small_run(tmp_path, monkeypatch, ring="1,3", expand="4", channel="0")
    rng = np.random.default_rng(1)
    images = {}
    for name, shape in (("a.tif", (40, 50)), ("b.tif", (40, 50)), ("large.tif", (100, 120))):
        pixels = np.stack([mosaic(shape), rng.integers(0, 200, shape).astype(np.uint8)])
        tifffile.imwrite(run.folder / name, pixels, imagej=True, metadata={"axes": "CYX", "Labels": ["D", "G"]})
        images[name] = pixels
    run.segment()
    for key, pixels in images.items():
        assert_compartments(run, key, {"": pixels[0], "D": pixels[0], "G": pixels[1]})


def test_default_runs_have_nuclei_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(3))
    run.segment()
    assert [path.name for path in run.store.glob("*/labels/*") if path.is_dir()] == ["nuclei"]
    assert not any(name.startswith(("ring", "cell", "intensity_ratio")) for name in rows_of(run, "a.tif")[0])
    with pytest.raises(InputMissingError, match=r"no label image 'rings'.*--ring"):
        open_masks(run.store, label="rings")


@pytest.mark.parametrize("image_size", [None, 0.5])
def test_micrometres_are_pixels_of_each_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_size: float | None
) -> None:
    """From the file, or for all images from --pixel-size."""
    given = {} if image_size else {"pixel_size": 0.5}
    run = small_run(tmp_path, monkeypatch, ring="0.5,1.5um", expand="2um", **given)
    pixels = picture(5)
    more = {"imagej": True, "resolution": (2, 2), "metadata": {"unit": "um"}} if image_size else {}
    tifffile.imwrite(run.folder / "a.tif", pixels, **more)
    run.segment()
    assert_compartments(run, "a.tif", {"": pixels})


def test_micrometres_without_a_pixel_size_are_refused_with_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written; and so is what a pixel size makes too much."""
    run = small_run(tmp_path, monkeypatch, ring="0.5,2um")
    run.put("a.tif", picture(5))
    with pytest.raises(UsageError, match=r"^--ring is in micrometres, but a\.tif does not say .*--pixel-size UM"):
        run.prepared()
    run.with_settings(pixel_size=0.01, ring=None, expand="20um")
    with pytest.raises(UsageError, match=r"^--expand reaches 2000 pixels from the nuclei of a\.tif"):
        run.prepared()
    assert not run.store.exists()


def test_shares_write_the_compartments_that_one_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a large plane may be divided among them, which is joined by whoever comes last."""
    runs = []
    for shares in (1, 3):
        run = small_run(tmp_path / str(shares), monkeypatch, ring="1,3", expand="4", with_images=True)
        run.put("large.tif", mosaic((100, 120), step=11))
        for number in range(3):
            run.put(f"{number}.tif", picture(number + 2))
        for share in range(shares):
            run.segment(shares=shares, share=share)
        run.finish()
        runs.append(run)
    assert runs[0].results() == runs[1].results()
    assert_compartments(runs[1], "large.tif", {"": mosaic((100, 120), step=11)})


def test_a_large_plane_that_cannot_be_read_again_fails_and_is_joined_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pixels are needed once more for the columns; nothing of it is lost."""
    run = small_run(tmp_path, monkeypatch, ring="1,3")
    path = run.put("large.tif", mosaic())
    run.put("small.tif", picture(4))
    run.segment()
    before = run.everything()
    (large,) = run.plan.large_planes()
    run.journal.retract_plane(large)
    path.rename(tmp_path / "away.tif")
    outcome = run.finish()
    assert [(one.image, one.stage) for one in outcome.failures] == [("large.tif", "read")]
    assert outcome.images == 1
    (tmp_path / "away.tif").rename(path)
    assert not run.segment(retry_failed=True).failures
    assert run.everything() == before
