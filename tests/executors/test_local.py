from __future__ import annotations

import csv
import threading
from pathlib import Path

import pytest
from doubles import Threshold
from small_runs import Notes, SmallRun, mosaic, picture, small_run

from nucseg_batch.cli.main import main
from nucseg_batch.errors import FailuresError, LockedError, MismatchError, UsageError
from nucseg_batch.executors import local
from nucseg_batch.executors.executor import NeverStopping
from nucseg_batch.executors.job import planned
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.locks import held, share_lock
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.settings import RunSettings


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Twelve images of four shapes: four units of three. Nothing is done."""
    run = small_run(tmp_path, monkeypatch)
    for shape in range(4):
        for other in range(3):
            pixels = picture(shape + other, (40, 50 + 2 * shape), 150 + 10 * shape + other)
            run.put(f"{shape}{other}.tif", pixels)
    return run


def units_done(run: SmallRun) -> int:
    return sum(run.journal.marker(unit) is not None for unit in run.units)


def test_a_run_ends_with_the_first_failure_where_one_is_too_many(run: SmallRun) -> None:
    """What was done before stays done, and the same command without the option goes on."""
    with pytest.raises(FailuresError, match=r"stopped after 1 failure, the last of 11\.tif") as stopped:
        run.segment(Threshold(poison=[161]), max_failures="0")
    assert stopped.value.exit_code == 3
    assert units_done(run) < 4
    assert not RunLayout(run.store).tables["images"].exists()
    summary = run.segment(Threshold(poison=[161]))
    assert (len(summary.failures), summary.outcome.planes) == (1, 11)


@pytest.mark.parametrize(("most", "stops"), [("1", True), ("2", False), ("8%", True), ("17%", False)])
def test_more_failures_than_allowed_end_a_run(run: SmallRun, most: str, stops: bool) -> None:
    """A disk that was not mounted should not cost a night; two bad images of twelve should not end one."""
    segmenter = Threshold(poison=[151, 171])
    if stops:
        with pytest.raises(FailuresError, match="stopped after"):
            run.segment(segmenter, max_failures=most)
        assert units_done(run) < 4
    else:
        assert len(run.segment(segmenter, max_failures=most).failures) == 2


def test_failures_of_regions_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slide that cannot be read fails region by region."""
    run = small_run(tmp_path, monkeypatch)
    run.put("slide.tif", mosaic())
    with pytest.raises(FailuresError, match=r"slide\.tif"):
        run.segment(Threshold(poison=range(256)), max_failures="1")
    assert len(run.segment(Threshold(poison=range(256)), retry_failed=True).failures) == 1


@pytest.mark.parametrize("text", ["some", "-1", "5 images", "", "%", "1.5"])
def test_what_is_no_number_of_failures_is_refused(text: str) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError, match="max_failures"):
        RunSettings(max_failures=text)


def test_fail_fast_ends_the_command_with_3(
    run: SmallRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says which image it was and how to go on."""
    run.segmenter = Threshold(poison=[161])
    command = ["segment", str(run.folder), str(run.store), "--diameter", "26"]
    for options, said in ((["--fail-fast"], "stopped after 1 failure"), (["--max-failures", "3"], "1 failed")):
        with pytest.raises(SystemExit) as stopped:
            main([*command, *options])
        assert stopped.value.code == 3
        told = capsys.readouterr()
        assert said in told.err + told.out
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--fail-fast", "--max-failures", "3"])
    assert stopped.value.code == 2


def test_a_retry_reads_only_what_failed(run: SmallRun) -> None:
    """A unit holds thousands of images; one bad one must not cost reading them all once more."""
    assert len(run.segment(Threshold(poison=[161, 180])).failures) == 2
    failed = run.results()
    summary = run.segment(retry_failed=True)
    assert sorted(run.reads) == ["11.tif", "30.tif"]
    assert sorted(run.segmenter.shown) == [161, 180]
    assert (summary.new_planes, summary.failures, summary.outcome.planes) == (2, (), 12)
    changed = {name for name, content in run.results().items() if failed.get(name) != content}
    assert {name for name in changed if "/c/" in name} == {
        f"out.zarr/40x{width}/labels/nuclei/0/c/0/0/0" for width in (52, 56)
    }


def test_after_a_retry_everything_is_as_if_nothing_had_failed(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, tables and run folder included."""
    run.segment(Threshold(poison=[161, 180]))
    run.segment(retry_failed=True)
    other = small_run(tmp_path / "other", monkeypatch)
    for path in run.folder.iterdir():
        (other.folder / path.name).write_bytes(path.read_bytes())
    other.segment()
    assert run.results() == other.results()


def test_shares_are_done_alone_and_name_what_failed_of_their_own(run: SmallRun) -> None:
    """A task of an array ends with 3 for its own bad images, never for those of another."""
    first = run.segment(Threshold(poison=[151]), share=0, shares=2)
    assert [failure.image for failure in first.failures] == ["01.tif"]
    assert (first.outcome.whole, first.outcome.planes + len(first.outcome.failures)) == (False, 6)
    last = run.segment(share=1, shares=2)
    assert (last.outcome.whole, last.failures, last.outcome.planes) == (True, (), 11)
    with open(RunLayout(run.store).tables["failures"], newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["01.tif"]
    assert {path.name for path in run.journal.folder.glob("log*.txt")} == {"log-00000.txt", "log-00001.txt"}


def test_two_processes_never_do_one_share(run: SmallRun) -> None:
    """The second is told who is at it, and other shares go on meanwhile."""
    run.segment(share=0, shares=3)
    with held(run.journal.folder, [share_lock(1)], job="PBS job 5", tell=run.notes.note):
        with pytest.raises(LockedError, match=r"share-00001 is in use by process \d+ on .*PBS job 5") as refused:
            run.segment(share=1, shares=3)
        assert refused.value.exit_code == 75
        with pytest.raises(LockedError, match="share-00001"):
            run.segment()
        assert run.segment(share=2, shares=3).new_planes > 0
    assert run.segment().outcome.whole


def test_how_a_run_is_divided_is_settled_by_its_plan(run: SmallRun) -> None:
    """Two tasks with different ideas of it would do some units twice and others never."""
    run.segment(share=0, shares=3)
    for options in ({"share": 0, "shares": 4}, {"share": 3, "shares": None}, {"share": 0, "shares": 1}):
        with pytest.raises(MismatchError, match="shares"):
            run.segment(**options)
    assert planned(run.store, RunSettings(share=2)).shares == [2]
    with pytest.raises(MismatchError, match="counted from 0, so the last is 2"):
        planned(run.store, RunSettings(share=3))
    assert planned(run.store, otherwise=lambda shares: shares - 1).options.share == 2


def test_a_share_that_has_nothing_to_do_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More shares than units happen where a script divides every run alike."""
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(3))
    new = [run.segment(share=share, shares=4).new_planes for share in range(4)]
    assert sum(new) == 1
    assert run.segment(share=0, shares=4).outcome.whole


def test_all_shares_that_are_missing_are_done_at_once(run: SmallRun) -> None:
    """Whoever has a free machine can finish what an array left."""
    run.segment(share=1, shares=3)
    done = planned(run.store)
    run.segmenter = Threshold()
    summary = local.run(done, run.notes)
    assert summary.outcome.whole
    assert 0 < summary.new_planes < 12
    assert units_done(run) == 4


def test_threads_that_begin_a_run_together_write_one_plan(run: SmallRun) -> None:
    """As the tasks of an array do, all in the same second: the first plans, the others take its plan over."""
    jobs = [run.prepared(shares=4, share=share) for share in range(4)]
    assert not any(job.resumed for job in jobs)
    trouble: list[BaseException] = []

    def work(number: int) -> None:
        try:
            local.run(jobs[number], Notes())
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert trouble == []
    assert run.segment().new_planes == 0
    assert run.verify().damage == ()
    assert not list(run.store.parent.rglob("*.partial"))


class AskedAt(NeverStopping):
    """Asks to stop when a unit is about to be begun, after so many others."""

    def __init__(self, units: int) -> None:
        self._left = units

    @property
    def asked(self) -> bool:  # type: ignore[override]
        self._left -= 1
        return self._left < 0


def test_a_run_that_is_asked_to_stop_finishes_what_it_has_in_hand(run: SmallRun) -> None:
    """Units that were begun are committed, no further one is, and none is noted as having killed a process."""
    run.segmenter = Threshold()
    local.run(run.prepared(), run.notes, AskedAt(2))
    assert units_done(run) == 2
    assert Attempts(run.journal.folder).begun() == set()
    assert run.segment().new_planes == 6
