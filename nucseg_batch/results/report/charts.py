"""Histograms and bars as SVG, drawn here: text that scales, prints and can be read aloud."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.results.report.distribution import Distribution
from nucseg_batch.results.report.markup import Markup, count, element, figure, join, percent

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 74, 12, 12, 48
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
    last = math.floor(high / step + 1e-9) + (top is None or high > last_edge(high, step))
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


def last_edge(value: float, step: float) -> float:
    """The last edge that is not beyond a value."""
    return math.floor(value / step + 1e-9) * step


def histogram(
    values: Distribution, *, title: str, unit: str, of: str, whole: bool = False, top: float | None = None
) -> Markup:
    """A histogram with what it says in words below it; values must hold some.

    unit: what stands on the horizontal axis; of: what is counted, such as `nuclei`.
    """
    axis = axis_for(values, whole=whole, top=top)
    counts = values.histogram(axis.edges)
    beyond = values.count - int(counts.sum())
    median = values.median
    words = (
        f"Median {figure(median)}; the middle 90 % lie between {figure(values.quantile(0.05))} and "
        f"{figure(values.quantile(0.95))}."
    )
    if beyond:
        words += f" Beyond the axis lie {beyond:,} ({percent(beyond, values.count)})."
    drawing = element(
        "svg",
        element("title", f"{title}. {words}"),
        _grid(axis, int(counts.max()), f"Number of {of}", unit),
        *(_bar(axis, number, int(height), int(counts.max()), of, whole) for number, height in enumerate(counts)),
        _median(axis, median),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
    )
    return element("figure", element("h3", title), drawing, element("figcaption", words), class_="panel")


def _x(axis: Axis, value: float) -> float:
    return LEFT + (value - axis.start) / (axis.stop - axis.start) * (WIDTH - LEFT - RIGHT)


def _y(value: float, most: float) -> float:
    return HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM)


def _bar(axis: Axis, number: int, height: int, most: int, of: str, whole: bool) -> Markup:
    if not height:
        return Markup("")
    low, high = float(axis.edges[number]), float(axis.edges[number + 1])
    left, right, top = _x(axis, low), _x(axis, high), _y(height, most)
    values = f"{low:,.0f}" if whole and axis.step == 1 else f"{tick(low, axis.step)} to {tick(high, axis.step)}"
    return element(
        "rect",
        element("title", f"{values}: {height:,} {of}"),
        x=f"{left + 0.4:.2f}",
        y=f"{top:.2f}",
        width=f"{max(right - left - 0.8, 0.4):.2f}",
        height=f"{HEIGHT - BOTTOM - top:.2f}",
        class_="bar",
    )


def tick(value: float, step: float) -> str:
    """A value with the digits that a step needs."""
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}"


def _grid(axis: Axis, most: int, vertical: str, horizontal: str) -> Markup:
    """Both axes with their numbers and titles."""
    up = max(nice(most / 7), 1.0)
    along = nice((axis.stop - axis.start) / 6)
    along = max(along, axis.step)
    parts = []
    for number in range(int(most / up + 1e-9) + 1):
        y = _y(number * up, most)
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        parts.append(_label(LEFT - 6, y + 4, f"{number * up:,.0f}", "end"))
    first = math.ceil(axis.start / along - 1e-9)
    for number in range(first, math.floor(axis.stop / along + 1e-9) + 1):
        x = _x(axis, number * along)
        parts.append(_line(x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 4, "tick"))
        parts.append(_label(x, HEIGHT - BOTTOM + 17, tick(number * along, along), "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, horizontal, "middle", "axis"))
    parts.append(_label(12, middle, vertical, "middle", "axis", transform=f"rotate(-90 12 {middle:g})"))
    return join(*parts)


def _median(axis: Axis, median: float) -> Markup:
    if not axis.start <= median <= axis.stop:
        return Markup("")
    x = _x(axis, median)
    return _line(x, TOP, x, HEIGHT - BOTTOM, "median")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return element("line", x1=f"{x1:.2f}", y1=f"{y1:.2f}", x2=f"{x2:.2f}", y2=f"{y2:.2f}", class_=kind)


def _label(x: float, y: float, words: str, anchor: str, kind: str = "", transform: str | None = None) -> Markup:
    return element(
        "text", words, x=f"{x:.2f}", y=f"{y:.2f}", text_anchor=anchor, class_=kind or None, transform=transform
    )


def share_bar(share: float, words: str) -> Markup:
    """A bar that is filled up to a share, 0 to 1."""
    filled = f"{200 * min(max(share, 0.0), 1.0):.1f}"
    return element(
        "svg",
        element("title", words),
        element("rect", x=0, y=0, width=200, height=14, class_="track"),
        element("rect", x=0, y=0, width=filled, height=14, class_="bar"),
        viewBox="0 0 200 14",
        role="img",
        class_="share",
    )


def in_words(number: int, of: str, whole: int) -> str:
    """A number with its share of all."""
    return f"{count(number, of)} ({percent(number, whole)})"
