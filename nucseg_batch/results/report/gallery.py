"""The pictures of the chosen planes, and what stands below them."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping

from nucseg_batch.errors import ImageError
from nucseg_batch.results.report.gallery_selection import PictureGroup
from nucseg_batch.results.report.markup import Markup, count, element, figure, join
from nucseg_batch.results.report.page import soft
from nucseg_batch.results.report.pictures import NucleusSites, PlanePicture, draw
from nucseg_batch.results.report.ranking import Finding
from nucseg_batch.results.report.run_statistics import UNSURE, Progress
from nucseg_batch.results.report.windows import windows_through
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow

DOUBTFUL = "Most suspicious"


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


def gallery(groups: tuple[PictureGroup, ...], pictures: Mapping[int, list[PlanePicture]], *, rated: bool) -> Markup:
    """All groups of pictures. rated: nuclei have a confidence."""
    if not pictures:
        return soft("There are no masks to show.")
    parts = [_key([picture for some in pictures.values() for picture in some], rated=rated)]
    for group in groups:
        shots = [_shot(one, pictures[one.number][0]) for one in group.planes if one.number in pictures]
        if shots:
            parts += [element("h3", group.title), soft(f"{len(shots)} shown: {group.what}."), _grid(shots)]
    more = [(one, picture) for group in groups for one in group.planes for picture in pictures.get(one.number, ())[1:]]
    if more:
        what = f"{len(more)} shown: from parts with many nuclei to parts with few."
        parts += [
            element("h3", "Other parts"),
            soft(what),
            _grid([_shot(*one, number) for number, one in enumerate(more)]),
        ]
    return join(*parts)


def _grid(shots: list[Markup]) -> Markup:
    return element("div", *shots, class_="gallery")


def _key(pictures: list[PlanePicture], *, rated: bool) -> Markup:
    """What the colours mean, and the switch of the outlines."""
    drawn = [picture for picture in pictures if picture.pixels is not None]
    switch = element(
        "label", element("input", type="checkbox", id="outlines", checked=True), " show outlines", for_="outlines"
    )
    parts: list[str | Markup] = [switch] if drawn else []
    bright = [kind for kind, there in (("", False), (" bright", True)) if any(p.bright == there for p in drawn)]
    for kind in bright:
        where = " on bright pictures" if kind and len(bright) > 1 else ""
        parts += [element("i", class_=f"sure{kind}"), f"nucleus{where}"]
        if rated:
            parts += [element("i", class_=f"unsure{kind}"), f"nucleus of confidence under {UNSURE:g}{where}"]
    if len(drawn) < len(pictures):
        parts.append(" Where images could not be read: masks alone, each nucleus in a colour.")
    return join(
        element("p", *parts, class_="key soft") if parts else None,
        soft("Click a picture to enlarge it; use arrow keys for the next."),
    )


def _shot(one: Finding, picture: PlanePicture, more: int | None = None) -> Markup:
    """A picture with what stands below it; more: its number among the further ones."""
    row = one.row
    view = element(
        "button",
        element("span", *_layers(row, picture), class_="stack"),
        type="button",
        class_="view",
        aria_label=f"Enlarge {row.name}",
    )
    whole = picture.part.whole(row.shape)
    facts = [count(row.nuclei, "nucleus", "nuclei") + ("" if whole else " in all")]
    if "confidence" in row.values:
        facts.append(f"confidence {row.values['confidence']:.2f}")
    facts.append(_part(row, picture))
    words = [element("b", row.name, title=row.name), " ", ", ".join(filter(None, facts))]
    words += [element("br"), one.what] if one.what else []
    return element(
        "figure",
        view,
        element("figcaption", *words),
        class_="shot",
        id=f"p{one.number}" if more is None else f"more{more}",
    )


def _part(row: PlaneRow, picture: PlanePicture) -> str:
    height, width = row.shape
    part = picture.part
    whole = part.whole(row.shape)
    shown = "" if whole else f"{part.rows.stop - part.rows.start} × {part.columns.stop - part.columns.start} of "
    reduced = f", 1:{part.reduce}" if part.reduce > 1 else ""
    place = "" if whole else f" from row {part.rows.start}, column {part.columns.start}"
    return f"{shown}{height} × {width} pixels{place}{reduced}"


def _layers(row: PlaneRow, picture: PlanePicture) -> list[Markup]:
    """The pixels, what is drawn over them, and the scale bar."""
    size = {"width": picture.width, "height": picture.height}
    what = f"{row.name}, {count(row.nuclei, 'nucleus', 'nuclei')}"
    drawn = _data("png", picture.drawn)
    if picture.pixels is None:
        layers = [element("img", src=drawn, alt=f"Masks of {what}", **size)]
    else:
        pixels = element("img", src=_data("jpeg", picture.pixels), alt=f"{what}, with outlines", **size)
        layers = [pixels, element("img", src=drawn, alt="", class_="drawn", **size)]
    if picture.bar is not None:
        layers.append(_bar(picture, *picture.bar))
    return layers


def _bar(picture: PlanePicture, micrometres: float, length: float) -> Markup:
    """The scale bar; drawn in a square as large as the picture's longer side, so that it is as large in all."""
    side = max(picture.width, picture.height)
    factor = side / 512
    words, width = f"{figure(micrometres)} µm", length / factor
    left, top = (side - picture.width) / 2 / factor + 12, (side + picture.height) / 2 / factor - 58
    label = max(width, 14.0 * len(words))
    return element(
        "svg",
        element("rect", x=f"{left:.1f}", y=f"{top:.1f}", width=f"{label + 20:.1f}", height=46, rx=6),
        element("text", words, x=f"{left + 10:.1f}", y=f"{top + 26:.1f}"),
        element(
            "line", x1=f"{left + 10:.1f}", y1=f"{top + 36:.1f}", x2=f"{left + 10 + width:.1f}", y2=f"{top + 36:.1f}"
        ),
        viewBox="0 0 512 512",
        class_="scale",
        role="img",
        aria_label=f"scale bar of {words}",
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def unread(pictures: Mapping[int, list[PlanePicture]]) -> int:
    """Planes with pictures whose images could not be read."""
    return sum(any(picture.pixels is None for picture in some) for some in pictures.values())
