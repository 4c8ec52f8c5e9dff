"""How many processes a run gets on a machine, which GPU each uses, and how much of its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from small_runs import Notes
from test_gpus import fake_driver

from nucseg_batch.executors import processes
from nucseg_batch.executors.job import prepare
from nucseg_batch.executors.processes import CONTEXT_MEMORY, ProcessPlan, granted_memory, plan_processes
from nucseg_batch.machine.gpus import AS_NEEDED, Gpu, Grant
from nucseg_batch.settings import SegmentSettings

GIB = 2**30


def planned(**given: Any) -> ProcessPlan:
    """The plan for much work on a node with 16 cores, 128 GiB and one GPU of 80 GiB."""
    options: dict[str, Any] = {
        "cores": 16,
        "gpus": [Gpu("GPU-a", "0", "H100", 80 * GIB)],
        "host_memory": 128 * GIB,
        "memory_each": 2 * 10**9,
        "pixels": 10**12,
        "image_pixels": 256**2,
    }
    return plan_processes(**{**options, **given})


def test_on_a_processor_one_process_does_it_unless_more_are_asked_for() -> None:
    """Its threads keep the cores busy."""
    assert (planned(gpus=[]).count, planned(gpus=[]).cores) == (1, 16)
    asked = planned(gpus=[], asked=3)
    assert (asked.gpus, asked.grants, asked.cores) == ((None,) * 3, (None,) * 3, 5)


def test_a_gpu_gets_as_many_processes_as_cores_can_feed_it() -> None:
    """Small images keep fewer cores of a process busy than large ones."""
    assert planned().count == 4
    assert planned(image_pixels=1024**2).count == 2
    assert planned(cores=8).count == 2
    assert planned(cores=2).count == 1
    assert "16 cores" in planned().reason


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ({"gpus": [Gpu("0", "0", "T4", 15 * GIB)]}, "memory of the GPU"),
        ({"gpus": [Gpu("0", "0")]}, "memory of the GPU"),
        ({"host_memory": 5 * 10**9}, "memory of the host"),
        ({"pixels": 5 * 10**9}, "work"),
    ],
)
def test_fewer_where_memory_or_work_does_not_suffice_for_more(given: dict[str, Any], bound: str) -> None:
    """A GPU whose size is not known has one."""
    plan = planned(**given)
    assert plan.count == (1 if given.get("gpus", [Gpu("")])[0].memory is None and "gpus" in given else 2)
    assert plan.reason.endswith(bound)


def test_little_work_is_done_by_one_process_on_one_gpu() -> None:
    """Each start costs as much as it would save."""
    plan = planned(gpus=[Gpu("GPU-a", "0", "", 80 * GIB), Gpu("GPU-b", "1", "", 80 * GIB)], pixels=10**9)
    assert (plan.gpus, plan.grants) == (("GPU-a",), (None,))


def test_each_gpu_gets_a_group_of_processes() -> None:
    """Cores are divided among the groups, and neighbours of a GPU its memory."""
    gpus = [Gpu("GPU-a", "0", "", 80 * GIB), Gpu("MIG-b", "", "", 20 * 10**9)]
    plan = planned(gpus=gpus)
    assert plan.gpus == ("GPU-a", "MIG-b", "GPU-a", "MIG-b")
    assert [grant.total for grant in plan.grants if isinstance(grant, Grant)] == [80 * GIB, 20 * 10**9] * 2
    assert plan.cores == 4
    local = planned(gpus=gpus, pixels=None, cores=4)
    assert local.gpus == ("GPU-a", "MIG-b"), "with --cluster local each GPU has one, however little there is to do"
    asked = planned(gpus=gpus, pixels=1, asked=3)
    assert (asked.gpus, asked.grants[1]) == (("GPU-a", "MIG-b", "GPU-a"), None)


@pytest.mark.parametrize("sharing", [2, 3, 7])
@pytest.mark.parametrize("memory", [4 * GIB, 24 * GIB, 141 * GIB])
def test_grants_and_contexts_fit_into_a_gpu(memory: int, sharing: int) -> None:
    """What all processes take together leaves a little; a GPU too small for so many still gives each something."""
    grant = granted_memory(memory, sharing)
    assert isinstance(grant, Grant)
    assert grant.limit > 0
    if grant.limit > memory // (4 * sharing):
        assert sharing * (grant.limit + CONTEXT_MEMORY) < 0.95 * memory
    assert granted_memory(memory, 1) is None
    assert granted_memory(None, sharing) == AS_NEEDED


def test_a_process_is_told_its_gpu_its_memory_and_its_cores() -> None:
    """In its environment, where what the user set stays."""
    plan = planned(asked=2)
    told = plan.variables(1, "auto", {})
    assert told.pop("NUCSEG_GPU_MEMORY").endswith("/81920")
    assert told == {"CUDA_VISIBLE_DEVICES": "GPU-a", "OMP_NUM_THREADS": "8", "TF_NUM_INTRAOP_THREADS": "8"}
    assert plan.variables(0, "cpu", {"OMP_NUM_THREADS": "3"}) == {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_NUM_INTRAOP_THREADS": "8",
    }
    unknown = planned(asked=2, gpus=[Gpu("0", "0")])
    assert unknown.variables(0, "gpu", {})["NUCSEG_GPU_MEMORY"] == AS_NEEDED
    assert "CUDA_VISIBLE_DEVICES" not in planned(gpus=[], asked=2).variables(0, "auto", {})


def test_a_run_is_planned_from_what_this_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plan the pixels that are to be done, of the machine cores and GPUs; `--device cpu` looks at no GPU."""
    fake_driver(tmp_path / "bin", monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(processes, "available_cores", lambda: 12)
    monkeypatch.setattr(processes, "WORTH_PIXELS", 1000)
    (tmp_path / "in").mkdir()
    for number in range(9):
        tifffile.imwrite(tmp_path / "in" / f"{number}.tif", np.zeros((23, 29), np.uint8))
    settings = SegmentSettings()
    job = prepare(str(tmp_path / "in"), tmp_path / "out.zarr", None, settings, Notes())
    units = list(job.units())
    assert processes.here(settings, units).gpus == ("MIG-b1", "MIG-b2", "GPU-cc")
    assert processes.here(SegmentSettings(device="cpu"), units).gpus == (None,)
    assert processes.here(settings, units, asked=5).gpus == ("MIG-b1", "MIG-b2", "GPU-cc", "MIG-b1", "MIG-b2")
