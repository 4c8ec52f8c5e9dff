"""Smoke tests of the benchmark of large runs: every step works, and costs of files and operations are what they were.

Nothing is timed here; operations and files are counted, which are the same on every machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nucseg_batch.files.find import header_scan
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.run import plan_file
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.plan import ImageInfo, make_plan
from nucseg_batch.settings import SegmentSettings

BENCHMARK = Path(__file__).parent / "past_one_machine.py"


def test_every_step_of_a_run_without_pixels_works(tmp_path: Path) -> None:
    """A benchmark that is only run by hand would be found broken when it is needed."""
    images, told = 3000, tmp_path / "told.json"
    (tmp_path / "place").mkdir()
    command = [
        sys.executable,
        BENCHMARK,
        "--images",
        images,
        "--place",
        tmp_path / "place",
        "--json",
        told,
        "--together",
    ]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    record = json.loads(told.read_text())
    steps = {row["step"]: row for row in record["steps"]}
    assert steps["load"]["images"] == steps["status"]["planes"] == steps["finish"]["planes"] == images
    units = steps["discover and plan"]["units"]
    assert units == -(-images // 256)
    assert steps["commit"]["files"] == 2 * units
    assert steps["todo, all done"]["units"] == 0
    assert list((tmp_path / "place").iterdir()) == []


def test_planning_opens_each_picture_once(tmp_path: Path) -> None:
    """On the file systems of clusters an open costs a thousand times what the header does."""
    for number in range(50):
        Image.fromarray(np.full((5, 7), number, np.uint8)).save(tmp_path / f"{number:02d}.png")
    found = discover(str(tmp_path))
    opened: list[str] = []
    listening = True
    sys.addaudithook(lambda event, heard: opened.append(str(heard[0])) if listening and event == "open" else None)
    done = header_scan.scan_headers(found, SegmentSettings(), lambda _: None)
    listening = False
    assert len(done.images) == 50
    assert sorted(path for path in opened if path.startswith(str(tmp_path))) == [
        str(tmp_path / entry.key) for entry in found.entries
    ]


@pytest.mark.parametrize("waits", [False, True], ids=["in one thread", "in several"])
def test_headers_come_in_order_however_they_are_read(
    tmp_path: Path, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several threads are for slow disks; the plan must not depend on what disk it is."""
    for number in range(150):
        Image.fromarray(np.zeros((5, 7 + number % 3), np.uint8)).save(tmp_path / f"{number:03d}.png")
    monkeypatch.setattr(header_scan, "WAITS", -1.0 if waits else float("inf"))
    monkeypatch.setattr(header_scan, "ROUND", 64)
    done: list[int] = []
    images = header_scan.scan_headers(discover(str(tmp_path)), SegmentSettings(), done.append).images
    assert [(image.key, image.width) for image in images] == [(f"{i:03d}.png", 7 + i % 3) for i in range(150)]
    assert done == list(range(1, 151))


def test_a_share_makes_records_of_its_own_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of millions of images each of many processes needs its part, and has memory for no more."""
    images = [ImageInfo(f"{i:05d}.png", 11, 13, 2048, 2048, 1, "uint8") for i in range(20 * plan_file.BLOCK)]
    path, made = tmp_path / "plan.json", list[int]()
    plan_file.write_plan(path, make_plan(images), {"settings": {"region": 4096}})
    plan, _ = plan_file.read_plan(path)
    monkeypatch.setattr(plan_file, "ImageInfo", lambda *values: made.append(1) or ImageInfo(*values))
    units = list(plan.share(3, 10))
    keys = [key for unit in units for key in unit.keys]
    assert keys == [image.key for image in images[len(keys) * 3 : len(keys) * 4]]
    assert len(made) <= len(keys) + 2 * plan_file.BLOCK


def test_finishing_reads_each_marker_once(tmp_path: Path) -> None:
    """A run of millions of images has gigabytes of markers."""
    place = tmp_path / "place"
    place.mkdir()
    for step in ("discover and plan", "commit"):
        command = [sys.executable, BENCHMARK, "--images", 1000, "--place", place, "--step", step]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    code = (
        "import os, sys, collections\n"
        "opened = collections.Counter()\n"
        "def hear(event, args):\n"
        "    if event == 'open' and '/units/' in str(args[0]): opened[os.path.basename(str(args[0]))] += 1\n"
        "sys.addaudithook(hear)\n"
        "from pathlib import Path\n"
        "from past_one_machine import Silent\n"
        "from nucseg_batch.executors import finishing, job\n"
        "from nucseg_batch.executors.progress import ProgressCounter\n"
        "run = job.planned(Path(sys.argv[1]))\n"
        "assert finishing.finish(run, ProgressCounter(Silent(), run.journal)).planes == 1000\n"
        "print(sorted(opened.values()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARK.parent)}
    command = [sys.executable, "-c", code, str(place / "out.zarr")]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    assert output.splitlines()[-1] == "[1, 1, 1, 1]"
    assert Journal(place / "out.zarr").finished() is not None
