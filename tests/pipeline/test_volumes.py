"""Whole runs with --link z over stacks with known volumes: exact, restartable, the same bytes however they are done."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from doubles import Threshold
from numpy.typing import NDArray
from skimage.measure import regionprops_table
from small_runs import Notes, SmallRun, small_run
from stacks import ellipsoids, f1, linked
from zarr_examples import multiscales, write_array, write_group

from nucseg_batch.errors import DamageError, MismatchError, UsageError
from nucseg_batch.executors import job, linking, local
from nucseg_batch.executors.progress import ProgressCounter
from nucseg_batch.executors.verification import forget
from nucseg_batch.files.masks.nodes import read_attributes
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.files.run.stack_records import StackRecords
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.files.zarr.ome import ome_of
from nucseg_batch.files.zarr.opening import open_array
from nucseg_batch.plan import stack_groups, units
from nucseg_batch.settings import SegmentSettings

LABELS = ("nuclei", "volumes")
SHAPE = (11, 47, 59)
CENTRES = ((2, 12, 13), (7.5, 12, 14), (5, 30, 17), (5, 24, 42), (3, 37, 44), (9.5, 38, 30), (4, 8, 33))
RADII = ((2.6, 7, 8), (2.7, 8, 7), (4.2, 8, 9), (4.1, 6, 7), (2.4, 6, 8), (3, 5, 6), (3.1, 6, 6))
"""Two of them lie on top of each other."""


def truth(shape: tuple[int, int, int] = SHAPE, times: int = 1) -> NDArray[np.uint32]:
    steps = np.array((1, shape[1] / SHAPE[1], shape[2] / SHAPE[2]))
    return ellipsoids(shape, np.array(CENTRES) * steps, np.array(RADII) * (1, times, times))


def pixels(labels: NDArray[np.uint32], value: int = 130) -> NDArray[np.uint8]:
    """Images in which nuclei differ in brightness and are dark where they touch, so that a threshold parts them."""
    image = np.full(labels.shape, 10, np.uint8)
    for z, plane in enumerate(labels):
        inner = plane > 0
        for axis in (0, 1):
            inner &= (plane == np.roll(plane, 1, axis)) | (np.roll(plane, 1, axis) == 0)
        image[z][inner] = value + plane[inner] % 7 * 9 + z
    return image


def stacked_run(place: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> SmallRun:
    run = small_run(place, monkeypatch, link="z", **settings)
    run.put("a.tif", pixels(truth()))
    stack = pixels(truth(), 150)
    stack[4] = 10  # a slice in which nothing is found
    run.put("b.tif", stack)
    run.put("plane.tif", pixels(truth())[5])
    return run


def rows(run: SmallRun) -> list[dict[str, str]]:
    with open(RunLayout(run.store).volumes_csv, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_nucleus_has_one_label_in_all_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both stacks, also where nothing was found in one slice; nuclei on top of each other stay two."""
    run = stacked_run(tmp_path, monkeypatch)
    summary = run.segment()
    masks, volumes = open_masks(run.store), open_masks(run.store, label="volumes")
    for image in ("a.tif", "b.tif"):
        assert np.array_equal(volumes[image] > 0, masks[image] > 0)
        assert np.array_equal(volumes[image], linked(masks[image]))
        assert f1(volumes[image], truth()) == 1
    assert summary.outcome.volumes == 2 * len(CENTRES) == len(rows(run))


def test_an_image_without_slices_has_no_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its masks are as they are without the option."""
    run = stacked_run(tmp_path, monkeypatch)
    run.segment()
    assert {row["image"] for row in rows(run)} == {"a.tif", "b.tif"}
    assert sorted(path.name for path in (run.store / "47x59" / "labels").iterdir()) == ["nuclei", "zarr.json"]


def test_rows_are_what_scikit_image_measures_of_the_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though no pixel is read for them; values in the tables have seven digits."""
    run = stacked_run(tmp_path, monkeypatch)
    run.segment()
    volumes, image = open_masks(run.store, label="volumes")["a.tif"], pixels(truth())
    own = [row for row in rows(run) if row["image"] == "a.tif"]
    names = ("label", "bbox", "centroid", "intensity_mean", "intensity_min", "intensity_max", "intensity_std", "area")
    expected = regionprops_table(volumes, image, properties=names)
    expected["volume"] = expected.pop("area")
    for name, values in expected.items():
        assert [float(row[name]) for row in own] == pytest.approx(values, rel=1e-5), name
    slices = [len(np.unique(np.nonzero(volumes == label)[0])) for label in range(1, len(own) + 1)]
    assert [int(row["slices"]) for row in own] == slices
    assert {row["volume_um3"] for row in own} == {""}
    assert all(0 < float(row["confidence"]) <= 1 for row in own)


def test_a_standard_deviation_survives_large_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 bits with an offset of 60 000, where the difference of squares would have no digits left."""
    run = small_run(tmp_path, monkeypatch, link="z")
    image = pixels(truth()).astype(np.uint16)
    image[image > 10] += 60000
    run.put("a.tif", image)
    run.segment()
    volumes = open_masks(run.store, label="volumes")["a.tif"]
    expected = regionprops_table(volumes, image, properties=("intensity_std",))["intensity_std"]
    assert [float(row["intensity_std"]) for row in rows(run)] == pytest.approx(expected, rel=1e-3)


def test_each_channel_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the names of columns that nuclei.csv has."""
    run = small_run(tmp_path, monkeypatch, link="z", channel="0")
    stack = np.stack([pixels(truth()), pixels(truth())[:, ::-1] // 2], axis=1)
    tifffile.imwrite(run.folder / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    run.segment()
    volumes = open_masks(run.store, label="volumes")["a.tif"]
    means = regionprops_table(volumes, stack[:, 1], properties=("intensity_mean",))["intensity_mean"]
    assert [float(row["intensity_mean-1"]) for row in rows(run)] == pytest.approx(means, rel=1e-5)


@pytest.mark.parametrize(
    ("metadata", "settings", "voxel"),
    [
        ({"spacing": 2.0, "unit": "um"}, {}, 0.25 * 2),
        ({"spacing": 2.0, "unit": "um"}, {"z": "1:10:2"}, 0.25 * 4),
        ({"spacing": 2.0, "unit": "um"}, {"z_step": 3.0, "pixel_size": 0.1}, 0.01 * 3),
        ({"unit": "um"}, {}, None),
    ],
    ids=["from the file", "every other slice", "as given", "unknown"],
)
def test_volumes_in_micrometres_have_the_distance_of_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: dict[str, Any], settings: dict[str, Any], voxel: float
) -> None:
    """From the metadata of the file unless it is given."""
    run = small_run(tmp_path, monkeypatch, link="z", **settings)
    tifffile.imwrite(
        run.folder / "a.tif", pixels(truth()), imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", **metadata}
    )
    run.segment()
    found = [(float(row["volume_um3"]) if row["volume_um3"] else None, int(row["volume"])) for row in rows(run)]
    assert [size for size, _ in found] == [None if voxel is None else pytest.approx(voxel * n) for _, n in found]


def test_regions_of_large_planes_give_the_volumes_of_whole_planes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the order of labels, which follows that in slices: no nucleus is shared or split at borders."""
    shape, runs = (11, 131, 149), []
    for region in (64, 256):
        run = small_run(tmp_path / str(region), monkeypatch, link="z", region=region)
        run.put("a.tif", pixels(truth(shape, 2)))
        run.segment()
        runs.append(run)
    parts, whole = (open_masks(run.store, label="volumes")["a.tif"] for run in runs)
    pairs = np.unique(np.stack([parts.ravel(), whole.ravel()]), axis=1)
    assert len(runs[0].units) == 11 * 9
    assert pairs.shape[1] == len(CENTRES) + 1 == np.unique(parts).size == np.unique(whole).size
    assert np.array_equal(parts, linked(open_masks(runs[0].store)["a.tif"]))
    measured = [sorted((int(row["volume"]), row["bbox-0"], row["bbox-3"]) for row in rows(run)) for run in runs]
    assert measured[0] == measured[1]
    assert (runs[0].store / "11z-131x149" / "labels" / "volumes" / "0" / "c").is_dir()


def test_time_points_and_images_of_one_shard_are_stacks_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels begin at 1 in each."""
    run = small_run(tmp_path, monkeypatch, link="z")
    stack = np.stack([pixels(truth()), pixels(truth()[::-1])])
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(run.folder / name, stack, imagej=True, metadata={"axes": "TZYX"})
    run.segment()
    volumes = open_masks(run.store, label="volumes")["b.tif"]
    assert [np.unique(one).tolist() for one in volumes] == [list(range(8))] * 2
    names = [(name, t) for name in ("a.tif", "b.tif") for t in "01" for _ in CENTRES]
    assert [(row["image"], row["t"]) for row in rows(run)] == names


def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of three slices, so that a stack has several."""
    monkeypatch.setattr(units, "SHARD_BYTES", 3 * 4 * SHAPE[1] * SHAPE[2])


def test_shares_in_any_order_leave_the_bytes_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a stack is in two shares, and then joined by whoever finishes."""
    small_units(monkeypatch)
    results = []
    orders: tuple[tuple[int, ...], ...] = ((), (0, 1, 2), (2, 0, 1))
    for number, order in enumerate(orders):
        run = stacked_run(tmp_path / str(number), monkeypatch)
        for share in order:
            run.segment(shares=3, share=share)
        if not order:
            run.segment()
        results.append(run.results())
    assert len(list(stack_groups(run.plan))) == 2
    assert len(run.units) == 9
    for other in results[1:]:
        assert {name for name in other if other[name] != results[0][name]} <= {"out.provenance.json"}
        assert other.keys() == results[0].keys()


def test_memory_does_not_grow_with_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for some bytes a nucleus and slice: of a hundred times as many slices it is far from a hundred times."""
    small_units(monkeypatch)
    peaks = []
    for depth in (7, 300):
        run = small_run(tmp_path / str(depth), monkeypatch, link="z")
        run.put("a.tif", pixels(np.resize(truth(), (depth, *SHAPE[1:]))))
        run.segment()
        (group,) = stack_groups(run.plan)
        StackRecords(run.journal).retract(group)
        tracemalloc.start()
        linking.link_groups(run.prepared(), [group], ProgressCounter(Notes(), run.journal))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    masks = 300 * SHAPE[1] * SHAPE[2] * 4
    assert peaks[1] - peaks[0] < masks / 3


def test_a_second_call_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is written, and the volumes are still counted."""
    run = stacked_run(tmp_path, monkeypatch)
    run.segment()
    before = run.times()
    assert run.segment().outcome.volumes == 2 * len(CENTRES)
    assert run.times() == before


@pytest.mark.parametrize("lost", ["shard", "record", "rows", "table"])
def test_what_is_lost_of_volumes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """To the same bytes, without segmenting anything."""
    small_units(monkeypatch)
    run = stacked_run(tmp_path, monkeypatch)
    run.segment()
    before = run.everything()
    group = next(stack_groups(run.plan))
    shards = sorted(path for path in run.store.glob("*/labels/volumes/0/c/**/*") if path.is_file())
    records = run.journal.folder / "volumes"
    {
        "shard": shards[1],
        "record": records / f"{group.name}.json",
        "rows": StackRecords(run.journal).part(group),
        "table": RunLayout(run.store).volumes_csv,
    }[lost].unlink()
    run.segment()
    assert run.segmenter.shown == []
    assert run.everything() == before


def test_an_image_that_changed_changes_the_volumes_of_its_stack_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And to what a run from the start gives."""
    small_units(monkeypatch)
    run, fresh = (stacked_run(tmp_path / name, monkeypatch) for name in ("again", "fresh"))
    run.segment()
    group, other = stack_groups(run.plan)
    written = StackRecords(run.journal).committed_ns(other), StackRecords(run.journal).committed_ns(group)
    for one in (run, fresh):
        one.put("a.tif", pixels(truth())[:, ::-1])
    run.segment()
    fresh.segment()
    after = StackRecords(run.journal).committed_ns(other), StackRecords(run.journal).committed_ns(group)
    assert (after[0] == written[0], after[1] > written[1]) == (True, True)
    tables = [RunLayout(one.store).volumes_csv.read_bytes() for one in (run, fresh)]
    assert tables[0] == tables[1]
    stored = [{name: data for name, data in one.results().items() if "/volumes/" in name} for one in (run, fresh)]
    assert stored[0] == stored[1]


def test_volumes_that_were_changed_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As masks of nuclei are not: someone may have corrected them."""
    run = stacked_run(tmp_path, monkeypatch)
    run.segment()
    shard = next(path for path in run.store.glob("*/labels/volumes/0/c/**/*") if path.is_file())
    shard.write_bytes(shard.read_bytes() + b"1")
    with pytest.raises(MismatchError, match="volumes of 11z-47x59 were changed since they were made"):
        run.segment()


def test_verify_finds_damaged_volumes_and_segment_mends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of shards and of rows, without segmenting anything."""
    run = stacked_run(tmp_path, monkeypatch)
    run.segment()
    before = run.everything()
    assert run.verify().damage == ()
    shard = next(path for path in run.store.glob("*/labels/volumes/0/c/**/*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    found = run.verify().damage
    assert [one.stacks for one in found] == list(stack_groups(run.plan))
    forget(job.planned(run.store), found, lambda line: None)
    run.segment()
    assert run.segmenter.shown == []
    assert run.everything() == before


def test_a_mask_that_is_gone_is_no_slice_without_nuclei(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes would be cut there without a word."""
    small_units(monkeypatch)
    run = stacked_run(tmp_path, monkeypatch)
    run.segment()
    run.masks()[1].unlink()
    (group, *_) = stack_groups(run.plan)
    StackRecords(run.journal).retract(group)
    with pytest.raises(DamageError, match=r"a.tif: the mask of slice 3 does not hold the 5 nuclei of its rows"):
        run.finish()
    run.segment()
    assert f1(open_masks(run.store, label="volumes")["a.tif"], truth()) == 1


def test_a_slice_that_failed_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nuclei on both sides of it are joined over it."""
    run = small_run(tmp_path, monkeypatch, link="z")
    stack = pixels(truth())
    stack[5, 0, 0] = 255
    run.put("a.tif", stack)
    assert len(run.segment(Threshold(poison=[255])).failures) == 1
    volumes = open_masks(run.store, label="volumes")["a.tif"]
    assert not volumes[5].any()
    assert f1(volumes, truth()) == 1


def test_an_unfinished_run_has_the_volumes_of_stacks_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `finish`; the others come when their units are."""
    small_units(monkeypatch)
    run = stacked_run(tmp_path, monkeypatch)
    run.segment(shares=9, share=0)
    run.finish()
    assert rows(run) == []
    for share in range(1, 5):
        run.segment(shares=9, share=share)
    run.finish()
    assert {row["image"] for row in rows(run)} == {"a.tif"}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_in_place_get_volumes_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: Literal["0.4", "0.5"]
) -> None:
    """Listed with the nuclei, and deleted with them when the run starts over without."""
    group = write_group(tmp_path / "in.zarr", multiscales("zyx"), version=version)
    write_array(group / "0", pixels(truth()), version=version)
    monkeypatch.setattr(local, "load_predictor", lambda *_: Threshold())
    linked_and_not = SegmentSettings(diameter=26.0, link="z"), SegmentSettings(diameter=26.0)
    for settings, labels in zip(linked_and_not, (["nuclei", "volumes"], ["nuclei"]), strict=True):
        overwrite = settings.link is None
        local.run(job.prepare(group, group, None, settings, Notes(), in_place=True, overwrite=overwrite), Notes())
        assert ome_of(read_attributes(group / "labels"))["labels"] == labels
        assert sorted(path.name for path in (group / "labels").iterdir() if path.is_dir()) == labels
        if "volumes" in labels:
            assert f1(np.asarray(open_array(group / "labels" / "volumes" / "0", mode="r")), truth()) == 1
        assert RunLayout(group).volumes_csv.exists() == (settings.link == "z")


def test_an_image_of_a_store_keeps_its_place_levels_and_distances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Volumes have the levels that the nuclei have, and voxels the size that the store says."""
    ome = multiscales("zyx", size=0.5, levels=2)
    ome["multiscales"][0]["axes"][0]["unit"] = "micrometer"
    for dataset in ome["multiscales"][0]["datasets"]:
        dataset["coordinateTransformations"][0]["scale"][0] = 3.0
    group = write_group(tmp_path / "in.zarr" / "A", ome)
    for level in range(2):
        write_array(group / str(level), pixels(truth())[:, :: 2**level, :: 2**level])
    monkeypatch.setattr(local, "load_predictor", lambda *_: Threshold())
    store = tmp_path / "out.zarr"
    local.run(job.prepare(group.parent, store, None, SegmentSettings(diameter=26.0, link="z"), Notes()), Notes())
    first, second = (np.asarray(open_array(store / "A" / "labels" / "volumes" / level, mode="r")) for level in "01")
    assert np.array_equal(second, first[:, ::2, ::2])
    assert f1(first, truth()) == 1
    names = [read_attributes(store / "A" / "labels" / name)["ome"]["multiscales"][0]["datasets"] for name in LABELS]
    assert names[0] == names[1]
    with open(RunLayout(store).volumes_csv, newline="", encoding="utf-8") as file:
        sizes = [(float(row["volume_um3"]), int(row["volume"])) for row in csv.DictReader(file)]
    assert [size for size, _ in sizes] == pytest.approx([0.25 * 3 * voxels for _, voxels in sizes])


def test_joining_is_told_where_there_are_slices_to_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single slice is a stack, too, in which each nucleus is a volume."""
    for name, z, said in (("one", "5", False), ("two", "5:7", True)):
        run = small_run(tmp_path / name, monkeypatch, link="z", z=z)
        run.put("a.tif", pixels(truth()))
        assert run.segment().outcome.volumes
        assert ("a.tif: joining nuclei over 2 slices" in run.notes.lines) is said
        assert ("joining" in run.notes.text) is said


def test_linking_is_refused_where_there_are_no_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is segmented; a projection has none either."""
    for name, settings, found in (
        ("planes", {}, "no image has an axis z; leave it out, or say with --axes"),
        ("projected", {"z": "max"}, "--z max makes one plane of them"),
    ):
        run = small_run(tmp_path / name, monkeypatch, link="z", **settings)
        run.put("a.tif", pixels(truth()) if name == "projected" else pixels(truth())[3])
        with pytest.raises(UsageError, match=f"--link z joins nuclei over z-slices, but {found}"):
            run.segment()
        assert not run.store.exists()
