"""Rings and cells are exported as label images wherever nuclei are, and are those of the store, pixel by pixel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from exporting import exported
from PIL import Image
from small_runs import SmallRun, mosaic, picture, small_run
from zarr_examples import write_plate

from nucseg_batch import open_masks
from nucseg_batch.executors import job, local
from nucseg_batch.results.export.task import ExportTask
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.spacing import Spacing

LABELS = ("nuclei", "rings", "cells")


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Rings and cells of a small plane, of one done by regions, of two time points and of none."""
    run = small_run(tmp_path, monkeypatch, ring="1,2", expand="3")
    run.put("a_A01.tif", picture(7))
    run.put("a_A02.tif", mosaic((150, 170)))
    run.put("a_B02.tif", picture(0))
    tifffile.imwrite(
        run.folder / "a_B01.tif", np.array([picture(2), picture(4)]), imagej=True, metadata={"axes": "TYX"}
    )
    run.segment()
    return run


def top(folder: Path, kind: str, label: str) -> Path:
    return folder / (kind if label == "nuclei" else f"{kind}-{label}")


@pytest.mark.parametrize("folder", [True, False])
def test_label_images_are_those_of_the_store(around: SmallRun, tmp_path: Path, folder: bool) -> None:
    """In a stack, plane by plane, and in one place per format; also where the run folder is gone."""
    if not folder:
        shutil.rmtree(tmp_path / "out.run")
    result = exported(around, tmp_path / "to", "tiff", "png", "ngio")
    assert {kind: one.written for kind, one in result.formats.items()} == {"tiff": 12, "png": 15, "ngio": 4}
    for label in LABELS:
        masks = open_masks(around.store, label=label)
        for name in ("a_A01", "a_A02", "a_B01", "a_B02"):
            mask = np.asarray(masks[f"{name}.tif"])
            assert mask.any() == (name != "a_B02")
            np.testing.assert_array_equal(tifffile.imread(top(tmp_path / "to", "tiff", label) / f"{name}.tif"), mask)
            for t in range(2) if mask.ndim == 3 else [None]:
                plane, suffix = (mask, "") if t is None else (mask[t], f"_t{t:03d}")
                with Image.open(top(tmp_path / "to", "png", label) / f"{name}{suffix}.png") as picture:
                    np.testing.assert_array_equal(np.asarray(picture), plane)
            stored = zarr.open_group(tmp_path / "to" / "ngio" / f"{name}.zarr", mode="r")
            assert stored["labels"].attrs["ome"]["labels"] == list(LABELS)
            np.testing.assert_array_equal(stored[f"labels/{label}/0"][:], mask)
    again = exported(around, tmp_path / "to", "tiff", "png", "ngio")
    assert {kind: one.kept for kind, one in again.formats.items()} == {"tiff": 12, "png": 15, "ngio": 4}


@pytest.fixture
def linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Two time points of five slices, three large slices of which the first shows a half only, and a plane."""
    run = small_run(tmp_path, monkeypatch, link="z", ring="1,2")
    movie = np.array([[picture(count) for count in counts] for counts in ((3, 4, 2, 3, 1), (5, 5, 0, 5, 5))])
    tifffile.imwrite(run.folder / "movie.tif", movie, imagej=True, metadata={"axes": "TZYX"})
    stack = np.stack([mosaic((70, 90))] * 3)
    stack[0, :35] = stack.min()
    tifffile.imwrite(run.folder / "deep.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    run.put("plane.tif", picture(2))
    run.segment()
    return run


@pytest.mark.parametrize("folder", [True, False])
def test_volumes_of_stacks_are_those_of_the_store(linked: SmallRun, tmp_path: Path, folder: bool) -> None:
    """Stacks in TIFF and OME-Zarr; a picture of a slice would not tell a volume from a nucleus."""
    if not folder:
        shutil.rmtree(tmp_path / "out.run")
    to = tmp_path / "to"
    exported(linked, to, "tiff", "png", "ngio")
    assert sorted(path.name for path in (to / "tiff-volumes").iterdir()) == ["deep.tif", "movie.tif"]
    assert not (to / "png-volumes").exists()
    masks = open_masks(linked.store, label="volumes")
    for name in ("deep", "movie"):
        volumes = np.asarray(masks[f"{name}.tif"])
        nuclei = tifffile.imread(to / "tiff" / f"{name}.tif")
        assert np.array_equal(volumes > 0, nuclei > 0)
        assert name != "deep" or (volumes != nuclei).any()
        np.testing.assert_array_equal(tifffile.imread(to / "tiff-volumes" / f"{name}.tif"), volumes)
        stored = zarr.open_group(to / "ngio" / f"{name}.zarr", mode="r")
        assert stored["labels"].attrs["ome"]["labels"] == ["nuclei", "rings", "volumes"]
        np.testing.assert_array_equal(stored["labels/volumes/0"][:], volumes)
    plane = zarr.open_group(to / "ngio" / "plane.zarr", mode="r")
    assert plane["labels"].attrs["ome"]["labels"] == ["nuclei", "rings"]


def test_the_type_of_a_stack_has_room_for_volumes_of_all_its_slices(linked: SmallRun, tmp_path: Path) -> None:
    """A stack can have more volumes than any of its slices has nuclei."""
    with FinishedRun(linked.store) as run:
        rows = tuple(run.planes("movie.tif"))
    tasks = [ExportTask(tmp_path / "a.tif", rows, Spacing(), {}, label) for label in ("nuclei", "rings", "volumes")]
    assert [task.most for task in tasks] == [5, 5, 20]


def test_volumes_of_a_stack_that_is_not_done_are_left_out(linked: SmallRun, tmp_path: Path) -> None:
    """Its nuclei are exported as far as they are; volumes of an earlier call are deleted."""
    exported(linked, tmp_path / "to", "tiff")
    unit = next(one for one in linked.units if one.label_array.images[0].key == "movie.tif")
    linked.journal.retract(unit)
    linked.finish()
    result = exported(linked, tmp_path / "to", "tiff").formats["tiff"]
    assert sorted(path.name for path in (tmp_path / "to" / "tiff-volumes").iterdir()) == ["deep.tif"]
    assert result.removed >= 1


def test_rings_of_a_run_that_has_none_any_more_are_deleted(around: SmallRun, tmp_path: Path) -> None:
    """They would be taken for those of the new nuclei."""
    exported(around, tmp_path / "to", "tiff")
    around.with_settings(ring=None)
    local.run(
        job.prepare(around.folder, around.store, None, around.settings, around.notes, overwrite=True), around.notes
    )
    result = exported(around, tmp_path / "to", "tiff").formats["tiff"]
    assert (result.written, result.removed) == (8, 4)
    assert sorted(path.name for path in (tmp_path / "to").iterdir() if path.is_dir()) == [
        "tiff",
        "tiff-cells",
        "tiff-rings",
    ]
    assert not list((tmp_path / "to" / "tiff-rings").iterdir())


def test_a_label_image_of_another_program_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place, labels called `cells` may be the user's own."""
    run = small_run(tmp_path, monkeypatch)
    write_plate(run.folder, ["A/1", "A/2", "B/2"], 1, picture(5).astype(np.uint16), "yx")
    run.segment()
    shutil.copytree(run.store / "A/1/0/labels/nuclei", run.store / "A/1/0/labels/cells")
    exported(run, tmp_path / "to", "tiff")
    with FinishedRun(run.store) as finished:
        assert finished.labels == ("nuclei",)
    assert not (tmp_path / "to" / "tiff-cells").exists()


@pytest.mark.filterwarnings("ignore")  # of libraries below spatialdata
def test_spatialdata_has_rings_cells_plates_and_wells(around: SmallRun, tmp_path: Path) -> None:
    """The table annotates nuclei only."""
    spatialdata = pytest.importorskip("spatialdata", reason="spatialdata is too large for the extra `test`")
    exported(around, tmp_path / "to", "spatialdata")
    for name in ("a_A01", "a_A02"):
        data = spatialdata.read_zarr(tmp_path / "to" / "spatialdata" / f"{name}.zarr")
        assert sorted(data.labels) == sorted(LABELS)
        for label in LABELS:
            mask = np.asarray(open_masks(around.store, label=label)[f"{name}.tif"])
            np.testing.assert_array_equal(np.asarray(data[label]), mask)
        obs = data.tables["table"].obs
        assert (set(obs["plate"]), set(obs["well"])) == ({"a"}, {name[-3:]})
        assert set(obs["region"]) == {"nuclei"}
    stack = spatialdata.read_zarr(tmp_path / "to" / "spatialdata" / "a_B01.zarr")
    assert sorted(stack.labels) == sorted(f"{label}_t{t:03d}" for label in LABELS for t in range(2))
    assert set(stack.tables["table"].obs["region"]) == {"nuclei_t000", "nuclei_t001"}


@pytest.mark.filterwarnings("ignore")  # of libraries below spatialdata
@pytest.mark.parametrize("plate", [True, False])
def test_the_recipe_for_all_spatialdata_stores_reads_plates_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plate: bool
) -> None:
    """Fields of a plate lie in folders of rows and columns, and are all called 0."""
    pytest.importorskip("spatialdata", reason="spatialdata is too large for the extra `test`")
    run = small_run(tmp_path, monkeypatch)
    if plate:
        write_plate(run.folder, ["A/1", "A/2", "B/2"], 1, picture(5).astype(np.uint16), "yx")
    else:
        for name in ("one", "two"):
            run.put(f"{name}.tif", picture(5))
    run.segment()
    exported(run, tmp_path / "exported", "spatialdata")
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    recipe = next(block for block in page.split("```python\n") if "spatialdata.concatenate(" in block)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(recipe.partition("```")[0], found)
    names = ("A_1_0", "A_2_0", "B_2_0") if plate else ("one", "two")
    assert sorted(found["data"].labels) == [f"nuclei-{name}" for name in names]
    assert len(found["data"].tables["table"]) == 5 * len(names)
