"""Volumes of z-stacks against an annotated stack: scores in three dimensions, from files, stores and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from command import call
from numpy.typing import NDArray
from small_runs import small_run
from stacks import f1, linked, packed, segmented
from zarr_examples import multiscales, write_array, write_group

from nucseg_batch.arrays.agreement import agreement
from nucseg_batch.errors import DoubtfulInputError, ImageError, NothingToDoError, UnfinishedError
from nucseg_batch.pipeline.evaluate import Evaluation, evaluate

TRUTH = packed((11, 61, 83), 14, 9.0, anisotropy=2.0, seed=3)
FOUND = linked(segmented(TRUTH, errors=0.1, seed=5))


def compare(prediction: Path, truth: Path, **options: Any) -> Evaluation:
    return evaluate(prediction, truth, index=None, group="", progress=lambda *_: None, volumes=True, **options)


def write(path: Path, labels: NDArray[np.integer], axes: str = "ZYX") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, labels.astype(np.uint16), imagej=True, metadata={"axes": axes})


def write_labels(group: Path, labels: NDArray[np.integer], axes: str) -> None:
    write_group(group, {"image-label": {}, **multiscales(axes)})
    write_array(group / "0", labels.astype(np.uint32))


def test_scores_are_those_of_the_whole_arrays(tmp_path: Path) -> None:
    """Slice by slice the same sums are counted, in which a volume is one object."""
    write(tmp_path / "t" / "a.tif", TRUTH)
    write(tmp_path / "p" / "a.tif", FOUND)
    result = compare(tmp_path / "p", tmp_path / "t")
    assert result.images[0].agreement == agreement(FOUND, TRUTH)
    assert result.groups["all"].pooled["f1_50"] == pytest.approx(f1(FOUND, TRUTH))
    assert 0 < result.groups["all"].pooled["ap_75"] < result.groups["all"].pooled["ap_50"] < 1
    assert result.as_json()["compared"] == "volumes"


def test_slices_without_one_label_for_a_nucleus_score_low(tmp_path: Path) -> None:
    """Labels 1 to n of each slice are no volumes, although each slice is right."""
    unrelated = np.stack([np.where(plane > 0, plane + 100 * z, 0) for z, plane in enumerate(TRUTH)])
    write(tmp_path / "t" / "a.tif", TRUTH)
    write(tmp_path / "p" / "a.tif", unrelated)
    assert compare(tmp_path / "p", tmp_path / "t").groups["all"].pooled["f1_50"] < 0.3


def test_stacks_come_from_ome_zarr_and_unnamed_axes_are_slices(tmp_path: Path) -> None:
    """A label image of OME-Zarr beside a TIFF that says nothing of its axes, which is said."""
    (tmp_path / "t").mkdir()
    tifffile.imwrite(tmp_path / "t" / "a.tif", TRUTH.astype(np.uint16))
    write_labels(tmp_path / "p" / "a.zarr", TRUTH, "zyx")
    result = compare(tmp_path / "p", tmp_path / "t")
    assert result.groups["all"].pooled["mean_ap"] == 1
    assert [one.text for one in result.assumptions if "z-slices" in one.text]


def test_of_several_label_images_volumes_are_compared(tmp_path: Path) -> None:
    """As `--in-place` writes them beside those of nuclei, whose labels are of single slices."""
    write(tmp_path / "t" / "a.tif", TRUTH)
    image = tmp_path / "p" / "a.zarr"
    write_group(image, multiscales("zyx"))
    write_array(image / "0", np.zeros(TRUTH.shape, np.uint8))
    write_group(image / "labels", {"labels": ["nuclei", "volumes"]})
    write_labels(image / "labels" / "nuclei", np.minimum(TRUTH, 1), "zyx")
    write_labels(image / "labels" / "volumes", TRUTH, "zyx")
    assert compare(image, tmp_path / "t").groups["all"].pooled["mean_ap"] == 1
    assert compare(tmp_path / "p", tmp_path / "t").groups["all"].pooled["mean_ap"] == 1


def test_five_pages_are_slices_too(tmp_path: Path) -> None:
    """As few as channels are; labels have none."""
    (tmp_path / "t").mkdir()
    tifffile.imwrite(tmp_path / "t" / "a.tif", TRUTH[3:8].astype(np.uint16))
    write(tmp_path / "p" / "a.tif", TRUTH[3:8])
    assert compare(tmp_path / "p", tmp_path / "t").groups["all"].pooled["mean_ap"] == 1


def test_time_points_are_compared_one_by_one(tmp_path: Path) -> None:
    """A label of one time point is not the same nucleus at the next."""
    both = np.stack([TRUTH, TRUTH[::-1]])
    write(tmp_path / "t" / "a.tif", both, "TZYX")
    write_labels(tmp_path / "p" / "a.zarr", np.stack([TRUTH, np.zeros_like(TRUTH)]), "tzyx")
    found = compare(tmp_path / "p", tmp_path / "t").images[0].agreement
    count = len(np.unique(TRUTH)) - 1
    assert (found.annotated, found.predicted, found.at(0.5).tp) == (2 * count, count, count)


def test_a_stack_without_a_prediction_counts_as_all_missed(tmp_path: Path) -> None:
    write(tmp_path / "t" / "a.tif", TRUTH)
    write(tmp_path / "t" / "b.tif", TRUTH)
    write(tmp_path / "p" / "a.tif", TRUTH)
    result = compare(tmp_path / "p", tmp_path / "t")
    assert result.missing == ("b",)
    assert result.groups["all"].pooled["recall_50"] == 0.5


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.where(TRUTH > 0, TRUTH + 0.5, 0).astype(np.float32), "fractions"),
        (np.where(TRUTH > 0, -1, 0).astype(np.int16), "from -1 to 0"),
    ],
)
def test_what_is_no_label_stack_is_refused(tmp_path: Path, labels: NDArray[Any], words: str) -> None:
    write(tmp_path / "p" / "a.tif", TRUTH)
    (tmp_path / "t").mkdir()
    tifffile.imwrite(tmp_path / "t" / "a.tif", labels, metadata={"axes": "ZYX"}, ome=True)
    with pytest.raises(ImageError, match=words):
        compare(tmp_path / "p", tmp_path / "t")


def test_other_sizes_are_refused_with_both(tmp_path: Path) -> None:
    write(tmp_path / "t" / "a.tif", TRUTH)
    write(tmp_path / "p" / "a.tif", TRUTH[:7])
    with pytest.raises(ImageError, match="a: the prediction has 7 slices of 61 x 83 pixels, and the truth 11 slices"):
        compare(tmp_path / "p", tmp_path / "t")


def test_a_single_label_is_doubtful(tmp_path: Path) -> None:
    """A binary mask looks like one nucleus."""
    write(tmp_path / "t" / "a.tif", np.where(TRUTH > 0, 1, 0))
    write(tmp_path / "p" / "a.tif", TRUTH)
    assert [one.text for one in compare(tmp_path / "p", tmp_path / "t").assumptions if one.doubtful]
    with pytest.raises(DoubtfulInputError, match="only label"):
        compare(tmp_path / "p", tmp_path / "t", strict=True)


def test_the_volumes_of_a_run_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From images with and without z-slices, of one shape and several; masks of nuclei are left alone."""
    run = small_run(tmp_path, monkeypatch, link="z")
    apart = np.zeros((7, 61, 83), np.uint16)
    apart[1:5, 5:20, 6:25], apart[2:7, 30:50, 40:60] = 1, 2
    for name in ("a.tif", "b.tif"):
        stack = np.where(apart > 0, 150, 10).astype(np.uint8)
        tifffile.imwrite(run.folder / name, stack, imagej=True, metadata={"axes": "ZYX"})
    run.put("plane.tif", np.full((40, 50), 10, np.uint8))
    run.segment()
    for name in ("a", "b"):
        write(tmp_path / "t" / f"{name}.tif", apart)
    result = compare(run.store, tmp_path / "t")
    assert result.groups["all"].pooled["mean_ap"] == 1
    assert result.groups["all"].pooled["annotated"] == 4
    told = call("evaluate", run.store, tmp_path / "t", "--volumes").stdout
    assert "Foreground voxels; volumes" in told


def test_a_run_without_volumes_is_nothing_to_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", np.full((40, 50), 10, np.uint8))
    run.segment()
    write(tmp_path / "t" / "a.tif", TRUTH)
    with pytest.raises(NothingToDoError, match="no volumes; segment with --link z"):
        compare(run.store, tmp_path / "t")


def test_a_stack_that_is_not_done_is_not_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its zeros would read as a stack without nuclei."""
    run = small_run(tmp_path, monkeypatch, link="z")
    tifffile.imwrite(
        run.folder / "a.tif", np.where(TRUTH > 0, 150, 10).astype(np.uint8), imagej=True, metadata={"axes": "ZYX"}
    )
    run.segment()
    run.journal.retract(run.units[0])
    write(tmp_path / "t" / "a.tif", TRUTH)
    with pytest.raises(UnfinishedError):
        compare(run.store, tmp_path / "t")
