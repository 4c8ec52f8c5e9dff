"""Large planes whose regions are all done: one id for each nucleus, then masks, compartments and rows.

See `region_stream` for what comes before.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from nucseg_batch.arrays.compartment_sums import CompartmentSums, measured_compartments
from nucseg_batch.arrays.exposure import Exposure
from nucseg_batch.arrays.optional_columns import neighbours
from nucseg_batch.arrays.seams import join
from nucseg_batch.compartments import NUCLEI_LABEL
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.masks.nodes import StoredPart, combined
from nucseg_batch.files.masks.pixels import as_stored, pixel_bounds
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.files.retry import STORAGE_RETRY
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import MergedPlane, PlaneResult, RegionOutcome
from nucseg_batch.files.run.tables import SUMMARISED, NucleiTable, labelled_rows, plane_summary
from nucseg_batch.pipeline.channels import read_channels, resolve_channel
from nucseg_batch.pipeline.compartments import compartment_sums, region_compartments
from nucseg_batch.pipeline.regions import mask, unpacked
from nucseg_batch.plan import LargePlane, compartment_distances
from nucseg_batch.settings import SegmentSettings

KEPT_LABELS = 4
"""Regions whose labels are held at once while ids are joined."""


def join_plane(
    large: LargePlane,
    *,
    images: ImageReader,
    journal: Journal,
    writer: MaskWriter,
    table: NucleiTable,
    settings: SegmentSettings,
) -> int:
    """Gives the nuclei of a plane whose regions are all done their ids, and writes its masks and rows.

    Returns pixels that became background because neighbouring regions did not agree on them. Doing it again gives the
    same bytes.
    """
    units, plane = large.units, large.plane
    journal.retract_plane(large)
    shape = (large.label_array.height, large.label_array.width)
    results = [unpacked(journal.region(unit), labels=False) for unit in units]

    @lru_cache(maxsize=KEPT_LABELS)
    def labels_of(number: int) -> Any:
        return unpacked(journal.region(units[number])).labels

    joined = join([result.part for result in results], labels_of, shape)
    shards = []
    for unit, ids in zip(units, joined.ids, strict=True):
        masks = mask(unpacked(journal.region(unit)), ids, shape)
        pixels = None
        if settings.with_images:
            stored = as_stored(images.read(plane, *unit.bounds[-2:]), large.label_array)
            pixels = stored.reshape([part.stop - part.start for part in pixel_bounds(unit)])
        shards.append(writer.write_parts(unit, {NUCLEI_LABEL: masks.reshape(unit.shape)}, pixels))
    sums = _write_compartments(large, shards, images, writer, settings)

    pixel_size = settings.pixel_size or plane.image.pixel_size
    owned = [joined.of(number) for number in range(len(results))]
    together = {
        name: np.concatenate([one.measures[name][labels - 1] for one, (labels, _) in zip(results, owned, strict=True)])
        for name in (*SUMMARISED, "centroid-0", "centroid-1")
    }
    around = neighbours(table.extra, together, settings.neighbour_radius)
    digest, length, first = hashlib.sha256(), 0, 0
    with whole_file(journal.plane_part(large)) as file:
        for result, (labels, final) in zip(results, owned, strict=True):
            own = slice(first, first + labels.size)
            measures = {name: values[labels - 1] for name, values in result.measures.items()}
            measures |= measured_compartments({**measures, "label": final}, sums)
            measures |= {name: values[own] for name, values in around.items()}
            rows = labelled_rows(plane, final.tolist(), table.rows(measures, pixel_size)).encode()
            file.write(rows)
            digest.update(rows)
            length, first = length + len(rows), own.stop
    marker = journal.marker(units[0])
    outcome = marker.planes[0] if marker is not None else None
    scale = outcome.scale if isinstance(outcome, RegionOutcome) else 1.0
    exposure = Exposure.joined([result.exposure for result in results])
    summary = plane_summary(shape, together, exposure, scale, pixel_size)
    written = PlaneResult(plane.image.key, int(summary["nuclei"] or 0), summary, length)
    parts = list(map(combined, shards))
    sizes, digests = tuple(one.bytes for one in parts), tuple(one.sha256 for one in parts)
    journal.commit_plane(large, MergedPlane(written, sizes, digests, digest.hexdigest()))
    return joined.lost_pixels


def _write_compartments(
    large: LargePlane,
    shards: Sequence[list[StoredPart]],
    images: ImageReader,
    writer: MaskWriter,
    settings: SegmentSettings,
) -> dict[str, CompartmentSums]:
    """Writes compartments of a plane whose masks are written, and measures them; adds to the shards of each region."""
    distances = compartment_distances(large.plane.image, settings)
    if not distances:
        return {}
    channel = resolve_channel(images, large.plane, settings)
    found: dict[str, list[CompartmentSums]] = defaultdict(list)
    for unit, written in zip(large.units, shards, strict=True):
        around = region_compartments(unit, distances, writer)
        written += writer.write_parts(unit, {name: labels.reshape(unit.shape) for name, labels in around.items()})
        shown = STORAGE_RETRY.run(partial(read_channels, images, large.plane, channel, *unit.bounds[-2:]))
        for name, one in compartment_sums(around, shown).items():
            found[name].append(one)
    return {name: CompartmentSums.merged(parts) for name, parts in found.items()}
