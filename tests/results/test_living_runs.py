"""What readers see of a run that is at work, was stopped, or is being done again: whole masks, or an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call
from numpy.typing import NDArray
from plate_runs import stored_plate
from small_runs import Notes, SmallRun, mosaic, picture, small_run

from nucseg_batch import open_masks, read_images, read_nuclei
from nucseg_batch.errors import InputMissingError, UnfinishedError
from nucseg_batch.executors import finishing, job, local
from nucseg_batch.executors.progress import ProgressCounter
from nucseg_batch.executors.verification import forget
from nucseg_batch.files.masks.store import is_complete
from nucseg_batch.files.run.masks import Masks
from nucseg_batch.results.run import FinishedRun

NAMES = ["0.tif", "1.tif", "2.tif", "slide.tif"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Three images of a unit each, and a large plane of four regions; nothing is done."""
    run = small_run(tmp_path, monkeypatch)
    for number in range(3):
        run.put(f"{number}.tif", picture(number + 2, (40, 50 + 2 * number)))
    run.put("slide.tif", mosaic())
    return run


def whole(run: SmallRun, place: Path) -> dict[str, NDArray[np.uint32]]:
    """The masks that a run of the same images gives that nobody looks at."""
    store = place / "out.zarr"
    local.run(job.prepare(run.folder, store, None, run.settings, run.notes), run.notes)
    return {name: open_masks(store)[name] for name in open_masks(store)}


def undo(run: SmallRun, *names: str) -> None:
    """As where a process has begun to do these units again."""
    for unit in run.units:
        if unit.label_array.images[0].key in names:
            run.journal.retract(unit)


class Looking(Notes):
    """Looks at the run whenever a plane or region of it is done."""

    def __init__(self, run: SmallRun, expected: dict[str, NDArray[np.uint32]]) -> None:
        super().__init__()
        self.run, self.expected = run, expected
        self.seen: list[int] = []

    def plane(self, pixels: int, nuclei: int, failed: bool) -> None:
        assert not is_complete(self.run.store)
        planned = job.planned(self.run.store)
        finishing.finish(planned, ProgressCounter(Notes(), planned.journal))
        self.look()
        assert is_complete(self.run.store) == (self.seen[-1] == len(self.expected))

    def note(self, line: str) -> None:
        super().note(line)
        if "joining" in line:
            assert not is_complete(self.run.store)

    def look(self) -> None:
        masks, table = open_masks(self.run.store), read_images(self.run.store, library="pandas")
        missing = set(table["image"][table["status"] == "missing"])
        assert set(masks) | missing == set(self.expected)
        nuclei = read_nuclei(self.run.store, library="pandas")
        for name in masks:
            np.testing.assert_array_equal(masks[name], self.expected[name])
            assert (nuclei["image"] == name).sum() == self.expected[name].max()
        for name in missing:
            assert not (nuclei["image"] == name).any()
            with pytest.raises(UnfinishedError):
                masks[name]
        self.seen.append(len(masks))


def test_a_run_at_work_shows_whole_masks_and_knows_what_is_not_done(run: SmallRun, tmp_path: Path) -> None:
    """`finish` after each plane gives tables of what is done; masks that are there are those of the whole run."""
    expected = whole(run, tmp_path / "other")
    looking = Looking(run, expected)
    local.run(run.prepared(), looking)
    assert is_complete(run.store)
    looking.look()
    assert looking.seen[0] < looking.seen[-1] == len(NAMES)


def test_before_any_tables_readers_say_how_to_get_them(run: SmallRun) -> None:
    """Nothing is guessed of masks that no table lists."""
    run.segment()
    for path in run.store.parent.glob("out.*.csv"):
        path.unlink()
    run.journal.reopen()
    for read in (open_masks, read_nuclei, FinishedRun):
        with pytest.raises(InputMissingError, match="finish"):
            read(run.store)


def test_an_image_that_is_done_again_is_an_error_until_it_is_done(run: SmallRun) -> None:
    """Its old mask, or half of it, is no longer what the run says."""
    run.segment()
    masks = open_masks(run.store)
    before = {name: masks[name] for name in masks}
    undo(run, "1.tif", "slide.tif")
    for name in ("1.tif", "slide.tif"):
        for read in (masks.__getitem__, masks.array, masks.dask, open_masks(run.store).__getitem__):
            with pytest.raises(UnfinishedError, match=f"{name}: 1 plane of it is not segmented yet"):
                read(name)
    np.testing.assert_array_equal(masks["0.tif"], before["0.tif"])
    with FinishedRun(run.store) as finished:
        rows = {row.image: row for row in finished.planes()}
        np.testing.assert_array_equal(finished.mask(rows["2.tif"]), before["2.tif"])
        with pytest.raises(UnfinishedError, match=r"1\.tif"):
            finished.mask(rows["1.tif"])
        with pytest.raises(UnfinishedError, match=r"slide\.tif"):
            finished.mask(rows["slide.tif"], slice(3, 9), slice(4, 11))
        run.segment()
        for name in NAMES:
            np.testing.assert_array_equal(masks[name], before[name])
            np.testing.assert_array_equal(finished.mask(rows[name]), before[name])


@pytest.mark.parametrize("name", ["1.tif", "slide.tif"])
def test_a_mask_that_is_written_again_while_it_is_read_is_read_again(
    run: SmallRun, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Half of one and half of the other would be the mask of no image."""
    run.segment()
    masks, calls = open_masks(run.store), []
    shifted = np.roll({"1.tif": picture(3, (40, 52)), "slide.tif": mosaic()}[name], (3, 2), (0, 1))
    read = Masks._read

    def slow(self: Masks, image: str) -> NDArray[np.uint32]:
        found = read(self, image)
        calls.append(found)
        if len(calls) == 1:
            run.put(name, shifted)
            run.segment()
        return found

    monkeypatch.setattr(Masks, "_read", slow)
    found = masks[name]
    assert len(calls) == 2
    np.testing.assert_array_equal(found > 0, shifted > 100)
    assert (calls[0] != found).any()


def test_a_stack_of_which_slices_are_not_done_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their zeros would be slices without nuclei; with the run folder and without, where the table alone knows."""
    monkeypatch.setattr("nucseg_batch.plan.units.SHARD_BYTES", 2 * 4 * 40 * 50)
    run = small_run(tmp_path, monkeypatch, axes="ZYX", link="z")
    run.put("a.tif", np.stack([picture(count) for count in (3, 4, 2, 3, 1)]))
    run.segment()
    before = open_masks(run.store)["a.tif"]
    assert len(run.units) == 3
    run.journal.retract(run.units[1])
    run.finish()
    masks, volumes = open_masks(run.store), open_masks(run.store, label="volumes")
    statuses = read_images(run.store, library="pandas")["status"].tolist()
    assert statuses == ["ok", "ok", "missing", "missing", "ok"]
    assert list(masks) == ["a.tif"]
    with pytest.raises(UnfinishedError, match=r"a\.tif: 2 planes of it are not segmented yet"):
        masks["a.tif"]
    with pytest.raises(UnfinishedError, match=r"a\.tif: 5 planes"):
        volumes["a.tif"]
    exported = call("export", run.store, tmp_path / "x", "--format", "tiff", code=3)
    assert "a.tif: 2 of its planes are not segmented yet" in exported.stdout + exported.stderr
    assert not list((tmp_path / "x").rglob("*.tif"))
    folder = run.journal.folder
    folder.rename(tmp_path / "away")
    with pytest.raises(UnfinishedError, match=r"a\.tif: 2 planes"):
        open_masks(run.store)["a.tif"]
    (tmp_path / "away").rename(folder)
    run.segment()
    np.testing.assert_array_equal(masks["a.tif"], before)
    assert volumes["a.tif"].any()


def test_without_the_run_folder_the_tables_of_a_finished_run_are_believed(run: SmallRun) -> None:
    """It may be deleted once the run is done."""
    run.segment()
    shutil.rmtree(run.journal.folder)
    masks = open_masks(run.store)
    assert [int(masks[name].max()) for name in NAMES[:3]] == [2, 3, 4]


def test_the_store_says_that_it_is_not_complete_as_soon_as_results_are_discarded(run: SmallRun) -> None:
    """Foreign readers have only that."""
    run.segment()
    assert is_complete(run.store)
    (mask, *_) = run.masks()
    mask.write_bytes(b"x")
    forget(job.planned(run.store), run.verify().damage, run.notes.note)
    assert not is_complete(run.store)
    run.segment()
    assert is_complete(run.store)


def test_a_large_plane_is_joined_again_in_a_store_that_says_so(run: SmallRun) -> None:
    run.segment()
    (large,) = run.plan.large_planes()
    run.journal.retract_plane(large)
    looking = Looking(run, {})
    local.run(run.prepared(), looking)
    assert "joining" in looking.text
    assert is_complete(run.store)


def test_commands_that_read_an_unfinished_run_say_what_is_missing(run: SmallRun, tmp_path: Path) -> None:
    """Each leaves out what is not done, and none writes an empty mask for it."""
    run.segment()
    undo(run, "1.tif")
    run.finish()
    exported = tmp_path / "exported"
    record: dict[str, Any] = json.loads(call("export", run.store, exported, "--format", "tiff", "--json").stdout)
    assert (record["images"], record["without_mask"]) == (3, 1)
    assert not list(exported.rglob("1*"))
    call("report", run.store)
    assert "1 plane not done yet" in run.store.with_name("out.report.html").read_text(encoding="utf-8")
    undo(run, "2.tif")
    failed = call("export", run.store, tmp_path / "again", "--format", "tiff", code=75)
    assert "2.tif: 1 plane of it is not segmented yet" in failed.stderr


def test_rings_are_known_as_undone_like_nuclei(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written with them."""
    run = small_run(tmp_path, monkeypatch, ring="1,2")
    run.put("a.tif", picture(3))
    run.segment()
    rings = open_masks(run.store, label="rings")
    assert rings["a.tif"].any()
    undo(run, "a.tif")
    with pytest.raises(UnfinishedError):
        rings["a.tif"]


def test_an_unfinished_plate_lists_the_images_that_have_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer, or a count of wells, would take an array that is still empty for a field without nuclei."""
    run = small_run(tmp_path, monkeypatch)
    plate = stored_plate(tmp_path, ["A"], ["1", "2", "3"])
    given = {"settings": run.settings, "progress": run.notes}
    local.run(job.prepare(plate, run.store, None, **given), run.notes)  # type: ignore[arg-type]
    listed = (run.store / "zarr.json").read_bytes()
    undone = next(unit for unit in run.units if unit.label_array.name == "A/2/0")
    run.journal.retract(undone)
    run.finish()
    attributes = json.loads((run.store / "zarr.json").read_bytes())["attributes"]
    assert [well["path"] for well in attributes["ome"]["plate"]["wells"]] == ["A/1", "A/3"]
    assert attributes["nucseg-batch"]["complete"] is False
    local.run(job.prepare(plate, run.store, None, **given), run.notes)  # type: ignore[arg-type]
    assert (run.store / "zarr.json").read_bytes() == listed
