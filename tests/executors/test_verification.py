from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.errors import LockedError
from nucseg_batch.executors.job import planned
from nucseg_batch.executors.verification import VerificationResult, forget, status
from nucseg_batch.files.run.locks import held, share_lock
from nucseg_batch.files.run_layout import RunLayout

Spoil = Callable[[SmallRun], Path]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A unit of three images, one of a single image, and a large plane of four regions; all done."""
    place = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as monkeypatch:
        run = small_run(place, monkeypatch)
        for number in range(3):
            run.put(f"{number}.tif", picture(number + 2, value=150 + number))
        run.put("wide.tif", picture(7, (40, 62), value=170))
        run.put("slide.tif", mosaic())
        run.segment()
    return place


@pytest.fixture
def run(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """The same, to be spoilt."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    return small_run(tmp_path, monkeypatch)


def mended(run: SmallRun, found: VerificationResult) -> None:
    """`verify --redo`, and the same `segment` again."""
    forget(planned(run.store), found.damage, run.notes.note)
    run.segment()


def shard(run: SmallRun) -> Path:
    return next(path for path in run.masks() if "40x50" in path.as_posix())


def part(run: SmallRun) -> Path:
    return run.journal.part(next(unit for unit in run.units if unit.label_array.name == "40x50"))


def region(run: SmallRun) -> Path:
    return sorted((run.journal.folder / "regions").glob("*.found"))[2]


def large_shard(run: SmallRun) -> Path:
    return [path for path in run.masks() if "100x120" in path.as_posix()][2]


def large_rows(run: SmallRun) -> Path:
    (path,) = (run.journal.folder / "planes").glob("*.csv")
    return path


def images_table(run: SmallRun) -> Path:
    return RunLayout(run.store).tables["images"]


def nuclei_table(run: SmallRun) -> Path:
    return RunLayout(run.store).tables["nuclei"]


FILES: list[Spoil] = [shard, part, region, large_shard, large_rows, images_table, nuclei_table]


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def test_an_intact_run_is_found_intact_and_left_as_it_is(run: SmallRun) -> None:
    """Verifying is reading."""
    before = run.times()
    found = run.verify()
    assert (found.units, found.missing, found.damage) == (6, 0, ())
    assert run.times() == before


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.__name__)
@pytest.mark.parametrize("place", [0.1, 0.99])
def test_one_flipped_bit_is_found_wherever_it_is_and_mended(run: SmallRun, file: Spoil, place: float) -> None:
    """Disks and networks do that; the sums of what was written tell, and the run ends with the same bytes."""
    before = run.everything()
    flip(file(run), place)
    found = run.verify()
    assert len(found.damage) == 1
    assert (found.units, found.missing) == (6, 0)
    mended(run, found)
    assert run.everything() == before
    assert run.verify().damage == ()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.__name__)
def test_a_cut_file_is_found_and_mended(run: SmallRun, file: Spoil) -> None:
    """As a full disk or a copy that was broken off leaves it."""
    before = run.everything()
    path = file(run)
    path.write_bytes(path.read_bytes()[:-7])
    found = run.verify()
    assert (len(found.damage), found.missing) == (1, 0)
    mended(run, found)
    assert run.everything() == before


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.__name__)
def test_a_file_that_is_gone_is_found_and_mended(run: SmallRun, file: Spoil) -> None:
    """A marker without its shard among them."""
    before = run.everything()
    file(run).unlink()
    found = run.verify()
    assert (len(found.damage), found.missing) == (1, 0)
    mended(run, found)
    assert run.everything() == before


@pytest.mark.parametrize("how", ["gone", "cut", "empty", "of another"])
def test_a_unit_without_a_good_marker_is_done_again(run: SmallRun, how: str) -> None:
    """A shard without its marker is what a killed process leaves; it vouches for nothing."""
    before = run.everything()
    markers = sorted((run.journal.folder / "units").iterdir())
    for marker in (markers[0], next(path for path in markers if path.name.startswith("40x50"))):
        content = marker.read_bytes()
        marker.write_bytes(
            {"cut": content[:-9], "empty": b"", "of another": content.replace(b"tif", b"png")}.get(how, b"")
        )
        if how == "gone":
            marker.unlink()
    found = run.verify()
    assert [one.where for one in found.damage] == sorted(["100x120-000000", "40x50-000000"], reverse=True)
    assert found.missing == 0
    assert not status(run.store, run.journal).complete
    assert run.segment().new_planes == 4
    assert run.everything() == before


def test_what_was_never_done_is_no_damage(run: SmallRun) -> None:
    """Half a run verifies well, and says how much it is not."""
    run.journal.retract(run.units[0])
    run.finish()
    found = run.verify()
    assert (found.units, found.missing, found.damage) == (5, 1, ())


def test_a_shard_where_none_should_be_is_found(run: SmallRun) -> None:
    """A plane without nuclei has no file; one that appears there would be masks that nobody made."""
    for number in range(3):
        run.put(f"{number}.tif", picture(0))
    run.segment()
    before = run.everything()
    (other,) = [path for path in run.masks() if "40x62" in path.as_posix()]
    stray = run.store / "40x50" / "labels" / "nuclei" / "0" / "c" / "0" / "0" / "0"
    assert not stray.exists()
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(other.read_bytes())
    found = run.verify()
    assert [one.where for one in found.damage] == ["40x50-000000"]
    mended(run, found)
    assert run.everything() == before


def test_temporary_files_are_no_damage_and_go_when_their_unit_is_done_again(run: SmallRun) -> None:
    """What a killed writer left under a temporary name is never taken for a result."""
    before = run.everything()
    (unit,) = [unit for unit in run.units if unit.label_array.name == "40x50"]
    strays = [
        shard(run).with_name(f".{shard(run).name}.node-7-1.partial"),
        run.journal.folder / "units" / f".{unit.name}.json.node-7-2.partial",
        run.journal.folder / "parts" / f".{unit.name}.nuclei.csv.node-7-3.partial",
    ]
    for stray in strays:
        stray.write_bytes(b"half")
    assert run.verify().damage == ()
    run.journal.retract(unit)
    run.segment()
    assert not any(stray.exists() for stray in strays)
    assert run.everything() == before


def test_damage_is_not_forgotten_while_somebody_is_at_the_run(run: SmallRun) -> None:
    """Markers of a share in work are its own."""
    flip(shard(run))
    found = run.verify()
    with (
        held(run.journal.folder, [share_lock(0)], tell=run.notes.note),
        pytest.raises(LockedError, match="share-00000 is in use"),
    ):
        forget(planned(run.store), found.damage, run.notes.note)
    assert len(run.verify().damage) == 1


def test_the_pixels_beside_the_masks_are_verified_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are corrected and learnt from on top of them."""
    run = small_run(tmp_path, monkeypatch, with_images=True)
    run.put("a.tif", picture(3))
    run.put("slide.tif", mosaic())
    run.segment()
    before = run.everything()
    for name in ("40x50", "100x120"):
        flip(next(path for path in sorted((run.store / name / "0" / "c").rglob("*")) if path.is_file()))
    found = run.verify()
    assert len(found.damage) == 2
    mended(run, found)
    assert run.everything() == before


def test_a_damaged_ring_is_found_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whole planes and of a region; and so is a damaged cell, or one that is gone."""
    run = small_run(tmp_path, monkeypatch, ring="1,2", expand="3")
    run.put("a.tif", picture(3))
    run.put("slide.tif", mosaic())
    run.segment()
    before = run.everything()
    for label in ("rings", "cells"):
        arrays = [run.store / name / "labels" / label / "0" / "c" for name in ("40x50", "100x120")]
        small, large = (sorted(path for path in array.rglob("*") if path.is_file()) for array in arrays)
        flip(small[0])
        large[2].unlink()
        found = run.verify()
        assert [one.where for one in found.damage] == ["40x50-000000", "100x120-plane-000000"]
        mended(run, found)
        assert run.everything() == before


def test_status_counts_share_by_share_and_names_who_is_at_it(run: SmallRun) -> None:
    """One look says what to send in again; and looking changes nothing."""
    before = run.times()
    now = status(run.store, run.journal)
    assert (now.complete, now.finished, now.failures) == (True, True, 0)
    assert [(share.units, share.done, share.holder) for share in now.shares] == [(6, 6, None)]
    record = now.record()
    assert (record["images"], record["planes"], record["units"], record["units_done"]) == (5, 5, 6, 6)
    run.journal.retract(run.units[0])
    with held(run.journal.folder, [share_lock(0)], job="Slurm job 17", tell=run.notes.note):
        now = status(run.store, run.journal)
    assert (now.complete, now.finished) == (False, False)
    assert [(share.units, share.done) for share in now.shares] == [(6, 5)]
    assert (now.shares[0].holder or "").endswith("Slurm job 17")
    assert run.times().keys() == before.keys() - {f"out.run/units/{run.units[0].name}.json", "out.run/finished.json"}
    assert all(run.times()[name] == before[name] for name in run.times())
