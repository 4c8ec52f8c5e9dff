"""Plates as heat maps: a square for each well, in colours that everyone can tell apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nucseg_batch.results.plates import Plate, Well
from nucseg_batch.results.report.run_statistics import RunStatistics
from nucseg_batch.results.report.words import count, figure

VIRIDIS = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip
"""Dark to bright: equal steps look equal, also without colours."""
CELLS = 24_000
"""Wells that are drawn in all heat maps together."""
TAIL = 0.02
"""Share of the wells at each end that have the colour of the end."""


@dataclass(frozen=True)
class Metric:
    """Something that each well has a value of."""

    title: str
    """Its heading, with the unit."""
    value: Callable[[Well], float]
    """The value of a well; NaN where it has none."""


def metrics(survey: RunStatistics) -> list[Metric]:
    """What is shown of plates."""
    area = "area_um2" if survey.micrometres else "area"
    found = [
        Metric(f"Nuclei per {survey.per}", lambda well: well.nuclei / well.planes if well.planes else math.nan),
        Metric(f"Mean area of nuclei ({survey.unit})", lambda well: _mean(getattr(well, area), well.nuclei)),
        Metric("Mean intensity of nuclei", lambda well: _mean(well.intensity, well.nuclei)),
    ]
    if "confidence" in survey.of_planes:
        found.append(Metric(f"Mean confidence of {survey.per}s", lambda well: _mean(well.confidence, well.rated)))
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


@dataclass(frozen=True)
class Heatmap:
    """One metric of one plate."""

    plate: Plate
    """The plate."""
    metric: Metric
    """What is shown."""
    span: tuple[float, float]
    """The values of the darkest and the brightest colour."""
    per: str
    """What nuclei are counted in."""

    @property
    def ends(self) -> str:
        """The smallest and the largest value."""
        known = [value for well in self.plate.wells.values() if math.isfinite(value := self.metric.value(well))]
        return f"from {figure(min(known))} to {figure(max(known))}" if known else "without values"

    def look(self, row: int, column: int) -> str:
        """The colour of a well, as #rrggbb; of one without a value, its class."""
        well = self.plate.wells.get((row, column))
        if well is None:
            return "none"
        value, (low, high) = self.metric.value(well), self.span
        if not math.isfinite(value):
            return "bad" if well.failed and not well.planes else "void"
        return colour((value - low) / (high - low) if high > low else 0.5)

    def words(self, row: int, column: int) -> str:
        """What is known of a well."""
        well, name = self.plate.wells.get((row, column)), f"{self.plate.rows[row]}{self.plate.columns[column]}"
        if well is None:
            return f"{name}: no image"
        number = f"{count(well.nuclei, 'nucleus', 'nuclei')} in {count(well.planes, self.per)}"
        failed = f", {well.failed} failed" if well.failed else ""
        return f"{name}: {figure(self.metric.value(well))}; {number}{failed}"


def heatmaps(plates: Sequence[Plate], survey: RunStatistics) -> list[tuple[Plate, list[Heatmap]]]:
    """The heat maps of as many plates as there is room for, but of one at least."""
    spans = [(metric, span) for metric in metrics(survey) if (span := limits(plates, metric)) is not None]
    drawn, room = list[tuple[Plate, list[Heatmap]]](), CELLS
    for plate in plates:
        room -= len(plate.rows) * len(plate.columns) * len(spans)
        if room < 0 and drawn:
            break
        drawn.append((plate, [Heatmap(plate, metric, span, survey.per) for metric, span in spans]))
    return drawn
