"""What a viewer is given of a run."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import call
from movies import movie
from numpy.typing import NDArray
from small_runs import SmallRun, mosaic, picture, small_run
from zarr_examples import write_plate

import nucseg_batch
from nucseg_batch.errors import InputMissingError
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.results.layers import RunView, add_layers, view_of
from nucseg_batch.results.run import FinishedRun


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Three images of one shape, a stack of 0.25 micrometres a pixel, and a plane that is done by regions."""
    run = small_run(tmp_path, monkeypatch)
    (run.folder / "plate").mkdir()
    for nuclei, name in enumerate(("plate/a.tif", "plate/b.tif", "c.tif"), start=1):
        run.put(name, picture(nuclei))
    run.put("large.tif", mosaic((150, 170)))
    planes = np.array([[picture(t + z + 1) for z in range(3)] for t in range(2)])
    tifffile.imwrite(
        run.folder / "stack.tif", planes, imagej=True, resolution=(4, 4), metadata={"axes": "TZYX", "unit": "um"}
    )
    run.segment()
    return run


def view(run: SmallRun, image: str | None) -> RunView:
    with FinishedRun(run.store) as finished:
        shown = view_of(finished, image)
        for layer in shown.layers:
            layer.levels[:] = [level.persist() for level in layer.levels]
    return shown


def test_an_image_is_two_layers_with_measurements_of_each_nucleus(run: SmallRun) -> None:
    """Its name is enough where no other image has it."""
    shown = view(run, "b.tif")
    image, labels = shown.layers
    assert (image.kind, image.name, image.rgb) == ("image", "plate/b.tif", False)
    assert (image.levels[0].compute() == picture(2)).all()
    assert (labels.kind, labels.name, labels.levels[0].shape) == ("labels", "nuclei", (40, 50))
    assert labels.features["index"] == labels.features["nucleus"] == [0, 1, 2]
    assert labels.features["area"][1:] == [20, 20]
    with open(run.store.with_suffix(".nuclei.csv"), newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["image"] == "plate/b.tif"]
    assert labels.features["confidence"][1:] == [float(row["confidence"]) for row in rows]
    assert shown.axes == ("y", "x")


def test_a_stack_has_its_axes_and_distances_and_a_number_for_each_nucleus(run: SmallRun) -> None:
    """Numbers begin anew in each plane; in the viewer each nucleus needs its own, to show its own measurements."""
    shown = view(run, "stack.tif")
    labels = shown.layers[1]
    assert shown.axes == ("t", "z", "y", "x")
    assert labels.scale == (1, 1, 0.25, 0.25)
    assert shown.unit == "um"
    assert shown.layers[0].levels[0].shape == labels.levels[0].shape == (2, 3, 40, 50)
    numbers = labels.levels[0].compute()
    total = sum(t + z + 1 for t in range(2) for z in range(3))
    assert sorted(np.unique(numbers)) == list(range(total + 1)) == labels.features["index"]
    last = numbers[1, 2][numbers[1, 2] > 0].max()
    assert labels.features["plane"][last] == "stack.tif (t=1, z=2)"


def test_nuclei_that_are_joined_over_slices_are_a_layer_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose labels are those of volumes.csv; images without slices have none."""
    run = small_run(tmp_path, monkeypatch, link="z")
    stack = np.stack([picture(3 - z) for z in range(3)])
    metadata = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(run.folder / "a.tif", stack, imagej=True, resolution=(2, 2), metadata=metadata)
    run.put("plane.tif", picture(2))
    run.segment()
    nuclei, volumes = view(run, "a.tif").layers[1:]
    assert (volumes.kind, volumes.name, volumes.scale) == ("labels", "volumes", (2.0, 0.5, 0.5))
    found = volumes.levels[0].compute()
    assert ((found > 0) == (nuclei.levels[0].compute() > 0)).all()
    assert [np.unique(plane).tolist() for plane in found] == [[0, 1, 2, 3], [0, 1, 2], [0, 1]]
    assert (nuclei.visible, volumes.visible) == (False, True)
    assert volumes.features["index"] == volumes.features["label"] == [0, 1, 2, 3]
    assert volumes.features["slices"][1:] == [3, 2, 1]
    assert volumes.features["volume_um3"][1:] == [60 / 2, 40 / 2, 20 / 2]
    assert [layer.name for layer in view(run, "plane.tif").layers] == ["plane.tif", "nuclei"]


def test_volumes_of_time_points_have_numbers_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And their features go with them."""
    run = small_run(tmp_path, monkeypatch, link="z")
    frames = np.array([[picture(2), picture(2)], [picture(0), picture(0)], [picture(3), picture(1)]])
    tifffile.imwrite(run.folder / "a.tif", frames, imagej=True, metadata={"axes": "TZYX"})
    run.segment()
    volumes = view(run, "a.tif").layers[-1]
    found = volumes.levels[0].compute()
    assert [[np.unique(plane).tolist() for plane in frame] for frame in found] == [
        [[0, 1, 2]] * 2, [[0]] * 2, [[0, 3, 4, 5], [0, 3]]
    ]  # fmt: skip
    assert volumes.features["index"] == [0, 1, 2, 3, 4, 5]
    assert volumes.features["label"] == [0, 1, 2, 1, 2, 3]
    assert volumes.features["slices"][1:] == [2, 2, 2, 1, 1]


def movie_run(place: Path, monkeypatch: pytest.MonkeyPatch, frames: NDArray[np.uint8], axes: str) -> SmallRun:
    pytest.importorskip("laptrack")
    run = small_run(place, monkeypatch, link="t", region=512)
    tifffile.imwrite(run.folder / "a.tif", frames, imagej=True, metadata={"axes": axes})
    run.segment()
    return run


def test_a_movie_has_tracks_and_its_nuclei_by_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As napari has them: points of track, time and place, and the mother of each daughter."""
    truth = movie(25, (127, 139), 12, speed=1.0, seed=6)
    run = movie_run(tmp_path, monkeypatch, np.where(truth.tracks > 0, 150, 10).astype(np.uint8), "TYX")
    shown = view(run, "a.tif")
    table = nucseg_batch.read_tracks(run.store, library="pandas")
    ordered = table.sort_values(["track_id", "t"])[["track_id", "t", "centroid-0", "centroid-1"]].to_numpy(float)
    assert shown.tracks is not None
    assert np.array_equal(shown.tracks.points, ordered)
    mothers = table.dropna(subset="parent_track_id")
    assert {(a, b) for a, (b,) in shown.tracks.graph.items()} == set(
        zip(mothers["track_id"], mothers["parent_track_id"], strict=True)
    )
    assert shown.tracks.graph
    nuclei, by_track = shown.layers[1:]
    assert (by_track.name, nuclei.visible, by_track.visible) == ("nuclei by track", False, True)
    labels, tracks = open_masks(run.store)["a.tif"], by_track.levels[0].compute()
    for t in range(25):
        here = table[table["t"] == t]
        assert np.array_equal(tracks[t], np.append(0, here["track_id"]).astype(int)[labels[t]])


def test_tracks_of_slices_have_numbers_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of tracks.csv begin with 1 in each."""
    frames = np.array([[picture(2), picture(0), picture(1)]] * 2)
    shown = view(movie_run(tmp_path, monkeypatch, frames, "TZYX"), "a.tif")
    assert shown.tracks is not None
    assert shown.tracks.points[:, :3].tolist() == [[1, 0, 0], [1, 1, 0], [2, 0, 0], [2, 1, 0], [3, 0, 2], [3, 1, 2]]
    assert shown.layers[-1].levels[0].compute()[1, 2].max() == 3


def test_movies_that_are_not_linked_have_no_tracks(run: SmallRun) -> None:
    assert view(run, "stack.tif").tracks is None


def test_without_a_name_images_of_the_commonest_shape_are_pages(run: SmallRun) -> None:
    """So one turns through a folder; contrast is each image's own."""
    shown = view(run, None)
    image, labels = shown.layers
    assert shown.axes == ("image", "y", "x")
    assert (image.levels[0].shape, image.rgb, image.levels[0].dtype) == ((3, 40, 50, 3), True, np.uint8)
    assert labels.levels[0].shape == (3, 40, 50)
    assert [int((page > 0).any()) and len(np.unique(page)) - 1 for page in labels.levels[0].compute()] == [3, 1, 2]
    assert "showing 3 of 3 images of 40 x 50 pixels" in shown.notes[0]


def test_pixels_are_read_when_they_are_looked_at(run: SmallRun) -> None:
    """Opening a run of a thousand images must not read them."""
    with FinishedRun(run.store) as finished:
        run.reads.clear()
        shown = view_of(finished, None)
        assert len(run.reads) <= 1
        shown.layers[0].levels[0][2].compute()
        assert len(run.reads) <= 2


def test_a_large_plane_has_smaller_levels(run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels have those of the store, pixels have every fourth pixel; sizes fit each other."""
    monkeypatch.setattr("nucseg_batch.results.layers.LONGEST", 60)
    monkeypatch.setattr("nucseg_batch.results.layers.PIECE", 64)
    image, labels = view(run, "large.tif").layers
    assert [level.shape for level in image.levels] == [(150, 170), (38, 43)]
    assert (image.levels[0].compute() == mosaic((150, 170))).all()
    assert labels.levels[0].shape == (150, 170)
    assert image.levels[0].numblocks == (3, 3)


def test_images_of_a_plate_are_shown_by_their_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each field of a plate has an array of its own."""
    run = small_run(tmp_path, monkeypatch)
    write_plate(run.folder, ["A/1", "B/2"], 1, picture(5).astype(np.uint16), "yx")
    run.segment()
    image, labels = view(run, "B/2/0").layers
    assert (image.levels[0].compute() == picture(5)).all()
    assert labels.levels[0].compute().max() == 5
    assert "showing A/1/0" in view(run, None).notes[0]


def test_masks_are_shown_where_the_images_are_gone(run: SmallRun, tmp_path: Path) -> None:
    """And it is said how to have the images, too."""
    run.folder.rename(tmp_path / "moved")
    shown = view(run, "c.tif")
    assert [layer.name for layer in shown.layers] == ["nuclei"]
    assert "--images" in shown.notes[0]


def test_an_image_that_is_not_there_has_a_suggestion(run: SmallRun) -> None:
    """Names are long, and typed by hand."""
    with FinishedRun(run.store) as finished:
        with pytest.raises(InputMissingError, match=r"no such image. Did you mean plate/a.tif"):
            view_of(finished, "plate/a.tiff")
        with pytest.raises(InputMissingError, match=r"no such image\.$"):
            view_of(finished, "qqqqqqqq")


def test_without_napari_the_command_says_how_to_have_it(run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with what works without."""
    monkeypatch.setitem(sys.modules, "napari", None)
    errors = call("view", run.store, code=2).stderr
    assert "pip install 'nucseg-batch[napari]'" in errors
    assert "nucseg-batch overlay" in errors


@pytest.mark.filterwarnings("ignore")  # of libraries below napari
@pytest.mark.parametrize("image", [None, "stack.tif", "large.tif"])
def test_napari_takes_the_layers(run: SmallRun, image: str | None) -> None:
    """In its own model of a viewer, which needs no window."""
    components = pytest.importorskip("napari.components", reason="needs napari")
    viewer = components.ViewerModel()
    shown = view(run, image)
    add_layers(viewer, shown)
    assert [layer.name for layer in viewer.layers] == [layer.name for layer in shown.layers]
    assert tuple(viewer.dims.axis_labels) == shown.axes
    labels = viewer.layers["nuclei"]
    assert list(labels.features["nucleus"][:2]) == [0, 1]
    assert tuple(labels.scale) == shown.layers[-1].scale


@pytest.mark.filterwarnings("ignore")  # of libraries below napari
def test_napari_takes_volumes_and_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With features and graph, at the scale of the image; nuclei of planes are hidden below them."""
    components = pytest.importorskip("napari.components", reason="needs napari")
    truth = movie(25, (127, 139), 12, speed=1.0, seed=6)
    movies = movie_run(tmp_path / "t", monkeypatch, np.where(truth.tracks > 0, 150, 10).astype(np.uint8), "TYX")
    stacks = small_run(tmp_path / "z", monkeypatch, link="z")
    tifffile.imwrite(stacks.folder / "a.tif", np.stack([picture(3)] * 3), imagej=True, metadata={"axes": "ZYX"})
    stacks.segment()
    for run, label in ((movies, "nuclei by track"), (stacks, "volumes")):
        viewer, shown = components.ViewerModel(), view(run, "a.tif")
        add_layers(viewer, shown)
        assert not viewer.layers["nuclei"].visible
        assert viewer.layers[label].visible
        if shown.tracks is None:
            assert list(viewer.layers[label].features["slices"][1:]) == [3, 3, 3]
            continue
        tracks = viewer.layers["tracks"]
        assert np.array_equal(tracks.data, shown.tracks.points)
        assert {child: list(mothers) for child, mothers in tracks.graph.items()} == shown.tracks.graph
        assert tuple(tracks.scale) == shown.layers[0].scale
