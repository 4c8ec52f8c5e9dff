"""Histograms, laid out for the template that draws them as SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.results.report.distribution import Distribution
from nucseg_batch.results.report.dna_content import cell_cycle, is_stained
from nucseg_batch.results.report.run_statistics import RunStatistics
from nucseg_batch.results.report.words import figure, percent

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 74, 12, 12, 48
"""Size of a drawing and its margins, as `distributions.html` has them."""
BARS = 45
"""Bars of a histogram, at most."""
FEWEST = 8
"""Bars of a histogram, at least; of few values most are empty."""
TAIL = 0.005
"""Share of the values at each end that need not be on the axis."""


@dataclass(frozen=True)
class Axis:
    """Where the bars of a histogram begin and end."""

    start: float
    """Value where the first bar begins."""
    step: float
    """Width of a bar."""
    bars: int
    """How many bars."""

    @property
    def edges(self) -> NDArray[np.float64]:
        """(bars + 1,)."""
        return np.arange(self.bars + 1, dtype=np.float64) * self.step + round(self.start / self.step) * self.step

    @property
    def stop(self) -> float:
        """Value where the last bar ends."""
        return float(self.edges[-1])


def nice(step: float) -> float:
    """The next larger of 1, 2 and 5 times the powers of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))


def axis_for(values: Distribution, *, whole: bool = False, top: float | None = None) -> Axis:
    """An axis that shows nearly all values, and 0 where it is not far away; for some values.

    whole: the values are whole numbers; top: the largest that can be, from 0, where that is known.
    """
    low, high = (0.0, top) if top is not None else _span(values)
    if low > 0 and low < 0.4 * high:
        low = 0.0
    step = nice(max((high - low) / BARS, abs(high) * 1e-6, 1e-12))
    step = max(step, 1.0) if whole else step
    first = math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9) + (top is None or high > _last_edge(high, step))
    more = max(FEWEST - (last - first), 0)
    before = min(more // 2, first) if first >= 0 else more // 2
    return Axis((first - before) * step, step, last - first + more)


def _span(values: Distribution) -> tuple[float, float]:
    """Nearly all values, without those far beyond the others."""
    first, last = values.quantile(0.25), values.quantile(0.75)
    reach = 3 * (last - first)
    low = max(values.quantile(TAIL), min(values.quantile(0.05), first - reach))
    high = min(values.quantile(1 - TAIL), max(values.quantile(0.95), last + reach))
    return low, high


def _last_edge(value: float, step: float) -> float:
    """The last edge that is not beyond a value."""
    return math.floor(value / step + 1e-9) * step


class Histogram:
    """A histogram as it is drawn, with what it says in words.

    unit: what stands on the horizontal axis; of: what is counted, such as `nuclei`; whole and top: as for `axis_for`;
    marks: values that have a line and a name.
    """

    def __init__(
        self,
        values: Distribution,
        title: str,
        unit: str,
        of: str,
        *,
        whole: bool = False,
        top: float | None = None,
        marks: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.title, self.unit, self.of = title, unit, of
        axis = axis_for(values, whole=whole, top=top)
        counts = values.histogram(axis.edges)
        most, beyond, median = int(counts.max()), values.count - int(counts.sum()), values.median
        self.words = (
            f"Median {figure(median)}; the middle 90 % lie between {figure(values.quantile(0.05))} and "
            f"{figure(values.quantile(0.95))}."
        )
        if beyond:
            self.words += f" Beyond the axis lie {beyond:,} ({percent(beyond, values.count)})."

        def x(value: float) -> float:
            return round(LEFT + (value - axis.start) / (axis.stop - axis.start) * (WIDTH - LEFT - RIGHT), 2)

        def y(number: float) -> float:
            return round(HEIGHT - BOTTOM - number / most * (HEIGHT - TOP - BOTTOM), 2)

        single = whole and axis.step == 1
        edges = itertools.pairwise((x(edge), _tick(edge, axis.step)) for edge in axis.edges.tolist())
        self.bars = [
            (left, right, y(number), low if single else f"{low} to {high}", number)
            for ((left, low), (right, high)), number in zip(edges, counts.tolist(), strict=True)
            if number
        ]
        """Left, right and upper edge, the values, and how many there are."""
        up, along = max(nice(most / 7), 1.0), max(nice((axis.stop - axis.start) / 6), axis.step)
        self.rows = [(y(number * up), f"{number * up:,.0f}") for number in range(int(most / up + 1e-9) + 1)]
        """Height and text of the numbers on the vertical axis."""
        first, last = math.ceil(axis.start / along - 1e-9), math.floor(axis.stop / along + 1e-9)
        self.columns = [(x(number * along), _tick(number * along, along)) for number in range(first, last + 1)]
        """Place and text of the numbers on the horizontal axis."""
        self.median = x(median) if axis.start <= median <= axis.stop else None
        """Place of the median."""
        self.marks = [(x(place), name) for name, place in marks.items() if axis.start <= place <= axis.stop]
        """Place and name of the marks."""


def _tick(value: float, step: float) -> str:
    """A value with the digits that a step needs."""
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}"


def dna_content(survey: RunStatistics) -> Histogram:
    """The histogram of DNA contents, with the phases of the cell cycle where it has peaks of G1 and G2.

    That of contents relative to their image is shown where only that one has them.
    """
    values, of_images = survey.of_nuclei["dna_content"], survey.of_nuclei.get("aligned_dna_content")
    cycle, unit = cell_cycle(values), "area x intensity above background"
    if cycle is None and of_images is not None and is_stained(of_images):
        cycle = cell_cycle(of_images)
        if cycle is not None:
            values, unit = of_images, f"content / most frequent content of the {survey.per}"
    if cycle is None:
        found = Histogram(values, "DNA content", unit, "nuclei")
        found.words += (
            " Phases of the cell cycle are not estimated, because there are no two clear peaks at 1:2: the channel "
            "may be no DNA stain, or nearly all nuclei are in one phase."
        )
        return found
    found = Histogram(values, "DNA content", unit, "nuclei", marks={"G1": cycle.g1, "G2": 2 * cycle.g1})
    g1, s, g2 = map(percent, cycle.phases)
    found.words += (
        f" Estimated phases: G1 {g1}, S {s}, G2/M {g2}; {percent(cycle.rest)} of the nuclei fit no phase. The "
        f"coefficient of variation of the peaks is {percent(cycle.variation)}. This holds for a DNA stain that is not "
        "saturated. Overlapping nuclei, and G1 nuclei with twice the chromosomes, count as G2."
    )
    if values is of_images:
        found.words += (
            f" Because {survey.per}s differ in brightness, contents are relative to the most frequent one of each, "
            f"which is taken for that of G1: {survey.per}s with most nuclei in another phase are not recognised."
        )
    return found


def distributions(survey: RunStatistics) -> list[Histogram]:
    """All histograms of a run."""
    per, of_nuclei, found = survey.per, survey.of_nuclei, list[Histogram]()
    areas = of_nuclei.get("area_um2" if survey.micrometres else "area")
    if areas is not None:
        unit = f"area of a nucleus ({survey.unit})"
        found.append(Histogram(areas, "Area", unit, "nuclei", whole=not survey.micrometres))
    if "intensity_mean" in of_nuclei:
        found.append(Histogram(of_nuclei["intensity_mean"], "Intensity", "mean intensity (grey values)", "nuclei"))
    if "dna_content" in of_nuclei and is_stained(of_nuclei["dna_content"]):
        found.append(dna_content(survey))
    if survey.planes > 1:
        counts = survey.of_planes["nuclei"]
        found.append(Histogram(counts, f"Nuclei per {per}", f"nuclei in the {per}", f"{per}s", whole=True))
    for of, named in ((f"{per}s", survey.of_planes), ("nuclei", of_nuclei)):
        if "confidence" in named:
            found.append(Histogram(named["confidence"], f"Confidence of {of}", "confidence (0 to 1)", of, top=1.0))
    return found
