"""From labels to statistics: what becomes of a plane after the device, before it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.compartment_sums import measured_compartments
from nucseg_batch.arrays.exposure import Exposure
from nucseg_batch.arrays.measure import measure
from nucseg_batch.arrays.optional_columns import neighbours, optional_columns
from nucseg_batch.columns import Column
from nucseg_batch.compartments import NUCLEI_LABEL
from nucseg_batch.files.run.records import PlaneResult
from nucseg_batch.files.run.tables import NucleiTable, plane_summary
from nucseg_batch.pipeline.background import PlaneBackground, wants_background
from nucseg_batch.pipeline.compartments import compartment_sums, compartments
from nucseg_batch.pipeline.in_flight import Handed, MeasuredPlane
from nucseg_batch.plan import Failure, compartment_distances
from nucseg_batch.settings import SegmentSettings


def measured(handed: Handed, settings: SegmentSettings, table: NucleiTable) -> MeasuredPlane:
    """Measures a plane that the device has labelled; one that cannot be measured becomes a failure."""
    item, found = handed
    if isinstance(found, Failure):
        return MeasuredPlane(item, found)
    assert item.shown is not None
    pixel_size = settings.pixel_size or item.plane.image.pixel_size
    try:
        intensity = item.shown.intensity
        channels, support = item.shown.channels, found.support
        measures = measured_nuclei(found.labels, intensity, channels, support, table.extra)
        measures |= neighbours(table.extra, measures, settings.neighbour_radius)
        around = compartments(found.labels, compartment_distances(item.plane.image, settings))
        measures |= measured_compartments(measures, compartment_sums(around, item.shown))
        if wants_background(table.extra):
            background = PlaneBackground(measures["label"].size)
            background.add(found.labels, around, item.shown)
            measures |= background.columns(measures)
        rows = table.text(item.plane, measures, pixel_size)
        exposure = Exposure.of(intensity, recorded=item.shown.recorded)
        values = plane_summary(item.shape, measures, exposure, found.scale, pixel_size)
    except Exception as error:  # whatever it is: this plane fails, not its unit
        return MeasuredPlane(item, item.failed("measure", error))
    result = PlaneResult(item.plane.image.key, int(measures["label"].size), values, len(rows.encode()))
    return MeasuredPlane(item, result, {NUCLEI_LABEL: found.labels, **around}, rows)


def measured_nuclei(
    labels: NDArray[np.integer],
    intensity: NDArray[Any],
    channels: Mapping[str, NDArray[Any]],
    support: NDArray[np.uint8] | None,
    extra: Sequence[Column] = (),
    everything: NDArray[np.integer] | None = None,
) -> dict[str, NDArray[Any]]:
    """What `arrays.measure.measure` says, and `confidence`, which is NaN where there is no support.

    All are (height, width); support as in `arrays.confidence`. extra: further columns, with `everything` as
    `arrays.optional_columns` says; those that need a whole plane are left out.
    """
    measures = measure(labels, intensity, channels, support)
    if support is None:
        measures["confidence"] = np.full(measures["label"].size, np.nan)
    return measures | optional_columns(extra, labels, {"": intensity, **channels}, measures, everything)
