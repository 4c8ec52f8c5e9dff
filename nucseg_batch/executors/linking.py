"""Joins the nuclei of stacks over z-slices when their units are done: which stacks are left, and doing them."""

from __future__ import annotations

from collections.abc import Iterable

from nucseg_batch.compartments import VOLUMES
from nucseg_batch.errors import MismatchError
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.progress import ProgressCounter
from nucseg_batch.files.masks.store import MaskWriter, masks_changed_ns, remove_leftovers_of, volume_bytes
from nucseg_batch.files.run.stack_records import StackRecords
from nucseg_batch.files.run.volume_table import VolumeTable, write_volumes
from nucseg_batch.pipeline.volumes import link_stacks
from nucseg_batch.plan import StackGroup, Unit, stack_groups


def groups_to_link(job: Job, groups: Iterable[StackGroup]) -> list[StackGroup]:
    """Stacks whose units are all done, and whose nuclei are not joined, or were joined of other masks than these.

    Or whose shards of volumes are not all there any more. Raises MismatchError where volumes were changed after they
    were written: to join them again would lose that.
    """
    records, found = StackRecords(job.journal), []
    for group in groups:
        source, linked = records.source_state(group), records.record(group)
        if source is None:
            continue
        sizes = zip(group.units, linked.shard_bytes, strict=True) if linked is not None else ()
        changed = [unit for unit, size in sizes if size != volume_bytes(job.store, unit)]
        if changed and linked is not None and linked.source == source:
            _check_unchanged(job, group, changed, records)
        if linked is None or changed or linked.source != source:
            found.append(group)
    return found


def own_groups(job: Job) -> Iterable[StackGroup]:
    """Stacks all of whose units are this process's to do."""
    own = {unit.name for unit in job.units() if unit.label_array.has_volumes}
    return (group for group in stack_groups(job.plan) if own.issuperset(unit.name for unit in group.units))


def link_groups(job: Job, groups: Iterable[StackGroup], progress: ProgressCounter, *, alone: bool = True) -> None:
    """Joins the nuclei of stacks whose units are all done.

    alone: whether nobody else can be at it, so that what killed processes left may be deleted.
    """
    writer, table = MaskWriter(job.store), VolumeTable(job.table)
    for group in groups:
        image, more = group.image(group.places[0]), len(group.places) - 1
        others = f" and {more} more" if more else ""
        if group.depth > 1:
            progress.tell(f"{image.key}{others}: joining nuclei over {group.depth} slices")
        for unit in group.units if alone else ():
            remove_leftovers_of(job.store, unit, volumes=True)
        link_stacks(group, journal=job.journal, writer=writer, table=table, settings=job.begun.settings)


def write_volume_table(job: Job) -> int | None:
    """Writes the table of volumes, and returns how many it has; None in a run without, which has no such table."""
    if job.begun.settings.link != "z":
        return None
    return write_volumes(job.store, stack_groups(job.plan), StackRecords(job.journal), VolumeTable(job.table))


def volume_count(job: Job) -> int | None:
    """Volumes of all stacks that are joined; None in a run without."""
    if job.begun.settings.link != "z":
        return None
    records = map(StackRecords(job.journal).record, stack_groups(job.plan))
    return sum(sum(linked.volumes) for linked in records if linked is not None)


def _check_unchanged(job: Job, group: StackGroup, units: Iterable[Unit], records: StackRecords) -> None:
    committed = records.committed_ns(group)
    if any(masks_changed_ns(job.store, unit, (VOLUMES,)) > committed for unit in units):
        raise MismatchError(
            f"{job.store}: the volumes of {group.label_array.name or 'its image'} were changed since they were made. "
            f"To keep the changes, delete {job.journal.folder.name}. To replace them, run `nucseg-batch verify --redo` "
            "first, or start over with --overwrite."
        )
