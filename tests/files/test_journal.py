from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
from dataclasses import replace
from pathlib import Path

import pytest

from nucseg_batch.errors import LockedError, MismatchError
from nucseg_batch.files.run.journal import Journal, Marker, PlaneResult
from nucseg_batch.files.run.tables import SUMMARY_COLUMNS
from nucseg_batch.plan import Failure, ImageInfo, Plan, make_plan


def small_plan() -> Plan:
    images = [ImageInfo(key, 11, 13, 3001, 3011, 1, "uint8") for key in ("a.png", "b/ü.tif", "b/\udcff.tif")]
    return make_plan(images, [Failure("bad.png", "plan", "OSError", "cut")])


FILES = dict.fromkeys(("a.png", "b/ü.tif", "b/\udcff.tif"), (11, 13)) | {"bad.png": (3, 5)}


def result(key: str, part_bytes: int) -> PlaneResult:
    return PlaneResult(key, 2, dict.fromkeys(SUMMARY_COLUMNS, 1), part_bytes)


def test_a_plan_comes_back_as_it_was_stored_with_any_file_name(tmp_path: Path) -> None:
    """Names that are not UTF-8 exist on every old file server."""
    journal = Journal(tmp_path / "out.zarr")
    assert not journal.exists()
    journal.create(small_plan(), {"--threshold": 0.5}, FILES)
    assert journal.load() == (small_plan(), {"--threshold": 0.5}, FILES)
    assert journal.folder == tmp_path / "out.run"


def test_all_that_is_known_of_an_image_is_kept(tmp_path: Path) -> None:
    """Also what most images do not have, which costs no room for them."""
    plain = ImageInfo("a.png", 11, 13, 31, 37, 1, "uint8")
    rich = replace(
        plain,
        key="b",
        pixel_size=0.65,
        names=("DAPI", "é"),
        nuclei=1,
        t=(0, 9, 2),
        files=("b", "c"),
        group="",
        levels=3,
    )
    journal = Journal(tmp_path / "out.zarr")
    plan = make_plan(
        [plain, rich, replace(plain, key="c", z=(1, 2, 1)), replace(plain, key="d", projected=True)], region=96
    )
    journal.create(plan, {}, {}, region=96)
    assert journal.load()[0] == plan
    assert '"a.png",\n11,\n13,\n31,\n37,\n1,\n"uint8"\n]' in (journal.folder / "plan.json").read_text()


def test_a_unit_is_done_only_when_marker_and_part_are_whole(tmp_path: Path) -> None:
    """Each half alone is what a crash leaves."""
    journal = Journal(tmp_path / "out.zarr")
    plan = small_plan()
    journal.create(plan, {}, FILES)
    unit = next(plan.units())
    assert journal.marker(unit) is None
    marker = Marker((result("a.png", 6),), 17)
    journal.commit(unit, marker, "1,2,3\n")
    assert journal.marker(unit) == marker
    part = journal.part(unit)
    part.write_text("1,2")
    assert journal.marker(unit) is None
    part.unlink()
    assert journal.marker(unit) is None


def test_a_damaged_marker_counts_as_none(tmp_path: Path) -> None:
    """The unit is then done again; nothing is guessed."""
    journal = Journal(tmp_path / "out.zarr")
    plan = small_plan()
    journal.create(plan, {}, FILES)
    unit = next(plan.units())
    journal.commit(unit, Marker((result("a.png", 0),), 17), "")
    path = journal.folder / "units" / f"{unit.name}.json"
    path.write_text(path.read_text()[:-20])
    assert journal.marker(unit) is None


def test_a_marker_of_other_images_counts_as_none(tmp_path: Path) -> None:
    """Names of units are shapes and numbers; an old marker must not vouch for new images."""
    journal = Journal(tmp_path / "out.zarr")
    plan = small_plan()
    journal.create(plan, {}, FILES)
    unit = next(plan.units())
    journal.commit(unit, Marker((result("other.png", 0),), 17), "")
    assert journal.marker(unit) is None


def test_no_temporary_file_is_left_behind(tmp_path: Path) -> None:
    """The run folder holds what it says and nothing else."""
    journal = Journal(tmp_path / "out.zarr")
    plan = small_plan()
    journal.create(plan, {}, FILES)
    journal.commit(next(plan.units()), Marker((result("a.png", 0),), 17), "")
    assert not list(journal.folder.rglob("*.partial"))


def test_a_run_does_not_mix_two_precisions(tmp_path: Path) -> None:
    """`auto` means another thing on another machine; bits would differ within one output."""
    journal = Journal(tmp_path / "out.zarr")
    journal.create(small_plan(), {}, FILES)
    journal.bind({"precision": "float32"})
    journal.bind({"precision": "float32"})
    with pytest.raises(MismatchError, match="float32 -> mixed_bfloat16"):
        journal.bind({"precision": "mixed_bfloat16"})


def _hold(store: Path, ready: multiprocessing.synchronize.Event, leave: multiprocessing.synchronize.Event) -> None:
    with Journal(store).locked():
        ready.set()
        leave.wait(30)


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    """Two copies of one job must not both write; a killed holder leaves no lock behind."""
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    store = tmp_path / "out.zarr"
    Journal(store).create(small_plan(), {}, FILES)
    holder = context.Process(target=_hold, args=(store, ready, leave))
    holder.start()
    try:
        assert ready.wait(30)
        with pytest.raises(LockedError, match=f"process {holder.pid} on "), Journal(store).locked():
            pass
    finally:
        holder.kill()
        holder.join()
    with Journal(store).locked():
        pass
