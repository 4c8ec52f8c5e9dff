"""Compiled loops that are loaded while the model is: those of the run, and never at the cost of the run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from small_runs import SmallRun, picture, small_run

from nucseg_batch.pipeline.kernels_ahead import KernelsAhead, load_ahead, typical_images

RUN = """
import importlib, json, pkgutil, sys
import nucseg_batch.arrays.kernels as kernels
from nucseg_batch.cli.main import main
from nucseg_batch.pipeline import kernels_ahead

def loaded():
    from nucseg_batch.arrays.kernels.compiled import Kernel
    modules = [importlib.import_module(f"{kernels.__name__}.{m.name}") for m in pkgutil.iter_modules(kernels.__path__)]
    every = {name: one for module in modules for name, one in vars(module).items() if isinstance(one, Kernel)}
    return sorted((name, signature) for name, one in every.items() for signature in one.signatures)

class Awaited(kernels_ahead.KernelsAhead):
    def __init__(self, steps):
        super().__init__(steps)
        self.wait()
        before.extend(loaded())

before = []
kernels_ahead.KernelsAhead = Awaited
try:
    main(sys.argv[1:])
finally:
    print(json.dumps([before, loaded()]))
"""


def loops(*arguments: object) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Which loops a run of its own process has loaded before its model, and at its end."""
    command = [sys.executable, "-c", RUN, "segment", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    before, after = json.loads(done.stdout.splitlines()[-1])
    return {tuple(one) for one in before}, {tuple(one) for one in after}


@pytest.mark.parametrize("options", [[], ["--diameter", "26"]], ids=["sized", "scale 1"])
def test_a_run_loads_no_further_loop(tmp_path: Path, options: list[str]) -> None:
    """Of images of 8 and 16 bits, floating point and colour, whose luminance is measured."""
    folder = tmp_path / "in"
    folder.mkdir()
    grey = picture(12, (90, 110))
    colour = np.stack([grey, grey[::-1], np.roll(grey, 30)], axis=-1)
    for name, pixels in (("a", grey), ("b", grey.astype(np.uint16) * 9), ("c", grey / np.float32(7)), ("d", colour)):
        tifffile.imwrite(folder / f"{name}.tif", pixels)
    Image.fromarray(grey).save(folder / "e.png")
    before, after = loops(folder, tmp_path / "out.zarr", "--device", "cpu", *options)
    assert after == before
    assert {"cast_votes", "count_blocks", "find_runs", "unfiltered", "table_text", "whole_sums", "real_sums"} <= {
        name for name, _ in before
    }


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Images of two types and shapes."""
    run = small_run(tmp_path, monkeypatch)
    for number, kind in enumerate((np.uint8, np.uint8, np.uint16)):
        run.put(f"{number}.tif", picture(3).astype(kind))
        run.put(f"{number}-wide.tif", picture(3, (40, 71)).astype(kind))
    return run


def test_one_image_stands_for_all_of_its_type(run: SmallRun) -> None:
    """A plan of a million images is not gone through, and its shapes do not matter."""
    arrays = typical_images(run.prepared().plan.label_arrays)
    assert sorted(array.images[0].dtype for array in arrays) == ["uint16", "uint8"]
    assert all(len(array.images) == 1 for array in arrays)


def test_a_step_that_fails_does_not_end_the_others() -> None:
    """The run itself finds the error where it matters."""
    done: list[str] = []
    ahead = KernelsAhead([lambda: 1 / 0, lambda: done.append("second")])
    ahead.wait()
    assert done == ["second"]
    assert not ahead.compiling


def test_a_model_that_cannot_be_read_is_left_to_the_run(run: SmallRun, tmp_path: Path) -> None:
    """Its error has the option that named it."""
    load_ahead(run.prepared().plan, run.settings, tmp_path / "none.keras").wait()


def test_nothing_is_begun_after_a_stop() -> None:
    """What is in flight ends with the process, which does not wait for it."""
    entered, going_on = threading.Event(), threading.Event()
    done: list[str] = []

    def first() -> None:
        entered.set()
        going_on.wait()

    ahead = KernelsAhead([first, lambda: done.append("second")])
    entered.wait()
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "kernels"] == [True]
    ahead.stop()
    going_on.set()
    ahead.wait()
    assert done == []
