"""Planes of a batch, measured together."""

from __future__ import annotations

from typing import Any

import numpy as np
from doubles import Threshold
from numpy.typing import NDArray
from pictures import disks

from nucseg_batch.arrays.scale_search import ScaleTrial
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.pipeline.channels import NetworkInput
from nucseg_batch.pipeline.in_flight import Handed, PlaneInFlight, UnitInFlight
from nucseg_batch.pipeline.measuring import measured, measured_batch
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Failure, ImageInfo, make_plan
from nucseg_batch.settings import SegmentSettings

SHAPE = (67, 83)


def handed(count: int, found: dict[int, Any] | None = None) -> list[Handed]:
    """Planes with nuclei as a threshold finds them; `found`: what becomes of some instead."""
    images = [ImageInfo(f"{i}.png", 1, 1, *SHAPE, 1, "uint8") for i in range(count)]
    plan = make_plan(images)
    unit = next(iter(plan.units()))
    work, finder = UnitInFlight(UnitTask(unit)), Threshold()
    batch: list[Handed] = []
    for i in range(count):
        pixels = picture(i)
        item = PlaneInFlight(work, i, unit.label_array.plane(unit.place(i)), NetworkInput(pixels, pixels))
        batch.append((item, (found or {}).get(i) or finder.found(pixels, 1.0)))
    return batch


def picture(seed: int) -> NDArray[np.uint8]:
    """Bright disks in noise, none in the second."""
    rng = np.random.default_rng(seed)
    centres = [] if seed == 1 else [tuple(rng.integers(5, 60, 2)) for _ in range(4)]
    return (disks(SHAPE, centres, 6) > 0).astype(np.uint8) * 150 + rng.integers(0, 90, SHAPE).astype(np.uint8)


def test_a_batch_gives_what_its_planes_give_one_by_one() -> None:
    """Rows, statistics and labels; a plane that the device refused stays a failure."""
    refused = Failure("2.png", "segment", "RuntimeError", "no")
    batch = handed(5, {2: refused})
    settings, table = SegmentSettings(), NucleiTable()
    together = measured_batch(batch, settings, table)
    for one, alone in zip(together, [measured(each, settings, table) for each in batch], strict=True):
        assert (one.result, one.rows, list(one.labels)) == (alone.result, alone.rows, list(alone.labels))
    assert together[2].result is refused
    assert together[0].rows.count("\n") > 1


def test_a_plane_that_cannot_be_measured_fails_alone() -> None:
    """Its labels have another shape than its pixels."""
    batch = handed(4, {1: ScaleTrial(np.ones((3, 5), np.int32), 1.0)})
    results = [one.result for one in measured_batch(batch, SegmentSettings(), NucleiTable())]
    assert [isinstance(result, Failure) for result in results] == [False, True, False, False]
    assert isinstance(results[1], Failure)
    assert results[1].stage == "measure"
