"""Discards what is left of images that were added to a run and whose plan is lost or damaged.

Nobody knows any more which images these were. When their units, masks and rows are gone they are new again, and
`segment` adds them as it adds others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nucseg_batch.executors.job import journal_at
from nucseg_batch.files.masks.store import remove_added, set_complete
from nucseg_batch.files.run.attempts import BEGUN
from nucseg_batch.files.run.journal import FOLDERS, TRACK_RECORDS, VOLUME_RECORDS
from nucseg_batch.files.run.locks import ROOT, held, share_lock
from nucseg_batch.files.run.portions import discard_portions, lost_portions

RECORDS = dict.fromkeys((*FOLDERS, BEGUN), "") | {
    "planes": "-plane",
    VOLUME_RECORDS: "-stacks",
    TRACK_RECORDS: "-movies",
}
"""Folders of records in a run folder, and what stands in names there between that of a label array and the number."""


def discard_lost_plans(store: Path, tell: Callable[[str], None]) -> None:
    """Discards the portions of a run of which the plans are lost; does nothing where none is.

    Raises InputMissingError where there is no run, MismatchError where its first plan cannot be read, and LockedError
    where it is in use.
    """
    journal = journal_at(store)
    lost = lost_portions(journal.folder)
    if not lost.numbers:
        return
    shares = lost.portions[0].shares
    with held(journal.folder, [ROOT, *(share_lock(share) for share in range(shares))], tell=tell):
        lost = lost_portions(journal.folder)
        if not lost.portions[0].in_place:
            set_complete(store, False)
            names = [label_array.name for portion in lost.portions for label_array in portion.plan.label_arrays]
            remove_added(store, lost.numbers, names)
        journal.reopen()
        units = discard_portions(journal.folder, lost, RECORDS)
    tell(
        f"discarded {units} unit{'s' * (units != 1)} of added images whose plan was lost or damaged; the same "
        "`segment` adds these images again"
    )
