"""Which GPUs are there and which may be used, from what the driver prints and what the environment names."""

from __future__ import annotations

from pathlib import Path

import pytest

from nucseg_batch.machine import gpus
from nucseg_batch.machine.gpus import (
    AS_NEEDED,
    Gpu,
    Grant,
    granted,
    keep_visible,
    listed_gpus,
    present_gpus,
    usable_gpus,
    visible_gpus,
)

LISTING = (
    "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aa)\n"
    "  MIG 3g.20gb     Device  0: (UUID: MIG-b1)\n"
    "  MIG 1c.3g.20gb+me  Device  1: (UUID: MIG-b2)\n"
    "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-cc)\n"
)
TABLE = "0, GPU-aa, 40960\n1, GPU-cc, 40960\n"
TWO = [Gpu("GPU-aa", "0", "A100", 40 * 2**30), Gpu("GPU-cc", "1", "A100", 24 * 2**30)]


def fake_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, listing: str = LISTING, table: str = TABLE) -> None:
    """An nvidia-smi that prints as the real one does, first on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / "list").write_text(listing)
    (folder / "table").write_text(table)
    program = folder / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f'-L) cat "{folder}/list" ;;\n'
        "*driver_version*) echo 550.54.15 ;;\n"
        f'*index*) cat "{folder}/table" ;;\n'
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_gpus_are_read_from_what_the_driver_lists() -> None:
    """A GPU that is divided is used by its parts; each has the name that CUDA knows, and its memory."""
    assert listed_gpus(LISTING, TABLE) == [
        Gpu("MIG-b1", "", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", 20 * 10**9),
        Gpu("MIG-b2", "", "NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb+me", 20 * 10**9),
        Gpu("GPU-cc", "1", "NVIDIA A100-SXM4-40GB", 40960 * 2**20),
    ]
    assert listed_gpus("GPU 0: Tesla K80 (UUID: GPU-aa)\n", "0, GPU-aa, [N/A]\n") == [Gpu("GPU-aa", "0", "Tesla K80")]
    assert listed_gpus("No devices were found\n") == []


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, ["GPU-aa", "GPU-cc"]),
        ("", []),
        ("-1", []),
        ("1", ["1"]),
        ("1,-1,0", ["1"]),
        ("GPU-c", ["GPU-c"]),
        ("3, MIG-z", ["3", "MIG-z"]),
    ],
)
def test_the_environment_names_the_gpus_that_may_be_used(named: str | None, expected: list[str]) -> None:
    """Slurm sets the variable for each job, and names stay as they were given."""
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    assert [gpu.name for gpu in visible_gpus(environment, TWO)] == expected


def test_a_named_gpu_has_its_memory_and_an_unknown_one_the_least() -> None:
    """Numbers within a job may not be those of the machine."""
    found = visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-aa,0,1,7"}, TWO)
    assert [gpu.memory for gpu in found] == [40 * 2**30, 40 * 2**30, 24 * 2**30, 24 * 2**30]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0"}, [])[0].memory is None
    ten = [Gpu(str(number), str(number), memory=number) for number in range(11, 0, -1)]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1"}, ten)[0].memory == 1, "not that of GPU 11 or 10"


def test_only_the_gpu_in_use_stays_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library takes memory on every GPU that it sees."""
    fake_driver(tmp_path / "bin", monkeypatch)
    environment: dict[str, str] = {}
    keep_visible(1, environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": "MIG-b1"}
    keep_visible(1, environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": "MIG-b1"}
    slurm = {"CUDA_VISIBLE_DEVICES": "1,0"}
    keep_visible(1, slurm)
    assert slurm == {"CUDA_VISIBLE_DEVICES": "1"}
    keep_visible(0, slurm)
    assert slurm == {"CUDA_VISIBLE_DEVICES": "-1"}


def test_a_machine_without_a_driver_has_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the variable names; and nothing is set there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus, "_shown_by_driver", lambda: [])
    assert present_gpus() == []
    assert usable_gpus({"CUDA_VISIBLE_DEVICES": "0"}) == []
    environment: dict[str, str] = {}
    keep_visible(0, environment)
    assert environment == {}


def test_without_nvidia_smi_the_files_of_the_driver_tell(tmp_path: Path) -> None:
    """As in a container into which only the devices were handed."""
    driver, nodes = tmp_path / "gpus", tmp_path / "dev"
    nodes.mkdir()
    for name in ("nvidia1", "nvidia0", "nvidiactl", "nvidia-uvm"):
        (nodes / name).touch()
    assert gpus._shown_by_driver(driver, nodes) == [Gpu("0", "0"), Gpu("1", "1")]
    (driver / "0000:07:00.0").mkdir(parents=True)
    (driver / "0000:07:00.0" / "information").write_text(
        "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-0a-1b\nBus Type: PCIe\n"
    )
    assert gpus._shown_by_driver(driver, nodes) == [Gpu("GPU-0a-1b", "0", "NVIDIA H100")]


@pytest.mark.parametrize("text", ["2000/8000", "1/1"])
def test_a_grant_is_handed_over_as_text(text: str) -> None:
    """In a variable of the process that it is for."""
    grant = granted({"NUCSEG_GPU_MEMORY": text})
    assert isinstance(grant, Grant)
    assert grant.text == text
    assert 0 < grant.fraction <= 1


def test_a_process_without_a_grant_may_take_all() -> None:
    assert granted({}) is None
    assert granted({"NUCSEG_GPU_MEMORY": AS_NEEDED}) == AS_NEEDED
