from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from group_files import written

from nucseg_batch.errors import UsageError
from nucseg_batch.machine.memory import available_memory, parsed_bytes
from nucseg_batch.network.ledger import Ledger
from nucseg_batch.plan import Budget
from nucseg_batch.plan.budget import BASE_BYTES, LEAST_CALL
from nucseg_batch.settings import SegmentSettings

GIB = 2**30


def memory(place: Path, files: dict[str, str], groups: str = "0::/job/step\n", **environment: str) -> int:
    """What is available under control groups of these files."""
    return available_memory(environment, *written(place, files, groups))


def test_without_limits_the_machine_counts(tmp_path: Path) -> None:
    """As where there are no control groups at all; a limit above what there is, is none."""
    machine = available_memory({}, tmp_path / "none", tmp_path)
    assert machine > 1e9
    assert memory(tmp_path, {"job/step/memory.max": "max\n", "job/memory.max": f"{2**60}\n"}) == machine


def test_the_least_limit_of_a_group_and_those_around_it_counts(tmp_path: Path) -> None:
    """A step of a job has what the job has, and a container what its top says."""
    assert memory(tmp_path, {"job/step/memory.max": "max\n", "job/memory.max": f"{GIB // 2}\n"}) == GIB // 2
    assert memory(tmp_path, {"memory.max": f"{GIB // 4}\n"}) == GIB // 4


def test_control_groups_of_version_1_count(tmp_path: Path) -> None:
    """Each controller has a tree of its own there; without a limit it says a very large number."""
    groups = "4:memory:/job\n2:cpu,cpuacct:/job\n"
    assert memory(tmp_path, {"memory/job/memory.limit_in_bytes": f"{GIB // 2}\n"}, groups) == GIB // 2
    unlimited = memory(tmp_path, {"memory/job/memory.limit_in_bytes": "9223372036854771712\n"}, groups)
    assert unlimited == available_memory({}, tmp_path / "none", tmp_path)


def test_a_slurm_job_has_its_memory(tmp_path: Path) -> None:
    """For the node, or for each of its cores there; 0 means all of the node's."""
    assert memory(tmp_path, {}, SLURM_MEM_PER_NODE="512") == 512 * 2**20
    assert memory(tmp_path, {}, SLURM_MEM_PER_CPU="128", SLURM_CPUS_ON_NODE="3") == 384 * 2**20
    whole = available_memory({}, tmp_path / "none", tmp_path)
    assert memory(tmp_path, {}, SLURM_MEM_PER_NODE="0") == whole
    assert memory(tmp_path, {}, SLURM_MEM_PER_CPU="128") == whole


MAPPED = """
import ctypes
import sys
from nucseg_batch.machine.memory import LARGE_BLOCK, return_large_blocks

class Info(ctypes.Structure):
    _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(10)]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes, libc.mallinfo2.restype = ctypes.c_void_p, [ctypes.c_void_p], Info
if sys.argv[1] == "set":
    return_large_blocks({})
for _ in range(2):  # by default glibc keeps the second one, when it was given back the first
    before = libc.mallinfo2().field4  # bytes in blocks of their own
    block = libc.malloc(3 * LARGE_BLOCK)
    print(libc.mallinfo2().field4 - before >= 3 * LARGE_BLOCK)
    libc.free(block)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 says which blocks it maps")
@pytest.mark.parametrize(("how", "expected"), [("set", "True True"), ("default", "True False")])
def test_large_blocks_are_returned_to_the_system_each_time(how: str, expected: str) -> None:
    """And by default only the first one is, which is why it is set."""
    command = [sys.executable, "-c", MAPPED, how]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == expected.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GB", 2 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("800m", 8 * 10**8),
        ("3000000000", 3 * 10**9),
        ("2 G", 2 * 10**9),
        ("two", None),
        ("-2GB", None),
        ("2GBs", None),
        ("", None),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, expected: int | None) -> None:
    assert parsed_bytes(text) == expected


@pytest.mark.parametrize("text", ["2 elephants", "1GB", "0"])
def test_too_little_memory_is_refused_with_what_is_needed(text: str) -> None:
    with pytest.raises(UsageError, match=r"^memory must be a size of at least 1\.5GB, such as 4GB"):
        SegmentSettings(memory=text)


def test_a_larger_budget_gives_larger_calls_and_no_larger_batches_than_pay() -> None:
    """Network calls get their share of what the program leaves; a processor is busy with a megapixel."""
    small, large = Budget(2 * 10**9, "float32"), Budget(8 * 10**9, "float32")
    assert BASE_BYTES < small.network_bytes + BASE_BYTES < small.total
    assert small.call_pixels < large.call_pixels
    assert large.batch_pixels == Budget(2 * 10**9, "mixed_bfloat16").batch_pixels == 2**20
    assert Budget(2 * 10**9, "mixed_bfloat16").call_pixels > small.call_pixels
    assert Budget(10**6, "float32").call_pixels == LEAST_CALL


def test_calls_that_do_not_fit_together_run_one_after_the_other() -> None:
    """And what needs more than there is runs alone, instead of never."""
    ledger, most, running = Ledger(100), [0.0], [0.0]
    lock = threading.Lock()

    def call(amount: float) -> None:
        for _ in range(50):
            with ledger.reserved(amount):
                with lock:
                    running[0] += amount
                    most[0] = max(most[0], running[0])
                    assert running[0] <= 100 or running[0] == amount
                with lock:
                    running[0] -= amount

    threads = [threading.Thread(target=call, args=(amount,)) for amount in (30, 30, 60, 100, 250)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert most[0] == 250
    with pytest.raises(ZeroDivisionError), ledger.reserved(100):
        _ = 1 / 0
    with ledger.reserved(100), ledger.reserved(0):
        pass
