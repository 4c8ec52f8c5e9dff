"""The pictures of the chosen planes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from nucseg_batch.errors import ImageError
from nucseg_batch.results.report.gallery_selection import DOUBTFUL, PictureGroup
from nucseg_batch.results.report.pictures import NucleusSites, PlanePicture, draw
from nucseg_batch.results.report.ranking import Finding
from nucseg_batch.results.report.run_statistics import Progress
from nucseg_batch.results.report.windows import windows_through
from nucseg_batch.results.run import FinishedRun

FEW, PARTS = 3, 12
"""So few large planes are shown in so many more parts, all together."""


def draw_all(
    run: FinishedRun, groups: tuple[PictureGroup, ...], planes: int, progress: Progress = lambda done, total: None
) -> dict[int, list[PlanePicture]]:
    """The pictures of every chosen plane, by its number; those whose masks cannot be read have none.

    planes: how many there are in all. Where there are few and large ones, each has several pictures.
    """
    wanted = {one.number: one.row for group in groups for one in group.planes}
    doubtful = {one.number for group in groups if group.title == DOUBTFUL for one in group.planes}
    numbers, pictures = sorted(wanted), dict[int, list[PlanePicture]]()
    more = PARTS // planes if 0 < planes <= FEW else 0
    rows = (wanted[number] for number in numbers)
    for number, (row, pieces) in zip(numbers, run.with_nuclei_in_pieces(rows), strict=True):
        sites = NucleusSites.of(pieces)
        parts = [sites.window(row.shape, doubtful=number in doubtful)]
        if more and not parts[0].whole(row.shape):
            parts += windows_through(row.shape, sites.centres, sites.diameter, more)
        with contextlib.suppress(ImageError):
            pictures[number] = [draw(run, row, sites, part) for part in parts]
        progress(len(pictures), len(wanted))
    return pictures


def grouped(
    groups: tuple[PictureGroup, ...], pictures: Mapping[int, list[PlanePicture]]
) -> list[tuple[PictureGroup, list[tuple[str, Finding, PlanePicture]]]]:
    """The pictures of each group that has some, each with its anchor and its plane; further parts of planes last."""
    chosen = [
        (group, [(f"p{one.number}", one, pictures[one.number][0]) for one in group.planes if one.number in pictures])
        for group in groups
    ]
    more = [(one, picture) for group in groups for one in group.planes for picture in pictures.get(one.number, ())[1:]]
    others = PictureGroup("Other parts", "from parts with many nuclei to parts with few", ())
    chosen.append((others, [(f"more{number}", *one) for number, one in enumerate(more)]))
    return [(group, shots) for group, shots in chosen if shots]


def unread(pictures: Mapping[int, list[PlanePicture]]) -> int:
    """Planes with pictures whose images could not be read."""
    return sum(any(picture.pixels is None for picture in some) for some in pictures.values())
