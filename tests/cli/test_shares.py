from __future__ import annotations

import pytest

from nucseg_batch.cli.shares import ARRAYS, array_number, share_of
from nucseg_batch.errors import UsageError


@pytest.fixture(autouse=True)
def no_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may themselves run in an array job."""
    for name, _ in ARRAYS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("text", ["0/1", "0/64", "7/64", "63/64"])
def test_a_share_is_said_as_number_and_count(text: str) -> None:
    """Counted from 0, as arrays are."""
    number, count = share_of(text, count_needed=True)
    assert f"{number}/{count}" == text
    assert share_of(text, count_needed=False) == (number, count)


def test_with_a_planned_run_the_number_alone_will_do() -> None:
    """The plan knows how many there are."""
    assert share_of("7", count_needed=False) == (7, None)
    with pytest.raises(UsageError, match="K/N"):
        share_of("7", count_needed=True)


def test_nothing_said_is_no_share() -> None:
    """All of a run."""
    assert share_of(None, count_needed=True) == share_of(None, count_needed=False) == (None, None)


@pytest.mark.parametrize("needed", [True, False])
@pytest.mark.parametrize(
    "text",
    ["64/64", "65/64", "-1/64", "1/0", "0/0", "a/b", "/4", "1/", "1/4/8", "", " 1/4", "1 / 4", "1.0/4", "²/4", "1/-4"],
)
def test_what_is_no_share_is_refused(text: str, needed: bool) -> None:
    """A number that is off by one would leave units undone or end with another task's."""
    with pytest.raises(UsageError, match="--share") as refused:
        share_of(text, count_needed=needed)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "value", "number"),
    [
        ("SLURM_ARRAY_TASK_ID", "0", 0),
        ("SLURM_ARRAY_TASK_ID", "7", 7),
        ("PBS_ARRAY_INDEX", "0", 0),
        ("PBS_ARRAY_INDEX", "7", 7),
        ("PBS_ARRAYID", "7", 7),
        ("SGE_TASK_ID", "1", 0),
        ("SGE_TASK_ID", "8", 7),
        ("LSB_JOBINDEX", "8", 7),
    ],
)
def test_an_array_job_says_which_share_it_is(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, number: int
) -> None:
    """Grid Engine and LSF count from 1."""
    monkeypatch.setenv(name, value)
    assert array_number(8) == number


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SGE_TASK_ID", "undefined"),
        ("SGE_TASK_ID", "0"),
        ("LSB_JOBINDEX", "0"),
        ("SLURM_ARRAY_TASK_ID", ""),
        ("SLURM_ARRAY_TASK_ID", "-1"),
        ("PBS_ARRAYID", "x"),
    ],
)
def test_a_job_that_is_no_array_has_no_number(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Grid Engine and LSF set their variables in every job: then this process does all that is missing."""
    monkeypatch.setenv(name, value)
    assert array_number(8) is None


def test_outside_of_an_array_there_is_no_number() -> None:
    """On somebody's own machine."""
    assert array_number(8) is None


def test_a_run_that_is_not_divided_is_done_whole_in_an_array_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An array over many runs, one a task, is no array over one run's shares."""
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "5")
    assert array_number(1) is None


def test_how_many_shares_there_are_is_never_taken_from_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is sent in again alone finds a count of 1 there, and its own number as ever."""
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "5")
    for name in ("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_MIN"):
        monkeypatch.setenv(name, "1")
    assert array_number(8) == 5
