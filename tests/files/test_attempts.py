from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import Threshold
from numpy.typing import NDArray
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.executors.planning import write_plan
from nucseg_batch.files.retry import CAREFUL_AFTER, FAILS_AFTER, KILLED
from nucseg_batch.files.run.attempts import BEGUN, Attempts, History
from nucseg_batch.plan import Failure, ImageInfo, Unit, make_plan


def units(count: int) -> list[Unit]:
    return list(make_plan(ImageInfo(f"{i}.png", 1, 1, 31 + i, 37, 1, "uint8") for i in range(count)).units())


def died(attempts: Attempts, unit: Unit, times: int, plane: int | None = None) -> None:
    """What is left when so many processes died."""
    for _ in range(times):
        attempts.begin(unit)
        if plane is not None:
            attempts.begin_plane(unit, plane)


def test_what_was_begun_and_ended_leaves_nothing(tmp_path: Path) -> None:
    """A run that was stopped in good order blames nobody."""
    attempts, (first, second) = Attempts(tmp_path), units(2)
    assert attempts.begun() == set()
    assert attempts.history(first) == History()
    attempts.begin(first)
    attempts.begin(second)
    assert attempts.begun() == {first.name, second.name}
    attempts.end(first)
    attempts.end(first)
    assert attempts.begun() == {second.name}
    attempts.remove_folder()
    assert attempts.begun() == {second.name}, "not while something is noted"
    attempts.end(second)
    attempts.remove_folder()
    assert list(tmp_path.iterdir()) == []
    attempts.begin(first)
    assert attempts.begun() == {first.name}


def test_units_on_which_processes_died_are_done_carefully(tmp_path: Path) -> None:
    """Once or twice may be the machine's fault, and plane by plane takes longer."""
    attempts, (unit, other) = Attempts(tmp_path), units(2)
    died(attempts, unit, CAREFUL_AFTER - 1)
    assert attempts.history(unit) == History(CAREFUL_AFTER - 1)
    assert not attempts.history(unit).careful
    died(attempts, unit, 1)
    assert attempts.history(unit).careful
    assert attempts.history(other) == History()


def test_a_plane_is_guilty_when_it_was_in_hand_at_each_of_several_deaths(tmp_path: Path) -> None:
    """The plane that was begun last is the one that a process died on; planes before it were survived."""
    attempts, (unit,) = Attempts(tmp_path), units(1)
    died(attempts, unit, CAREFUL_AFTER)
    for last in (7, 5, 7):
        attempts.begin(unit)
        for plane in range(last + 1):
            attempts.begin_plane(unit, plane)
    assert FAILS_AFTER == 2
    assert attempts.history(unit) == History(CAREFUL_AFTER + 3, frozenset({7}))


@pytest.mark.parametrize("content", [b"beg", b"\xff\xfe", b"plane 3\n", b"begin\nplane x\n", b"begin\nplane", b"\n\n"])
def test_a_line_that_is_only_half_there_accuses_nobody(tmp_path: Path, content: bytes) -> None:
    """A machine can die while the line is written."""
    attempts, (unit,) = Attempts(tmp_path), units(1)
    (tmp_path / BEGUN).mkdir()
    (tmp_path / BEGUN / unit.name).write_bytes(content)
    assert attempts.history(unit).guilty == frozenset()
    assert not attempts.history(unit).careful


class Watching(Threshold):
    """Notes what is begun while an image is on the device."""

    def __init__(self, run: SmallRun) -> None:
        super().__init__()
        self._folder = run.journal.folder / BEGUN
        self.begun: dict[int, dict[str, str]] = {}

    def called(self, images: Sequence[NDArray[Any]]) -> None:
        super().called(images)
        for image in images:
            self.begun[int(image.max())] = dict(self._noted())

    def _noted(self) -> Iterator[tuple[str, str]]:
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another unit was committed meanwhile, in another thread
                yield path.name, path.read_text()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Planned, not begun: a unit of three images and one of a single image."""
    run = small_run(tmp_path, monkeypatch)
    for number in range(3):
        run.put(f"{number}.tif", picture(number + 1, value=150 + number))
    run.put("wide.tif", picture(7, (40, 62), value=170))
    write_plan(run.prepared(), run.notes)
    return run


def test_every_unit_is_noted_while_it_is_in_hand(run: SmallRun) -> None:
    """Before its first image reaches the device, and until it is committed."""
    watching = Watching(run)
    run.segment(watching)
    assert all("40x50-000000" in watching.begun[value] for value in (150, 151, 152))
    assert "40x62-000000" in watching.begun[170]
    assert not (run.journal.folder / BEGUN).exists()


def test_a_unit_on_which_processes_died_is_done_plane_by_plane_after_all_others(run: SmallRun) -> None:
    """So that the next death names the plane, and costs nobody else; the result is what it always is."""
    attempts = Attempts(run.journal.folder)
    died(attempts, run.units[0], CAREFUL_AFTER)
    watching = Watching(run)
    assert run.segment(watching).new_planes == 4
    assert watching.shown == [170, 150, 151, 152]
    noted = [watching.begun[150 + number][run.units[0].name].splitlines() for number in range(3)]
    assert noted == [["begin"] * 4 + [f"plane {i}" for i in range(number + 1)] for number in range(3)]
    assert "3 processes died on it" in run.notes.text
    before = run.results()
    run.journal.retract(run.units[0])
    run.segment()
    assert run.results() == before


def test_a_plane_on_which_process_after_process_died_is_given_up(run: SmallRun) -> None:
    """It becomes a failure like any other; the rest of its unit is done."""
    attempts = Attempts(run.journal.folder)
    died(attempts, run.units[0], CAREFUL_AFTER)
    died(attempts, run.units[0], FAILS_AFTER, plane=1)
    summary = run.segment()
    assert sorted(run.segmenter.shown) == [150, 152, 170], "in whatever order, but never the plane that kills"
    (failure,) = summary.failures
    assert (failure.image, failure.error) == ("1.tif", KILLED)
    assert summary.new_planes == 3
    assert not (run.journal.folder / BEGUN).exists()
    assert run.segment().failures == (), "a later call tries once more: the memory may suffice then"


def test_a_region_on_which_process_after_process_died_fails_its_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regions are blamed as planes are."""
    run = small_run(tmp_path, monkeypatch)
    run.put("slide.tif", mosaic())
    write_plan(run.prepared(), run.notes)
    attempts = Attempts(run.journal.folder)
    died(attempts, run.units[1], CAREFUL_AFTER)
    watching = Watching(run)
    assert run.segment(watching).new_planes == 4
    run.journal.retract(run.units[1])
    died(attempts, run.units[1], CAREFUL_AFTER)
    died(attempts, run.units[1], FAILS_AFTER, plane=0)
    summary = run.segment()
    assert [(one.image, one.error) for one in summary.failures] == [("slide.tif", KILLED)]
    assert run.segmenter.shown == []
    assert isinstance(run.marker(run.units[1]).planes[0], Failure)


def test_a_full_disk_blames_no_unit(run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that ends the run in good order is no death."""
    from nucseg_batch.errors import StorageError
    from nucseg_batch.files.masks.store import MaskWriter

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as now:
        now.setattr(MaskWriter, "write", full)
        with pytest.raises(StorageError, match="No space left"):
            run.segment()
    assert Attempts(run.journal.folder).begun() == set()
    assert run.segment().new_planes == 4
    assert np.all([run.journal.marker(unit) is not None for unit in run.units])
