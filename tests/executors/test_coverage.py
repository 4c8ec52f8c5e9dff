from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.errors import OutputError
from nucseg_batch.executors.coverage import Scope
from nucseg_batch.executors.job import planned
from nucseg_batch.executors.verification import VerificationResult, forget, status, verify
from nucseg_batch.files.run.verified import Verified, VerifiedRecords

DAY = 86400.0
START = 1_600_000_000.0


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Units of whole planes and of regions, a large plane, stacks, metadata and tables; all done."""
    place = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as monkeypatch:
        run = small_run(place, monkeypatch)
        for number in range(3):
            run.put(f"{number}.tif", picture(number + 2, (40, 50 + 2 * number)))
        run.put("slide.tif", mosaic())
        run.segment()
    return place


@pytest.fixture
def run(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """The same, to be verified and spoilt."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    return small_run(tmp_path, monkeypatch)


def verified(run: SmallRun, when: float = START, **scope: object) -> VerificationResult:
    """A call of `verify` at a time."""
    return verify(planned(run.store), lambda done, total: None, Scope(**scope), now=when, tell=run.notes.note)  # type: ignore[arg-type]


def entries(run: SmallRun) -> dict[str, list[object]]:
    """What the run folder has of calls of `verify`, which is one file where they came one after the other."""
    (path,) = (run.journal.folder / "verified").iterdir()
    return dict(json.loads(path.read_bytes()))


def names_of(run: SmallRun, when: float) -> set[str]:
    """The results that the call at a time read."""
    return {name for name, entry in entries(run).items() if entry[0] == when}


def flip(path: Path) -> None:
    """A bit that rots on the disk: size and time stay."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def shard(run: SmallRun, name: str = "40x50") -> Path:
    return next(path for path in run.masks() if name in path.as_posix())


def test_a_whole_verification_notes_every_result_once(run: SmallRun) -> None:
    found = verified(run)
    assert found.coverage.results == found.results == found.coverage.verified == len(entries(run))
    assert found.coverage.oldest == START
    kinds = {name.partition(":")[0] for name in entries(run)}
    assert kinds == {"unit", "plane", "metadata", "table"}


@pytest.mark.parametrize("shares", [2, 7, 100])
def test_shares_read_every_result_once_and_together_all_units(run: SmallRun, shares: int) -> None:
    seen: list[str] = []
    units = 0
    for share in range(shares):
        when = START + share
        found = verified(run, when, share=share, shares=shares)
        units += found.units
        seen += sorted(names_of(run, when)) if found.results else []
    assert len(seen) == len(set(seen)) == len(entries(run)) == verified(run).results
    assert units == len(run.units)


def test_a_share_is_the_same_whenever_it_is_read(run: SmallRun) -> None:
    """What other calls verified is nothing to it."""
    verified(run, share=1, shares=3)
    first = names_of(run, START)
    verified(run, START + DAY)
    verified(run, START + 2 * DAY, share=1, shares=3)
    assert names_of(run, START + 2 * DAY) == first


@pytest.mark.parametrize("percent", ["1", "13", "33.3", "50", "100"])
def test_samples_cover_all_in_the_number_of_calls_that_the_percentage_says(run: SmallRun, percent: str) -> None:
    sample = Fraction(percent) / 100
    calls = -(-1 // sample)
    seen: set[str] = set()
    for call in range(calls):
        found = verified(run, START + call, sample=sample)
        assert 0 < found.results <= max(1, -(-sample * found.coverage.results // 1))
        if len(seen) < found.coverage.results:  # nothing is read again as long as there is anything never read
            again = names_of(run, START + call) & seen
            assert not again or len(seen | names_of(run, START + call)) == found.coverage.results
        seen |= names_of(run, START + call)
    assert found.coverage.verified == found.coverage.results == len(seen)


def test_after_all_is_covered_samples_read_what_was_verified_longest_ago(run: SmallRun) -> None:
    half = Fraction(1, 2)
    for day in range(2):
        verified(run, START + day * DAY, sample=half)
    first = names_of(run, START)
    verified(run, START + 2 * DAY, sample=half)
    assert first <= names_of(run, START + 2 * DAY)


def test_a_sample_is_the_same_for_the_same_record_and_has_every_kind_in_proportion(run: SmallRun) -> None:
    """Were it otherwise, the many files of metadata could be read for weeks, and no mask."""
    verified(run, sample=Fraction(1, 2))
    first = names_of(run, START)
    shutil.rmtree(run.journal.folder / "verified")
    verified(run, sample=Fraction(1, 2))
    assert names_of(run, START) == first
    verified(run, START + 1)
    whole = Counter(name.partition(":")[0] for name in entries(run))
    for kind, count in Counter(name.partition(":")[0] for name in first).items():
        assert abs(count - whole[kind] / 2) <= 1


def test_since_reads_what_was_not_verified_since_then(run: SmallRun) -> None:
    verified(run, share=0, shares=2)
    old = names_of(run, START)
    rest = verified(run, START + 10 * DAY, since=START)
    assert rest.results == rest.coverage.results - len(old)
    assert verified(run, START + 11 * DAY, since=START).results == 0
    again = verified(run, START + 31 * DAY, since=START + DAY)
    assert names_of(run, START + 31 * DAY) == old
    assert again.coverage.oldest == START + 10 * DAY


def test_a_sample_of_a_share_takes_only_what_is_due(run: SmallRun) -> None:
    """All three add up."""
    verified(run, share=0, shares=2)
    due = verified(run, START + DAY, share=0, shares=2, sample=Fraction(1, 2), since=START)
    assert due.results == 0
    some = verified(run, START + DAY, share=1, shares=2, sample=Fraction(1, 2), since=START)
    assert some.results == -(-(some.coverage.results // 2) // 2)


def test_a_unit_that_was_segmented_again_is_no_longer_verified(run: SmallRun) -> None:
    """Its new masks were never read, whatever was found of the old ones; so with tables."""
    whole = verified(run).results
    unit = next(unit for unit in run.units if unit.label_array.name == "40x52")
    run.journal.retract(unit)
    run.segment()
    now = status(run.store, run.journal).coverage
    assert now.verified < now.results == whole
    verified(run, START + DAY, since=START)
    assert f"unit:{unit.name}" in names_of(run, START + DAY)
    assert "table:images.csv" in names_of(run, START + DAY)
    assert "unit:100x120-000000" not in names_of(run, START + DAY)


def test_what_is_damaged_is_read_by_every_call_until_it_is_mended(run: SmallRun) -> None:
    """A schedule must not report damage once and be silent from then on."""
    verified(run)
    before = run.everything()
    flip(shard(run))
    assert verified(run, START + DAY, since=START).damage == ()  # not due: it was read at that time
    assert [one.where for one in verified(run, START + 2 * DAY).damage] == ["40x50-000000"]
    for day in (3, 4):
        found = verified(run, START + day * DAY, since=START)
        assert [one.where for one in found.damage] == ["40x50-000000"]
        found = verified(run, START + day * DAY + 1, sample=Fraction(1, 100))
        assert [one.where for one in found.damage] == ["40x50-000000"]
        assert found.coverage.verified == found.coverage.results - 1
    forget(planned(run.store), found.damage, run.notes.note)
    run.segment()
    mended = verified(run, START + 5 * DAY, since=START)
    assert (mended.damage, mended.coverage.verified) == ((), mended.coverage.results)
    assert run.everything() == before


def test_a_sample_reads_what_was_found_damaged_first(run: SmallRun) -> None:
    """Also where most of the run was never verified: a share found the damage, and no other result was read."""
    results = verified(run, share=0, shares=10**6).coverage.results
    shutil.rmtree(run.journal.folder / "verified")
    path = shard(run, "40x54")
    flip(path)
    (share,) = (one for one in range(results) if verified(run, share=one, shares=results).damage)
    shutil.rmtree(run.journal.folder / "verified")
    assert verified(run, share=share, shares=results).results == 1
    found = verified(run, START + DAY, sample=Fraction(1, 10**6))
    assert ([one.where for one in found.damage], found.results) == (["40x54-000000"], 1)


SPOILT = [
    ("deleted", Path.unlink),
    ("cut", lambda path: os.truncate(path, path.stat().st_size - 7)),
    ("written again", lambda path: path.write_bytes(path.read_bytes())),
]


@pytest.mark.parametrize("spoil", [spoil for _, spoil in SPOILT], ids=[name for name, _ in SPOILT])
@pytest.mark.parametrize("what", ["mask", "mask of a large plane", "rows", "rows of a large plane", "region"])
def test_a_file_that_something_else_changed_is_not_verified_any_more(
    run: SmallRun, what: str, spoil: Callable[[Path], None]
) -> None:
    """Its size and time show it without reading: `status` knows it, and any sample reads it, however small."""
    whole = verified(run).coverage.results
    path = {
        "mask": lambda: shard(run, "40x52"),
        "mask of a large plane": lambda: shard(run, "100x120"),
        "rows": lambda: run.journal.folder / "parts" / "40x52-000000.nuclei.csv",
        "rows of a large plane": lambda: next((run.journal.folder / "planes").glob("*.csv")),
        "region": lambda: next((run.journal.folder / "regions").iterdir()),
    }[what]()
    spoil(path)
    assert status(run.store, run.journal).coverage.verified == whole - 1
    found = verified(run, START + DAY, sample=Fraction(1, 10**6))
    harmless = spoil is SPOILT[2][1]
    assert len(found.damage) == (0 if harmless else 1)
    assert found.results == 2
    assert found.coverage.verified == whole - (not harmless)


@pytest.mark.parametrize("what", ["mask", "mask of a large plane", "rows", "region", "metadata", "table"])
def test_a_file_that_was_never_read_and_is_missing_is_noticed_by_any_sample(run: SmallRun, what: str) -> None:
    """Its size was recorded when it was written."""
    path = {
        "mask": lambda: shard(run, "40x52"),
        "mask of a large plane": lambda: shard(run, "100x120"),
        "rows": lambda: run.journal.folder / "parts" / "40x52-000000.nuclei.csv",
        "region": lambda: next((run.journal.folder / "regions").iterdir()),
        "metadata": lambda: run.store / "40x52" / "labels" / "zarr.json",
        "table": lambda: run.store.with_suffix(".nuclei.csv"),
    }[what]()
    path.unlink()
    found = verified(run, sample=Fraction(1, 10**6))
    assert (len(found.damage), found.results) == (1, 2)
    assert found.coverage.verified == 1


def test_a_sample_of_a_sound_run_reads_no_more_than_its_part(run: SmallRun) -> None:
    """Also before anything was verified, and of masks without nuclei, which have no file."""
    run.put("none.tif", picture(0, (30, 41)))
    run.segment()
    results = verified(run, sample=Fraction(1, 10**6))
    assert (results.results, results.damage) == (1, ())


def test_units_that_are_not_done_take_no_place_in_a_sample(run: SmallRun) -> None:
    """They would be the ones that were never verified, call after call."""
    for unit in run.units[:-1]:
        run.journal.retract(unit)
    found = verified(run, sample=Fraction(1, 100))
    assert (found.units, found.missing, found.results) == (1, 0, 1)
    assert verified(run, START + 1).missing == len(run.units) - 1
    run.segment()
    now = status(run.store, run.journal).coverage
    assert now.verified == 1


def test_a_large_plane_that_failed_is_covered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never has masks; samples come round all the same."""
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(3))
    path = run.put("slide.tif", mosaic())
    path.write_bytes(path.read_bytes()[:9000])
    assert run.segment().failures
    assert verified(run).damage == ()
    assert verified(run, START + DAY, since=START).results == 0


def test_stacks_are_results_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run(tmp_path, monkeypatch, link="z", axes="ZYX")
    run.put("a.tif", np.stack([picture(count) for count in (3, 4, 2, 3, 1)]))
    run.segment()
    found = verified(run)
    assert found.damage == ()
    assert any(name.startswith("stacks:") for name in entries(run))
    volumes = next(path for path in sorted(run.store.glob("*/labels/volumes/0/c/**/*")) if path.is_file())
    flip(volumes)
    assert [bool(one.stacks) for one in verified(run, START + 1).damage] == [True]


def test_calls_at_the_same_time_lose_nothing_of_each_other(run: SmallRun) -> None:
    """As the tasks of a job array: each began before the others ended."""
    first, second = (VerifiedRecords(run.journal.folder) for _ in range(2))
    first.add("unit:a", Verified(START, 1, True, 5, 6))
    second.add("unit:b", Verified(START, 2, True, 5, 6))
    first.add("unit:c", Verified(START, 3, True, 5, 6))
    second.add("unit:c", Verified(START, 3, False, 5, 6))
    first.save()
    second.save()
    first.save()
    third = VerifiedRecords(run.journal.folder)
    expected = [(START, 1, True, 5, 6), (START, 2, True, 5, 6), (START, 3, False, 5, 6)]
    assert [third.entry(f"unit:{name}") for name in "abc"] == expected
    third.save()
    assert len(list((run.journal.folder / "verified").iterdir())) == 1


def test_a_damaged_record_is_verification_that_is_done_again(run: SmallRun) -> None:
    verified(run)
    (path,) = (run.journal.folder / "verified").iterdir()
    path.write_bytes(path.read_bytes()[:-50])
    assert status(run.store, run.journal).coverage.verified == 0
    found = verified(run, START + 1, sample=Fraction(1, 10))
    assert found.coverage.verified == found.results > 0


def test_a_time_still_to_come_does_not_count(run: SmallRun) -> None:
    """A clock that was wrong once must not keep results from being read for years."""
    whole = verified(run, START + 3650 * DAY).results
    assert verified(run, START, since=START - DAY).results == whole


def test_a_stopped_call_keeps_what_it_had_read(run: SmallRun) -> None:
    def step(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(planned(run.store), step, now=START)
    assert len(entries(run)) == 3
    assert not verified(run, START + 1, since=START).damage
    assert names_of(run, START) | names_of(run, START + 1) == set(entries(run))


def test_a_file_in_place_of_the_record_is_reported(run: SmallRun) -> None:
    """As where the folder cannot be made: all is verified, and a sample, which would never come round, is refused."""
    (run.journal.folder / "verified").write_bytes(b"")
    assert verified(run).damage == ()
    assert "cannot be recorded" in run.notes.text
    with pytest.raises(OutputError, match="use --share"):
        verified(run, sample=Fraction(1, 2))


def test_status_has_the_coverage_and_starting_over_forgets_it(run: SmallRun) -> None:
    assert status(run.store, run.journal).coverage.oldest is None
    found = verified(run, share=0, shares=2)
    assert status(run.store, run.journal).record()["coverage"] == dataclasses.asdict(found.coverage)
    run.journal.clear()
    assert not (run.journal.folder / "verified").exists()
