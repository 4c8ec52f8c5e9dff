"""From labels to statistics: what becomes of a plane after the device, before it is written."""

from __future__ import annotations

from nucseg_batch.arrays.measure import measure
from nucseg_batch.files.run.records import PlaneResult
from nucseg_batch.files.run.tables import NucleiTable, summary
from nucseg_batch.pipeline.work import Handed, Measured
from nucseg_batch.plan import Failure
from nucseg_batch.settings import SegmentSettings


def measured(handed: Handed, settings: SegmentSettings, table: NucleiTable) -> Measured:
    """Measures a plane that the device has labelled; one that cannot be measured becomes a failure."""
    item, found = handed
    if isinstance(found, Failure):
        return Measured(item, found)
    assert item.shown is not None
    pixel_size = settings.pixel_size or item.plane.image.pixel_size
    try:
        measures = measure(found.labels, item.shown.intensity, item.shown.channels)
        rows = table.text(item.plane, measures, pixel_size)
        values = summary(found.labels, item.shown.intensity, measures, found.scale, pixel_size)
    except Exception as error:  # whatever it is: this plane fails, not its unit
        return Measured(item, item.failed("measure", error))
    result = PlaneResult(item.plane.image.key, int(measures["label"].size), values, len(rows.encode()))
    return Measured(item, result, found.labels, rows)
