"""What the tasks of a lazy array of labels do: `segment`'s own steps on the pixels of an array, in any process.

Planes are cut as a run cuts them: into units of many planes, or into regions of a large one. A process loads a model
once for all of its tasks, and keeps what it has found out about large planes as a whole.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.seams import join
from nucseg_batch.errors import InputMissingError, MismatchError
from nucseg_batch.executors import local
from nucseg_batch.executors.existing import default_model
from nucseg_batch.executors.worker_state import SharedPredictor
from nucseg_batch.files.array_source import ArraySource
from nucseg_batch.files.atomic_write import file_sha256
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.files.retry import STORAGE_RETRY
from nucseg_batch.pipeline.channels import select_channels
from nucseg_batch.pipeline.region_stream import PlaneContext, plane_context
from nucseg_batch.pipeline.regions import find, labelled, mask, packed, region_tiles, root_ids, unpacked_labels
from nucseg_batch.pipeline.stream import label_planes
from nucseg_batch.plan import ImageInfo, LabelArray, LargePlane, Plan, Scales, Unit
from nucseg_batch.settings import SegmentSettings

KEPT_CONTEXTS = 64
"""Large planes of which a process keeps what it has found out about the whole."""
KEPT_MODELS = 2
"""Models that a process keeps ready, so that labels of two kinds can be computed together."""
OF_MODEL = ("threshold", "min_area", "augment", "device", "precision", "batch_size", "memory")
"""Settings that a model is made ready with."""
KEPT_LABELS = 4
"""Regions whose labels are held at once while ids are joined."""


class ArrayReader(ImageReader):
    """Reads the planes of an array as those of an image file."""

    def __init__(self, source: ArraySource, settings: SegmentSettings) -> None:
        super().__init__("", settings)
        self._source = source

    def _opened(self, info: ImageInfo) -> ArraySource:
        return self._source


@dataclass(frozen=True)
class ArrayJob:
    """An array that is to be segmented; each process gets it once."""

    name: str
    """Of the labels: the same for the same pixels, settings and model."""
    source: ArraySource
    """The pixels."""
    label_array: LabelArray
    """Its planes, cut into units."""
    settings: SegmentSettings
    """How to segment."""
    model: str
    """The model file; empty for the default one of each process."""
    model_sha256: str
    """Of the model file, wherever it is read."""

    @property
    def reader(self) -> ArrayReader:
        """Reads its planes."""
        return ArrayReader(self.source, self.settings)

    def predictor(self) -> Any:
        """The model in this process."""
        return _predictor(self)


def run_scales(job: ArrayJob) -> Scales:
    """At which scales its planes are segmented, as far as that is the same for all."""
    plan = Plan((job.label_array,), ())
    return local.scales_of(plan, job.reader, job.predictor(), job.settings, lambda line: None)


def survey_plane(job: ArrayJob, scales: Scales, number: int) -> PlaneContext:
    """What the regions of a large plane share; found out once in each process that asks."""
    key = (job.name, number)
    if (known := _contexts.get(key)) is not None:
        return known
    plane = LargePlane(job.label_array, number).plane
    found = plane_context(plane, job.reader, job.predictor(), job.settings, scales)
    with _keeping:
        _contexts[key] = found
        while len(_contexts) > KEPT_CONTEXTS:
            _contexts.popitem(last=False)
    return found


def segment_planes(job: ArrayJob, scales: Scales, number: int, dtype: str) -> NDArray[Any]:
    """Labels of the whole planes of a unit, in the unit's shape; 1..n in each plane."""
    unit = Unit(job.label_array, number)
    labels = np.zeros((unit.plane_count, *unit.shape[-2:]), dtype)
    options: dict[str, Any] = {"predictor": job.predictor(), "settings": job.settings, "scales": scales}
    for index, plane in label_planes(unit, images=job.reader, **options):
        labels[index] = plane
    return labels.reshape(unit.shape)


def segment_region(job: ArrayJob, context: PlaneContext, number: int) -> bytes:
    """The nuclei of a region of a large plane, packed; they may reach beyond it."""
    unit = Unit(job.label_array, number)
    plane, predictor, reader = unit.planes[0], job.predictor(), job.reader
    limits, skip_empty = context.survey.limits, job.settings.skip_empty
    found = []
    for tile in region_tiles(unit, predictor, context.scale):
        pixels = STORAGE_RETRY.run(partial(reader.read, plane, *tile.part("source")))
        shown = select_channels(pixels, plane.image, context.channel)
        found.append(replace(find(tile, shown, predictor, limits, skip_empty=skip_empty), support=None))
    return packed(labelled(unit, found))


def labels_by_root(job: ArrayJob, region: bytes, number: int) -> NDArray[np.int64]:
    """Labels of a region that name each nucleus by the place of its root, as all regions of its plane do."""
    unit = Unit(job.label_array, number)
    result = unpacked_labels(region)
    return mask(result, root_ids(result), _plane_shape(unit)).reshape(unit.shape)


def join_regions(job: ArrayJob, regions: Sequence[bytes]) -> list[NDArray[np.uint32]]:
    """The final label of each label of each region of a plane, as `large_planes.join_plane` gives them."""
    results = [unpacked_labels(one, labels=False) for one in regions]

    @lru_cache(maxsize=KEPT_LABELS)
    def labels_of(number: int) -> Any:
        return unpacked_labels(regions[number]).labels

    shape = (job.label_array.height, job.label_array.width)
    return join([one.part for one in results], labels_of, shape).ids


def labels_in_order(job: ArrayJob, region: bytes, ids: Sequence[NDArray[np.uint32]], number: int) -> NDArray[np.uint32]:
    """Labels of a region with the numbers that `join_regions` gives to the nuclei of its plane."""
    unit = Unit(job.label_array, number)
    own = ids[number % job.label_array.grid.per_plane]
    return mask(unpacked_labels(region), own, _plane_shape(unit)).reshape(unit.shape)


_keeping = threading.Lock()
_contexts: OrderedDict[tuple[str, int], PlaneContext] = OrderedDict()
_loading = threading.Lock()
_predictors: OrderedDict[tuple[Any, ...], SharedPredictor] = OrderedDict()


def _predictor(job: ArrayJob) -> SharedPredictor:
    """The model of a job on the device of this process; the latest KEPT_MODELS are kept."""
    given = {name: getattr(job.settings, name) for name in OF_MODEL}
    large = LargePlane(job.label_array, 0).plane if job.label_array.regional else None
    key = (job.model_sha256, large is not None, *given.values())  # not every model does regions
    with _loading:
        if key not in _predictors:
            path = Path(job.model) if job.model else default_model()
            if not path.is_file():
                raise InputMissingError(f"model {path}: this process does not see it; all workers need it there.")
            if file_sha256(path) != job.model_sha256:
                raise MismatchError(f"model {path}: the file is not the one that segment_array was given.")
            _predictors[key] = SharedPredictor(local.predictor_of(path, SegmentSettings(**given), large))
        _predictors.move_to_end(key)
        while len(_predictors) > KEPT_MODELS:
            _predictors.popitem(last=False)
        return _predictors[key]


def _plane_shape(unit: Unit) -> tuple[int, int]:
    return unit.label_array.height, unit.label_array.width
