"""Which image a user means, and which images are looked at together where none is named."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter

from nucseg_batch.errors import InputMissingError, NothingToDoError
from nucseg_batch.files.names import printable
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow

MOST_IMAGES = 1000
"""Images that are opened together."""
COMPARED = 100_000
"""Names that are looked through for one that is like the one asked for."""


def rows_of(run: FinishedRun, image: str) -> list[PlaneRow]:
    """All planes of an image, given by its path, or by its name or the end of its path where only one has it.

    Raises InputMissingError, which names images that may have been meant.
    """
    rows = [row for row in run.planes() if row.image == image]
    if rows:
        return rows
    keys = (key for key, _ in itertools.groupby(run.planes(), key=lambda row: row.image))
    same = [key for key in keys if key.endswith(f"/{image}")]
    if len(same) == 1:
        return [row for row in run.planes() if row.image == same[0]]
    raise InputMissingError(
        f"IMAGE {printable(image)}: {run.tables['images']} has {'several' if same else 'no'} such image"
        f"{'s' if same else ''}.{_hint(run, image, same)}"
    )


def rows_together(run: FinishedRun) -> tuple[list[PlaneRow], list[str]]:
    """The images of one shape that has most of them, or else the planes of the first image; and a line that says so."""
    masked = (row for row in run.planes() if row.segmented)
    counts = Counter(row.mask for row in masked if row.index is not None and row.t is None and row.z is None)
    if not counts:
        first = next((row.image for row in run.planes() if row.segmented), None)
        if first is None:
            raise NothingToDoError(f"{run.store}: none of its images has a mask to show.")
        return rows_of(run, first), [f"showing {printable(first)}; give IMAGE for another."]
    mask, count = counts.most_common(1)[0]
    rows = (row for row in run.planes() if row.mask == mask and row.segmented)
    chosen = list(itertools.islice(rows, MOST_IMAGES))
    shape = " x ".join(map(str, chosen[0].shape))
    return chosen, [f"showing {len(chosen)} of {count} images of {shape} pixels; give IMAGE for another."]


def _hint(run: FinishedRun, image: str, same: list[str]) -> str:
    names = {key: None for key, _ in itertools.groupby(run.planes(), key=lambda row: row.image)} if not same else {}
    near = same or difflib.get_close_matches(image, list(itertools.islice(names, COMPARED)), 3, 0.5)
    near = near or [name for name in itertools.islice(names, COMPARED) if image.lower() in name.lower()]
    return f" Did you mean {' or '.join(map(printable, near[:3]))}?" if near else ""
