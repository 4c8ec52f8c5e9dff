"""Large planes whose regions are all done: one id for each nucleus, then masks, compartments and rows.

See `region_stream` for what comes before.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from nucseg_batch.arrays.compartment_sums import CompartmentSums, measured_compartments
from nucseg_batch.arrays.exposure import Exposure
from nucseg_batch.arrays.optional_columns import neighbours
from nucseg_batch.arrays.seams import MergedIds, join
from nucseg_batch.compartments import NUCLEI_LABEL, RINGS
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.masks.nodes import StoredPart, combined
from nucseg_batch.files.masks.pixels import as_stored, pixel_bounds
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.files.retry import STORAGE_RETRY
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import MergedPlane, PlaneResult, RegionOutcome
from nucseg_batch.files.run.tables import SUMMARISED, NucleiTable, plane_summary
from nucseg_batch.pipeline.background import PlaneBackground, last_regions, wants_background
from nucseg_batch.pipeline.channels import read_channels, resolve_channel
from nucseg_batch.pipeline.compartments import compartment_sums, region_compartments
from nucseg_batch.pipeline.regions import RegionResult, mask, unpacked
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
    pixel_size = settings.pixel_size or plane.image.pixel_size
    owned = [joined.of(number) for number in range(len(results))]
    background = _background(large, results, joined, table, settings)
    sums = _write_compartments(large, shards, images, writer, settings, background)
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
            measures |= background.columns({**measures, "label": final}) if background else {}
            measures |= {name: values[own] for name, values in around.items()}
            rows = table.text(plane, measures, pixel_size, final).encode()
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


def _background(
    large: LargePlane,
    results: Sequence[RegionResult],
    joined: MergedIds,
    table: NucleiTable,
    settings: SegmentSettings,
) -> PlaneBackground | None:
    """The background of a plane, of which nothing is added yet; None where it was not asked for."""
    if not wants_background(table.extra):
        return None
    ends = np.zeros((joined.keys.size + 1, 2), np.int64)
    for number, result in enumerate(results):
        labels, final = joined.of(number)
        ends[final] = np.stack([result.measures[name][labels - 1] for name in ("bbox-2", "bbox-3")], axis=1)
    reach = math.ceil(sum(compartment_distances(large.plane.image, settings).get(RINGS, ())))
    return PlaneBackground(
        joined.keys.size, last_regions(ends, joined.ids, [result.part.core for result in results], reach)
    )


def _write_compartments(
    large: LargePlane,
    shards: Sequence[list[StoredPart]],
    images: ImageReader,
    writer: MaskWriter,
    settings: SegmentSettings,
    background: PlaneBackground | None,
) -> dict[str, CompartmentSums]:
    """Writes compartments of a plane whose masks are written, and measures them; adds to the shards of each region.

    background: takes the pixels outside nuclei, and those of rings, where it is measured.
    """
    distances = compartment_distances(large.plane.image, settings)
    if not distances and background is None:
        return {}
    channel = resolve_channel(images, large.plane, settings)
    found: dict[str, list[CompartmentSums]] = defaultdict(list)
    for unit, written in zip(large.units, shards, strict=True):
        around = region_compartments(unit, distances, writer) if distances else {}
        written += writer.write_parts(unit, {name: labels.reshape(unit.shape) for name, labels in around.items()})
        shown = STORAGE_RETRY.run(partial(read_channels, images, large.plane, channel, *unit.bounds[-2:]))
        for name, one in compartment_sums(around, shown).items():
            found[name].append(one)
        if background is not None:
            nuclei = writer.read(unit)
            background.add(nuclei.reshape(nuclei.shape[-2:]), around, shown)
    return {name: CompartmentSums.merged(parts) for name, parts in found.items()}
