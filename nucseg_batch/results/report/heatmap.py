"""Plates as heat maps in SVG: a square for each well, in colours that everyone can tell apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nucseg_batch.results.report.markup import Markup, count, element, figure, join
from nucseg_batch.results.report.wells import Plate, Well

VIRIDIS = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip
"""Dark to bright: equal steps look equal, also without colours."""
CELL = 20
MARGIN = 26
LEGEND = 36
TAIL = 0.02
"""Share of the wells at each end that have the colour of the end."""


@dataclass(frozen=True)
class Metric:
    """Something that each well has a value of."""

    title: str
    """Its heading, with the unit."""
    value: Callable[[Well], float]
    """The value of a well; NaN where it has none."""


def metrics(*, micrometres: bool, rated: bool, per: str) -> list[Metric]:
    """What is shown of plates. per: what nuclei are counted in, such as `image`."""
    area, unit = ("area_um2", "µm²") if micrometres else ("area", "pixels")
    found = [
        Metric(f"Nuclei per {per}", lambda well: well.nuclei / well.planes if well.planes else math.nan),
        Metric(f"Mean area of nuclei ({unit})", lambda well: _mean(getattr(well, area), well.nuclei)),
        Metric("Mean intensity of nuclei", lambda well: _mean(well.intensity, well.nuclei)),
    ]
    if rated:
        found.append(Metric(f"Mean confidence of {per}s", lambda well: _mean(well.confidence, well.rated)))
    return found


def _mean(total: float, number: int) -> float:
    return total / number if number else math.nan


def limits(plates: Sequence[Plate], metric: Metric) -> tuple[float, float] | None:
    """The values of the darkest and the brightest colour, the same for all plates; None where no well has a value."""
    values = np.array([metric.value(well) for plate in plates for well in plate.wells.values()])
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    return float(low), float(high)


def colour(share: float) -> str:
    """The colour at a place of the scale, 0 to 1, as #rrggbb."""
    place = min(max(share, 0.0), 1.0) * (len(VIRIDIS) - 1)
    below = min(int(place), len(VIRIDIS) - 2)
    rest = place - below
    mixed = (a + (b - a) * rest for a, b in zip(VIRIDIS[below], VIRIDIS[below + 1], strict=True))
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def heatmap(plate: Plate, metric: Metric, span: tuple[float, float], per: str) -> Markup:
    """One plate: rows by letter, columns by number, value under the pointer; wells that failed have a cross."""
    rows, columns = len(plate.rows), len(plate.columns)
    width, height = MARGIN + columns * CELL + 4, MARGIN + rows * CELL + LEGEND + 12
    cells = [_cell(plate, row, column, metric, span, per) for row in range(rows) for column in range(columns)]
    letters = [_name(MARGIN - 5, MARGIN + (i + 0.7) * CELL, name, "end") for i, name in enumerate(plate.rows)]
    skip = 1 if columns <= 24 else 2
    numbers = [
        _name(MARGIN + (i + 0.5) * CELL, MARGIN - 6, name, "middle")
        for i, name in enumerate(plate.columns)
        if i % skip == 0
    ]
    known = [value for well in plate.wells.values() if math.isfinite(value := metric.value(well))]
    ends = f"from {figure(min(known))} to {figure(max(known))}" if known else "without values"
    drawing = element(
        "svg",
        element("title", f"{metric.title} of the wells of {plate.name or 'the plate'}, {ends}"),
        *letters,
        *numbers,
        *cells,
        _legend(height, columns, span),
        viewBox=f"0 0 {max(width, 190)} {height}",
        role="img",
        class_="plate" if columns <= 24 else "plate dense",
    )
    return element("figure", element("h4", metric.title), drawing, class_="panel broad" if columns > 24 else "panel")


def _cell(plate: Plate, row: int, column: int, metric: Metric, span: tuple[float, float], per: str) -> Markup:
    well, name = plate.wells.get((row, column)), f"{plate.rows[row]}{plate.columns[column]}"
    x, y = MARGIN + column * CELL, MARGIN + row * CELL
    place = {"x": x + 0.5, "y": y + 0.5, "width": CELL - 1, "height": CELL - 1}
    if well is None:
        return element("rect", element("title", f"{name}: no image"), **place, class_="none")
    value = metric.value(well)
    words = f"{name}: {figure(value)}; {count(well.nuclei, 'nucleus', 'nuclei')} in {count(well.planes, per)}"
    words += f", {well.failed} failed" if well.failed else ""
    cross = Markup("")
    if well.failed:
        cross = element(
            "path", d=f"M{x + 4} {y + 4}l{CELL - 8} {CELL - 8}m0 {8 - CELL}l{8 - CELL} {CELL - 8}", class_="cross"
        )
    if not math.isfinite(value):
        label = "bad" if well.failed and not well.planes else "void"
        return join(element("rect", element("title", words), **place, class_=label), cross)
    low, high = span
    share = (value - low) / (high - low) if high > low else 0.5
    return join(element("rect", element("title", words), **place, fill=colour(share)), cross)


def _legend(height: int, columns: int, span: tuple[float, float]) -> Markup:
    """The scale, in twenty steps, and the two values at its ends."""
    top, step = height - LEGEND + 2, max(columns * CELL, 160) / 20
    steps = [
        element("rect", x=f"{MARGIN + i * step:g}", y=top, width=f"{step + 0.3:g}", height=10, fill=colour(i / 19))
        for i in range(20)
    ]
    low, high = ("≤ ", "≥ ") if span[1] > span[0] else ("", "")
    ends = (
        _name(MARGIN, top + 24, f"{low}{figure(span[0])}", "start"),
        _name(MARGIN + 20 * step, top + 24, f"{high}{figure(span[1])}", "end"),
    )
    return join(*steps, *(ends if span[1] > span[0] else ends[:1]))


def _name(x: float, y: float, words: str, anchor: str) -> Markup:
    return element("text", words, x=f"{x:g}", y=f"{y:g}", text_anchor=anchor)
