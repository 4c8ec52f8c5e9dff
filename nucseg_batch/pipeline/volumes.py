"""Stacks whose slices are all done: one id for each nucleus over the slices, then masks of volumes and their rows.

Masks are read slice by slice, and of large planes region by region. Pixels that labels share are added up over
regions, so volumes do not depend on how planes are cut. Memory is that of one shard and a few planes, and some hundred
bytes for each nucleus of each slice. What is measured comes from the rows of nuclei.csv.

Volumes are a label image of their own beside the nuclei. Each slice keeps its labels, which its rows of nuclei.csv
name, and a plane that is segmented again changes no shard but its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.label_overlaps import LabelRuns, Overlaps, overlaps, summed
from nucseg_batch.arrays.volume_sums import VolumeSums
from nucseg_batch.arrays.volumes import VolumeLinker
from nucseg_batch.compartments import VOLUMES
from nucseg_batch.errors import DamageError
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.files.run.finish import PlaneEntry, collect_group
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import PlaneResult
from nucseg_batch.files.run.stack_records import LinkedStacks, StackRecords
from nucseg_batch.files.run.volume_table import VolumeTable
from nucseg_batch.plan import StackGroup, Unit
from nucseg_batch.settings import SegmentSettings

KEPT = 4
"""Slices that are held as runs, or regions of slices: three that are compared, and one that comes."""
Place = tuple[int, ...]
"""Where a stack lies along the axes of its array before z."""


def link_stacks(
    group: StackGroup, *, journal: Journal, writer: MaskWriter, table: VolumeTable, settings: SegmentSettings
) -> LinkedStacks:
    """Joins the nuclei of a group of stacks whose units are all done, and writes masks and rows of volumes.

    Doing it again gives the same bytes. Raises DamageError where masks or rows cannot be read.
    """
    records = StackRecords(journal)
    source = records.source_state(group)
    assert source is not None, group.name
    records.retract(group)
    planes, masks = collect_group(group, journal), _Masks(group, writer)
    ids, texts, counts = {}, [], []
    for place in group.places:
        slices = [planes[*place, z] for z in range(group.depth)]
        ids[place] = _ids(group, place, slices, masks)
        counts.append(max(int(one.max()) for one in ids[place]))
        sums = VolumeSums(counts[-1], table.intensities)
        for z, entry in enumerate(slices):
            sections = _sections(entry, table)
            sums.add(z, ids[place][z][sections["label"].astype(np.int64)], sections)
        texts.append(table.text(group, place, sums.measures(), _voxel(group, place, settings)).encode())
    shards = []
    for unit in group.units:
        volumes = np.zeros(unit.shape, np.uint32)
        for plane, at in zip(volumes.reshape(-1, *volumes.shape[-2:]), unit.places, strict=True):
            np.take(ids[at[:-1]][at[-1]], masks.window(at, unit), out=plane, mode="clip")  # which is quick
        shards += writer.write_parts(unit, {VOLUMES: volumes})
    linked = LinkedStacks(
        source,
        tuple(counts),
        tuple(map(len, texts)),
        tuple(shard.bytes for shard in shards),
        tuple(shard.sha256 for shard in shards),
    )
    records.commit(group, linked, b"".join(texts))
    return linked


class _Masks:
    """The masks of nuclei of a group of stacks, of which none is kept."""

    def __init__(self, group: StackGroup, writer: MaskWriter) -> None:
        self._path = writer.path
        self._array = writer.open(group.label_array)

    def window(self, at: Place, unit: Unit) -> NDArray[np.uint32]:
        """The part in a unit of the plane at a place, (height, width)."""
        try:
            window: tuple[Any, ...] = (*at, *unit.bounds[-2:])
            return np.asarray(self._array[window], np.uint32)
        except OSError:
            raise
        except Exception as error:  # what zarr and its codecs raise for damaged chunks is of many classes
            raise DamageError(
                f"{self._path}: masks of {unit.label_array.name} cannot be read ({type(error).__name__}); "
                "`nucseg-batch verify --redo` and then the same `segment` mend it."
            ) from error


def _ids(group: StackGroup, place: Place, slices: Sequence[PlaneEntry], masks: _Masks) -> list[NDArray[np.uint32]]:
    """The volume of each label of each slice of a stack, as `VolumeLinker.ids` gives them."""
    linker = VolumeLinker()
    runs = lru_cache(maxsize=KEPT)(lambda z, region: LabelRuns.of(masks.window((*place, z), group.unit(z, region))))
    for z, entry in enumerate(slices):
        count = entry.outcome.nuclei if isinstance(entry.outcome, PlaneResult) else 0
        areas, shared = np.zeros(count + 1, np.int64), [list[Overlaps](), list[Overlaps]()]
        for region in range(group.regions):
            here = runs(z, region)
            areas += here.areas(count)
            for steps in range(1, min(z, 2) + 1):
                shared[steps - 1].append(overlaps(runs(z - steps, region), here))
        if areas[-1] or not areas[:count].all():
            raise DamageError(
                f"{entry.image}: the mask of slice {z} does not hold the {count} nuclei of its rows; "
                "`nucseg-batch verify --redo` and then the same `segment` mend it."
            )
        linker.add(areas[:count], *(summed(one) if one else None for one in shared))
    return linker.ids()


def _sections(entry: PlaneEntry, table: VolumeTable) -> Mapping[str, NDArray[np.float64]]:
    """The nuclei of a slice; none of one that failed."""
    if not isinstance(entry.outcome, PlaneResult) or entry.part is None:
        return table.sections("")
    try:
        with open(entry.part, "rb") as file:
            file.seek(entry.offset)
            return table.sections(file.read(entry.outcome.part_bytes).decode())
    except (ValueError, IndexError) as error:
        raise DamageError(
            f"{entry.part}: its rows cannot be read ({type(error).__name__}); `nucseg-batch verify --redo` and then "
            "the same `segment` mend it."
        ) from error


def _voxel(group: StackGroup, place: Place, settings: SegmentSettings) -> float | None:
    """Volume of a voxel in µm³; None where the pixel size or the distance of slices is not known."""
    image = group.image(place)
    size, step = settings.pixel_size or image.pixel_size, settings.z_step or image.z_step
    return None if size is None or step is None else size**2 * step * image.depths.step
