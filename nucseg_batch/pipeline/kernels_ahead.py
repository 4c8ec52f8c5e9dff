"""Compiled loops, loaded in a thread of their own while Keras is imported, so that the first images find them ready.

What the stream does with pixels is done with a few made ones, once for each kind of image that is planned. A machine
that has none of these loops in its cache compiles them meanwhile.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays import host_instances
from nucseg_batch.arrays.exposure import Exposure
from nucseg_batch.arrays.measure import measure
from nucseg_batch.arrays.outputs import OFFSET_UNIT, Output
from nucseg_batch.arrays.ranges import intensity_range
from nucseg_batch.arrays.scale import nuclei_areas, numbered, step_scale
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.machine.gpus import usable_gpus
from nucseg_batch.model_record import ModelRecord, read_record
from nucseg_batch.pipeline.channels import NetworkInput, is_open, select_channels
from nucseg_batch.plan import ImageInfo, LabelArray, Plan, Plane
from nucseg_batch.settings import SegmentSettings

LOOKED_AT = 64
"""Images of each label array whose type is looked at."""
_SIDES = (17, 23)
Step = Callable[[], object]


class KernelsAhead:
    """Does steps one after the other in a thread that ends with the process, from the moment it is made.

    A step that fails is left to whoever needs what it should have loaded.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps = steps
        self._stopped = threading.Event()
        self._compiling = threading.Event()
        # a daemon: neither an error nor Ctrl-C waits for it
        self._thread = threading.Thread(target=self._run, name="kernels", daemon=True)
        self._thread.start()

    @property
    def compiling(self) -> bool:
        """Whether a loop was not found in the cache and had to be compiled."""
        return self._compiling.is_set()

    def stop(self) -> None:
        """Begins no further step."""
        self._stopped.set()

    def wait(self) -> None:
        """Waits until the last step is done."""
        self._thread.join()

    def _run(self) -> None:
        with suppress(Exception):
            from nucseg_batch.arrays.kernels.compiled import compilation_told

            with compilation_told(self._compiling.set):
                for step in self._steps:
                    if self._stopped.is_set():
                        break
                    with suppress(Exception):
                        step()


def load_ahead(plan: Plan, settings: SegmentSettings, model: Path) -> KernelsAhead:
    """Begins to load the loops that a run needs.

    plan: its images, or the typical ones. model: its file, which says by which rule ranges are measured.
    """
    return KernelsAhead(_steps(typical_images(plan.label_arrays), settings, model))


def typical_images(label_arrays: Iterable[LabelArray]) -> tuple[LabelArray, ...]:
    """One image for each type of pixels, kind of channels and of file, whole planes and large ones; as label arrays."""
    found: dict[tuple[Any, ...], LabelArray] = {}
    for label_array in label_arrays:
        for info in itertools.islice(label_array.images, LOOKED_AT):
            kind = label_array.regional, info.dtype, info.channels, bool(info.names), _is_png(info)
            if kind not in found:
                found[kind] = replace(label_array, images=(info,))
    return tuple(found.values())


def _steps(label_arrays: Iterable[LabelArray], settings: SegmentSettings, model: Path) -> Iterator[Step]:
    """What loads the loops for these images, in the order in which a run needs them."""
    record = read_record(model)
    inputs = [(array.images[0], one) for array in label_arrays for one in _inputs(array.images[0], settings)]
    if any(_is_png(image) for array in label_arrays for image in array.images):
        yield _undo_filters
    for _, one in inputs:
        yield partial(intensity_range, one.pixels, record.intensities)
    if settings.device == "cpu" or not usable_gpus():  # else the device separates nuclei
        yield partial(_separate, record, rescaled=_rescales(settings, record))
    for info, one in inputs:
        yield partial(_measure, info, one)


def _is_png(info: ImageInfo) -> bool:
    return info.key.lower().endswith(".png")


def _undo_filters() -> None:
    from nucseg_batch.arrays.kernels.png_rows import unfiltered

    unfiltered(np.zeros((1, 2), np.uint8), 1, np.empty((1, 1), np.uint8))


def _rescales(settings: SegmentSettings, record: ModelRecord) -> bool:
    """Whether the network may see images at another scale than their own."""
    return settings.diameter is None or step_scale(record.diameter / settings.diameter) != 1


def _inputs(info: ImageInfo, settings: SegmentSettings) -> Iterator[NetworkInput]:
    """Made planes as the stream has them after reading; two where the pixels of an image decide."""
    shape = (len(info.names), *_SIDES) if info.names else _SIDES if info.channels == 1 else (*_SIDES, info.channels)
    pixels = np.arange(np.prod(shape)).reshape(shape).astype(info.dtype)
    corrected = pixels if settings.flatfield is None else pixels.astype(np.float32)
    for channel in ("red", "rgb") if is_open(info, settings.channel) else (settings.channel,):
        shown = select_channels(corrected, info, channel)
        recorded = None if corrected is pixels else select_channels(pixels, info, channel).intensity
        yield replace(shown, recorded=recorded)


def _separate(record: ModelRecord, *, rescaled: bool) -> None:
    probability: NDArray[np.float32] = np.ones(_SIDES, np.float32)
    answer = host_instances.NetworkOutput(np.zeros((*_SIDES, len(Output)), np.float32), probability, 1, OFFSET_UNIT)
    found = host_instances.BY_TASK[record.task](answer, *_SIDES, threshold=record.threshold, min_area=record.min_area)
    nuclei_areas(found.labels)
    if rescaled:
        numbered(found.labels)
        rows, columns = (np.arange(side) for side in _SIDES)
        host_instances.on_native_grid(found, answer, probability, rows, columns, threshold=record.threshold)


def _measure(info: ImageInfo, shown: NetworkInput) -> None:
    labels = np.ones(_SIDES, np.int32)
    measures = measure(labels, shown.intensity, shown.channels, np.ones(_SIDES, np.uint8))
    NucleiTable().text(Plane(info), measures, None)
    Exposure.of(shown.intensity, recorded=shown.recorded)
