from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from doubles import Threshold
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.errors import MismatchError
from nucseg_batch.executors import local
from nucseg_batch.executors.job import planned
from nucseg_batch.executors.planning import write_plan
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.files.run.records import PlaneResult
from nucseg_batch.plan import Failure


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Four images of one shape, one of another, done."""
    run = small_run(tmp_path, monkeypatch)
    for number in range(4):
        run.put(f"{number}.tif", picture(number + 1, value=150 + number))
    run.put("wide.tif", picture(7, (40, 90), value=170))
    assert run.segment().new_planes == 5
    return run


def touch(path: Path) -> None:
    after = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(after, after))


def nuclei(run: SmallRun) -> dict[str, int]:
    planes = [plane for unit in run.units for plane in run.marker(unit).planes]
    return {plane.image: plane.nuclei for plane in planes if isinstance(plane, PlaneResult)}


def test_a_second_call_reads_nothing_and_writes_nothing(run: SmallRun) -> None:
    """A scheduler may send everything in again; that must cost no more than a look at names, sizes and times."""
    before = run.times()
    summary = run.segment()
    assert (summary.new_planes, summary.outcome.planes, run.reads) == (0, 5, [])
    assert run.times() == before


def test_images_that_were_only_touched_are_kept_and_read_once(run: SmallRun) -> None:
    """A copy or a restored backup is newer and has the same pixels: its masks stand, and the next call need not ask."""
    before = run.results()
    masks = {path: path.stat().st_mtime_ns for path in run.masks()}
    for name in ("1.tif", "2.tif"):
        touch(run.folder / name)
    assert run.segment().new_planes == 0
    assert sorted(run.reads) == ["1.tif", "2.tif"]
    assert "2 images (1.tif, ...): newer than the masks, but with the same pixels; kept" in run.notes.text
    assert run.results() == before
    assert {path: path.stat().st_mtime_ns for path in masks} == masks
    assert run.segment().new_planes == 0
    assert run.reads == []


def test_only_the_image_that_changed_is_done_again(run: SmallRun, tmp_path: Path) -> None:
    """And comes out as in a run of its own; the others of its unit are not even read."""
    run.put("2.tif", picture(6, value=199))
    summary = run.segment()
    assert (summary.new_planes, run.segmenter.shown) == (1, [199])
    assert "1 image (2.tif): changed after they were segmented, and are done again" in run.notes.text
    assert nuclei(run) == {"0.tif": 1, "1.tif": 2, "2.tif": 6, "3.tif": 4, "wide.tif": 7}
    assert [path.name for path in run.folder.iterdir() if path.stem == "2"] == ["2.tif"]
    assert sorted(set(run.reads)) == ["2.tif"]
    before = run.results()
    again = run.segment()
    assert (again.new_planes, run.reads) == (0, [])
    assert run.results() == before


def test_a_changed_image_comes_out_as_in_a_fresh_run(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte: what is kept of a unit and what is done again are put together as if done at once."""
    run.put("0.tif", picture(0))
    run.put("3.tif", picture(9, value=181))
    run.segment()
    fresh = small_run(tmp_path / "fresh", monkeypatch)
    for path in run.folder.iterdir():
        (fresh.folder / path.name).write_bytes(path.read_bytes())
    fresh.segment()
    assert fresh.results() == run.results()


def test_images_that_are_gone_are_told_and_their_masks_kept(run: SmallRun) -> None:
    """Originals are moved to tape while analysis goes on."""
    before = run.results()
    (run.folder / "1.tif").unlink()
    summary = run.segment()
    assert (summary.new_planes, summary.outcome.planes, summary.failures) == (0, 5, ())
    assert "1 image (1.tif): not there any more; what was made of them is kept" in run.notes.text
    assert run.results() == before


def secretly(run: SmallRun, name: str, pixels: np.ndarray) -> None:
    """Other pixels in a file of the same size and time, as a clock that jumped or a careless tool leaves it."""
    path = run.folder / name
    before = path.stat()
    run.put(name, pixels)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_full_verification_compares_the_pixels_themselves(run: SmallRun) -> None:
    """Quick verification believes size and time; whoever does not can have every image read."""
    secretly(run, "1.tif", picture(5, value=151))
    assert run.segment().new_planes == 0
    assert run.reads == []
    summary = run.segment(verify_inputs="full")
    assert summary.new_planes == 1
    assert nuclei(run)["1.tif"] == 5
    assert sorted(run.reads) == ["0.tif", "1.tif", "1.tif", "2.tif", "3.tif", "wide.tif"]
    before = run.times()
    assert run.segment(verify_inputs="full").new_planes == 0
    assert run.times() == before


def test_without_verification_nobody_asks_for_changes(run: SmallRun) -> None:
    """For inputs on a slow archive that is known to be read-only."""
    run.put("1.tif", picture(5, value=199))
    (run.folder / "0.tif").unlink()
    before = run.times()
    assert run.segment(verify_inputs="none").new_planes == 0
    assert (run.reads, run.times()) == ([], before)
    assert "not there any more" not in run.notes.text


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """One plane of four regions, done."""
    run = small_run(tmp_path, monkeypatch)
    run.put("slide.tif", mosaic())
    assert run.segment().new_planes == 4
    return run


def test_of_a_large_plane_the_windows_that_were_read_are_compared(large: SmallRun) -> None:
    """A plane that does not fit into memory is never read whole; what a region saw is what its hash is of."""
    assert all(seen is not None and seen.windows for unit in large.units for seen in large.marker(unit).seen)
    before = large.results()
    touch(large.folder / "slide.tif")
    assert large.segment().new_planes == 0
    assert len(large.reads) == 4
    assert large.results() == before
    assert large.segment(verify_inputs="full").new_planes == 0
    assert large.results() == before


def test_a_large_plane_that_changed_is_joined_anew(
    large: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every region depends on the range and scale of the whole plane, and masks and rows must follow them."""
    pixels = mosaic()
    pixels[96:, 116:] = 40
    large.put("slide.tif", pixels)
    assert large.segment().new_planes == 4, "a change in one corner concerns all regions"
    assert "changed after they were segmented" in large.notes.text
    fresh = small_run(tmp_path / "fresh", monkeypatch)
    fresh.put("slide.tif", pixels)
    fresh.segment()
    assert large.results() == fresh.results()


def test_a_large_plane_that_changed_while_half_done_is_begun_anew(
    large: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regions of two states of an image side by side would be a result that no image has."""
    first, last = large.units[0], large.units[-1]
    large.journal.retract(last)
    pixels = mosaic()
    rows, columns = last.bounds[-2:]
    pixels[rows.stop - 2 :, columns.stop - 2 :] = 255
    large.put("slide.tif", pixels)
    assert large.segment().new_planes == 4
    assert large.marker(first).seen[0] is not None
    fresh = small_run(tmp_path / "fresh", monkeypatch)
    fresh.put("slide.tif", pixels)
    fresh.segment()
    assert large.results() == fresh.results()


def test_a_large_plane_that_changed_and_cannot_be_read_fails(large: SmallRun) -> None:
    """Its earlier masks are of pixels that nobody has any more."""
    path = large.folder / "slide.tif"
    before = path.stat()
    path.write_bytes(path.read_bytes()[:8] + b"\0" * 100)
    os.utime(path, ns=(before.st_mtime_ns + 10**9,) * 2)
    summary = large.segment()
    assert [failure.image for failure in summary.failures] == ["slide.tif"]


def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Four images, of which the device refuses one and one was cut after planning."""
    run = small_run(tmp_path, monkeypatch)
    for number in range(4):
        run.put(f"{number}.tif", picture(number + 1, value=150 + number))
    summary = run.segment(Threshold(poison=[151]))
    assert [(one.image, one.stage) for one in summary.failures] == [("1.tif", "segment")]
    return run


def test_an_image_that_failed_is_tried_again_when_that_may_end_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while nothing is different: a folder with bad files would otherwise never be done."""
    run = failing(tmp_path, monkeypatch)
    before = run.times()
    assert run.segment().new_planes == 0
    assert (run.segmenter.shown, run.times()) == ([], before)
    touch(run.folder / "1.tif")
    summary = run.segment()
    assert (summary.new_planes, run.segmenter.shown, summary.failures) == (1, [151], ())
    assert nuclei(run) == {"0.tif": 1, "1.tif": 2, "2.tif": 3, "3.tif": 4}


def test_every_image_that_failed_is_tried_again_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a driver was mended, say."""
    run = failing(tmp_path, monkeypatch)
    run.segment(Threshold(poison=[151]), retry_failed=True)
    assert run.segmenter.shown == []
    summary = run.segment(retry_failed=True)
    assert (summary.new_planes, run.segmenter.shown, summary.failures) == (1, [151], ())


def test_a_retry_that_ends_as_before_leaves_the_run_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plane of it was tried; that one more try was in vain changes nothing."""
    run = failing(tmp_path, monkeypatch)
    before = run.everything()
    summary = run.segment(Threshold(poison=[151]), retry_failed=True)
    assert len(summary.failures) == 1
    assert run.everything() == before


@pytest.mark.parametrize(("error", "again"), [(MemoryError, True), (OSError, True), (ValueError, False)])
def test_what_may_pass_is_tried_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], again: bool
) -> None:
    """Want of memory and a file server that was away are nothing that is wrong with the image."""

    class Moody(Threshold):
        def called(self, images: Sequence[np.ndarray]) -> None:
            if any(image.max() == 151 for image in images):
                raise error("not now")

    run = small_run(tmp_path, monkeypatch)
    for number in range(3):
        run.put(f"{number}.tif", picture(number + 1, value=150 + number))
    failed = run.segment(Moody()).failures
    assert {"1.tif"} <= {one.image for one in failed}
    assert all(one.error == error.__name__ for one in failed)
    assert bool(run.segment().new_planes) is again


def test_masks_that_were_changed_by_hand_are_refused(run: SmallRun) -> None:
    """An afternoon of corrections must not be lost to a second call; nothing at all is written then."""
    masks = zarr.open_array(run.store / "40x50" / "labels" / "nuclei" / "0", mode="r+")
    masks[0, 3:30, 5:40] = np.arange(27 * 35).reshape(27, 35)
    before = run.everything()
    with pytest.raises(MismatchError, match="40x50 were changed"):
        run.segment()
    assert run.everything() == before
    (run.folder / "2.tif").unlink()
    with pytest.raises(MismatchError, match="40x50 were changed"):
        run.segment(verify_inputs="none")


def test_masks_that_are_lost_are_made_again(run: SmallRun) -> None:
    """A marker says what was done, not that it is still there."""
    before = run.everything()
    run.masks()[0].unlink()
    assert run.segment().new_planes == 4
    assert run.everything() == before


@pytest.mark.parametrize("what", ["rows", "masks"])
def test_a_unit_of_which_what_would_be_kept_is_damaged_is_done_whole(run: SmallRun, what: str) -> None:
    """Where one plane is done again the others are kept, but never without a look at whether they are intact."""
    (unit,) = [unit for unit in run.units if unit.label_array.name == "40x50"]
    path = run.journal.part(unit) if what == "rows" else next(p for p in run.masks() if "40x50" in p.as_posix())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    run.put("2.tif", picture(6, value=199))
    assert run.segment().new_planes == 4
    assert sorted(run.segmenter.shown) == [150, 151, 153, 199]
    verified = run.verify()
    assert (verified.damage, verified.missing) == ((), 0)
    assert nuclei(run)["3.tif"] == 4


def test_with_pixels_beside_the_masks_a_unit_is_done_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shard of pixels is written anew as well, and so needs them all."""
    run = small_run(tmp_path, monkeypatch, with_images=True)
    for number in range(3):
        run.put(f"{number}.tif", picture(number + 1, value=150 + number))
    run.segment()
    run.put("1.tif", picture(5, value=199))
    assert run.segment().new_planes == 3
    stored = zarr.open_array(run.store / "40x50" / "0", mode="r")
    np.testing.assert_array_equal(stored[1], picture(5, value=199))
    assert run.verify().damage == ()


def test_compartments_of_images_that_are_kept_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a unit of which one image is done again, and another has become one that cannot be read."""
    run = small_run(tmp_path, monkeypatch, ring="1,2", expand="3")
    for number in range(4):
        run.put(f"{number}.tif", picture(number + 1, value=150 + number))
    run.segment()
    before = {label: open_masks(run.store, label=label) for label in ("nuclei", "rings", "cells")}
    kept = {label: [masks[f"{number}.tif"] for number in (0, 3)] for label, masks in before.items()}
    run.put("2.tif", picture(6, value=199))
    content = (run.folder / "1.tif").read_bytes()
    (run.folder / "1.tif").write_bytes(content[: len(content) // 2])
    summary = run.segment()
    assert (summary.new_planes, [failure.image for failure in summary.failures]) == (1, ["1.tif"])
    assert not {"0.tif", "3.tif"} & set(run.reads)
    for label, planes in kept.items():
        masks = open_masks(run.store, label=label)
        for number, plane in zip((0, 3), planes, strict=True):
            np.testing.assert_array_equal(masks[f"{number}.tif"], plane)
        array, _ = masks.array("0.tif")
        assert not np.asarray(array[1]).any(), "an image that failed is empty"
    fresh = small_run(tmp_path / "fresh", monkeypatch, ring="1,2", expand="3")
    fresh.put("2.tif", picture(6, value=199))
    fresh.segment()
    for label in kept:
        ours, theirs = open_masks(run.store, label=label), open_masks(fresh.store, label=label)
        np.testing.assert_array_equal(ours["2.tif"], theirs["2.tif"])


ONE, AGAIN = "segment it into another OUT.", "put the complete file back and run the same command again, or segment it"


@pytest.mark.parametrize(
    ("before", "after", "axes", "failed", "said"),
    [
        (1, 3, "T", 1, f"planned without time points, but it has 3; {ONE}"),
        (1, 3, "Z", 1, f"planned without z-slices, but it has 3; {ONE}"),
        (1, 3, "C", 1, f"planned with no separate channels, but it has 3; {ONE}"),
        (3, 1, "T", 3, f"t=2: planned with time points 0 to 2, but it has none; {AGAIN}"),
        (3, 2, "T", 1, f"t=2: planned with time points 0 to 2, but it has only time points 0 to 1; {AGAIN}"),
        (5, 3, "Z", 2, f"z=4: planned with z-slices 0 to 4, but it has only z-slices 0 to 2; {AGAIN}"),
        (2, 3, "T", 0, ""),
    ],
)
def test_a_planned_file_that_gained_or_lost_planes_says_what_was_planned_and_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int, axes: str, failed: int, said: str
) -> None:
    """Also in a run that looks for no images; planes that are there as planned are segmented."""
    run = small_run(tmp_path, monkeypatch)

    def write(planes: int) -> None:
        pixels = np.stack([picture(number + 1) for number in range(planes)])
        tifffile.imwrite(run.folder / "a.tif", pixels, imagej=True, metadata={"axes": f"{axes}YX"})

    run.put("b.tif", picture(3))
    write(before)
    write_plan(run.prepared(), run.notes)
    write(after)
    summary = local.run(planned(run.store), run.notes)
    assert [failure.image for failure in summary.failures] == ["a.tif"] * failed
    assert summary.new_planes == 1 + before - failed
    if failed:
        assert summary.failures[-1].message.startswith(said)
        write(before)
        assert not run.segment().failures, "the complete file is back"


def test_a_projected_stack_that_became_one_plane_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plane has no z-slice, and the maximum was planned over several."""
    run = small_run(tmp_path, monkeypatch, z="max")
    stack = np.stack([picture(1), picture(4), picture(2)])
    tifffile.imwrite(run.folder / "a.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    write_plan(run.prepared(), run.notes)
    tifffile.imwrite(run.folder / "a.tif", stack[0])
    (failure,) = local.run(planned(run.store), run.notes).failures
    assert failure.message.startswith(f"planned with z-slices, but it has none; {AGAIN}")


def test_an_image_that_changed_its_shape_fails_and_says_so(run: SmallRun) -> None:
    """Its place in the store is planned for another; the others of its unit keep their masks."""
    run.put("2.tif", picture(3, (40, 60)))
    summary = run.segment()
    (failure,) = summary.failures
    assert (failure.image, failure.stage) == ("2.tif", "read")
    assert "planned as 40 x 50" in failure.message
    outcomes = {plane.image: plane for unit in run.units for plane in run.marker(unit).planes}
    assert isinstance(outcomes["2.tif"], Failure)
    masks = zarr.open_array(run.store / "40x50" / "labels" / "nuclei" / "0", mode="r")
    assert [int(np.asarray(masks[i]).max()) for i in range(4)] == [1, 2, 0, 4], "no mask of pixels that are gone"
    assert run.verify().damage == ()
