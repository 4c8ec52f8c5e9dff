from __future__ import annotations

import os
from pathlib import Path

import pytest
from group_files import written

from nucseg_batch.machine.cores import available_cores, needed_threads


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 48 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(48)))


def cores(place: Path, files: dict[str, str], groups: str = "0::/job/step\n", **environment: str) -> int:
    """What is available under control groups of these files."""
    return available_cores(environment, *written(place, files, groups))


def test_without_limits_the_affinity_counts(tmp_path: Path) -> None:
    """As where there are no control groups at all."""
    assert available_cores({}, tmp_path / "none", tmp_path) == 48
    assert cores(tmp_path, {"job/step/cpu.max": "max 100000\n"}) == 48


@pytest.mark.parametrize(("quota", "expected"), [("400000 100000", 4), ("250000 100000", 2), ("20000 100000", 1)])
def test_a_quota_counts_in_whole_cores_and_at_least_one(tmp_path: Path, quota: str, expected: int) -> None:
    """A container with half a core still does its work."""
    assert cores(tmp_path, {"job/step/cpu.max": quota}) == expected


def test_the_least_quota_of_a_group_and_those_around_it_counts(tmp_path: Path) -> None:
    """A step of a job has what the job has."""
    assert cores(tmp_path, {"job/step/cpu.max": "max 100000", "job/cpu.max": "600000 100000"}) == 6
    assert cores(tmp_path, {"cpu.max": "300000 100000"}) == 3, "in a container, which sees itself at the top"


def test_control_groups_of_version_1_count(tmp_path: Path) -> None:
    """Each controller has a tree of its own there."""
    groups = "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n"
    files = {"cpu,cpuacct/job/cpu.cfs_quota_us": "700000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"}
    assert cores(tmp_path, files, groups) == 7
    unlimited = files | {"cpu,cpuacct/job/cpu.cfs_quota_us": "-1\n"}
    assert cores(tmp_path, unlimited, groups) == 48


def test_a_slurm_task_has_its_cores(tmp_path: Path) -> None:
    """On clusters that do not bind tasks to cores, the variable is all that says so."""
    assert cores(tmp_path, {}, SLURM_CPUS_PER_TASK="8") == 8
    assert cores(tmp_path, {"cpu.max": "500000 100000"}, SLURM_CPUS_PER_TASK="8") == 5
    assert cores(tmp_path / "other", {}, SLURM_CPUS_PER_TASK="many") == 48


def test_damaged_files_limit_nothing(tmp_path: Path) -> None:
    """They belong to the system, and are read in passing."""
    assert cores(tmp_path, {"job/step/cpu.max": "what\n", "job/cpu.max": "1 0"}) == 48


def test_a_library_is_told_only_what_it_does_not_know_itself() -> None:
    """It sees the affinity, and a number that the user has set counts more than ours."""
    assert needed_threads({}) is None
    assert needed_threads({"SLURM_CPUS_PER_TASK": "8"}) == 8
    assert needed_threads({"SLURM_CPUS_PER_TASK": "8", "OMP_NUM_THREADS": "2"}) is None
