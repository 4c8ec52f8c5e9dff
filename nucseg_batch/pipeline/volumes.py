"""Stacks whose slices are all done: one id for each nucleus over the slices, then masks of volumes and their rows.

Masks are read slice by slice, and of large planes region by region. Pixels that labels share are added up over
regions, so volumes do not depend on how planes are cut. Memory is that of one shard, a few planes as runs, volumes that
may go on, and about 8 bytes for each nucleus of each slice. What is measured comes from the rows of nuclei.csv.

Volumes are a label image of their own beside the nuclei. Each slice keeps its labels, which its rows of nuclei.csv
name, and a plane that is segmented again changes no shard but its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.label_overlaps import LabelRuns, overlaps, summed
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

ROWS_AFTER = 16
"""Slices after which the rows of volumes that have ended are written."""
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
    ids, lengths, counts = {}, list[int](), list[int]()
    with records.rows(group) as file:
        for place in group.places:
            slices, begin = [planes[*place, z] for z in range(group.depth)], file.tell()
            ids[place] = _ids(group, place, slices, masks)
            voxel, sums = _voxel(group, place, settings), VolumeSums(table.intensities)
            for z, entry in enumerate(slices):
                sections = _sections(entry, table)
                sums.add(z, ids[place][z][sections["label"].astype(np.int64)], sections)
                before = z - 1 if z + 1 < group.depth else None  # a gap is one slice long
                if before is None or z % ROWS_AFTER == 0:
                    file.write(table.text(group, place, sums.finished(before), voxel).encode())
            lengths.append(file.tell() - begin)
            counts.append(sums.count)
    shards = []
    for unit in group.units:
        volumes = np.zeros(unit.shape, np.uint32)
        for plane, at in zip(volumes.reshape(-1, *volumes.shape[-2:]), unit.places, strict=True):
            np.take(ids[at[:-1]][at[-1]], masks.window(at, unit), out=plane, mode="clip")  # which is quick
        shards += writer.write_parts(unit, {VOLUMES: volumes})
    linked = LinkedStacks(
        source,
        tuple(counts),
        tuple(lengths),
        tuple(shard.bytes for shard in shards),
        tuple(shard.sha256 for shard in shards),
    )
    records.commit(group, linked)
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
    linker, recent = VolumeLinker(), list[list[LabelRuns]]()
    for z, entry in enumerate(slices):
        count = entry.outcome.nuclei if isinstance(entry.outcome, PlaneResult) else 0
        here = [LabelRuns.of(masks.window((*place, z), group.unit(z, region))) for region in range(group.regions)]
        areas = np.sum([runs.areas(count) for runs in here], axis=0)
        if areas[-1] or not areas[:count].all():
            raise DamageError(
                f"{entry.image}: the mask of slice {z} does not hold the {count} nuclei of its rows; "
                "`nucseg-batch verify --redo` and then the same `segment` mend it."
            )
        linker.add(areas[:count], *(summed(list(map(overlaps, one, here))) for one in reversed(recent)))
        recent = [*recent[-1:], here]
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
