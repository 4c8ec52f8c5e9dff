"""Plates as heat maps: a square for each well, in colours that everyone can tell apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nucseg_batch.columns import names
from nucseg_batch.errors import InputMissingError, NothingToDoError, UsageError, did_you_mean
from nucseg_batch.files.csv_rows import csv_records, open_table, table_header
from nucseg_batch.files.run.wells import WELLS, has_scores, is_wells_table
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.plates import NO_PLATE, Place, Plate, Plates
from nucseg_batch.results.report.run_statistics import RunStatistics
from nucseg_batch.results.report.words import count, figure
from nucseg_batch.results.run import FinishedRun

VIRIDIS = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip
"""Dark to bright: equal steps look equal, also without colours."""
CELLS = 24_000
"""Wells that are drawn in all heat maps together."""
TAIL = 0.02
"""Share of the wells at each end that have the colour of the end."""

FEW = 6
"""Columns that a refusal names."""


@dataclass(frozen=True)
class Metric:
    """Something that each well has a value of."""

    title: str
    """Its heading, with the unit."""
    value: Callable[[Plate, Place], float]
    """The value of a well that has images; NaN where it has none."""


def metrics(survey: RunStatistics) -> list[Metric]:
    """What is shown of plates."""
    area = "area_um2" if survey.micrometres else "area"
    found = [
        _mean(f"Nuclei per {survey.per}", "nuclei", "planes"),
        _mean(f"Mean area of nuclei ({survey.unit})", area, "nuclei"),
        _mean("Mean intensity of nuclei", "intensity", "nuclei"),
    ]
    if "confidence" in survey.of_planes:
        found.append(_mean(f"Mean confidence of {survey.per}s", "confidence", "rated"))
    return found


def _mean(title: str, total: str, number: str) -> Metric:
    """A mean from the sums over wells."""

    def value(plate: Plate, place: Place) -> float:
        well = plate.wells[place]
        return float(getattr(well, total) / getattr(well, number)) if getattr(well, number) else math.nan

    return Metric(title, value)


def columns_of_wells(run: FinishedRun, chosen: Sequence[str]) -> list[Metric]:
    """Columns of wells.csv as something to draw, each once for every time point.

    Raises NothingToDoError where no image is on a plate, InputMissingError where there is no such table, and UsageError
    where it has no such column, or one that is no measurement.
    """
    if not chosen:
        return []
    table = RunLayout(run.store).wells
    if not is_wells_table(table):
        plates = Plates(run.store, run.root)
        for plane in run.planes():
            plates.add(plane)
        if not plates.found():
            raise NothingToDoError(f"--well-column: {run.store}: {NO_PLATE}")
        raise InputMissingError(f"{table}: it is missing; `nucseg-batch wells` writes it.")
    columns = set(table_header(table)) - set(names(WELLS)) | {"nuclei", "images", "images_failed"}
    for name in chosen:
        if name not in columns:
            raise UsageError(f"--well-column {name}: {_refusal(name, table, sorted(columns), run.store)}")
    found: dict[tuple[str, str], dict[tuple[str, str, str], float]] = {}
    with open_table(table) as file:
        for row in csv_records(file):
            where = row["plate"], row["row"], row["column"]
            for name in chosen:
                moment = f", time point {row['t']}" if row["t"] else ""
                found.setdefault((name, moment), {})[where] = float(row[name] or "nan")
    return [_looked_up("".join(key), found[key]) for name in dict.fromkeys(chosen) for key in found if key[0] == name]


def _refusal(name: str, table: Path, columns: Sequence[str], store: Path) -> str:
    """Why a column cannot be drawn, and what to give instead."""
    if name in names(WELLS):
        return f"this column of {table.name} is no measurement; give one such as {columns[0]}."
    if name.endswith("_z") and f"{name.removesuffix('_z')}_median" in columns and not has_scores(table):
        return f"{table.name} has no z-scores; run `nucseg-batch wells {store} --controls WELLS`."
    near = did_you_mean(name, columns) or did_you_mean(f"{name}_median", columns)
    few = ", ".join(columns[:FEW])
    others = f" and {len(columns) - FEW} others" if len(columns) > FEW else ""
    return f"{table.name} has no such column{near or f'; it has {few}{others}.'}"


def _looked_up(title: str, values: Mapping[tuple[str, str, str], float]) -> Metric:
    def value(plate: Plate, place: Place) -> float:
        return values.get((plate.name, plate.rows[place[0]], plate.columns[place[1]]), math.nan)

    return Metric(title, value)


def limits(plates: Sequence[Plate], metric: Metric) -> tuple[float, float] | None:
    """The values of the darkest and the brightest colour, the same for all plates; None where no well has a value."""
    values = np.array([metric.value(plate, place) for plate in plates for place in plate.wells])
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
        values = (self.metric.value(self.plate, place) for place in self.plate.wells)
        known = [value for value in values if math.isfinite(value)]
        return f"from {figure(min(known))} to {figure(max(known))}" if known else "without values"

    def look(self, row: int, column: int) -> str:
        """The colour of a well, as #rrggbb; of one without a value, its class."""
        well = self.plate.wells.get((row, column))
        if well is None:
            return "none"
        value, (low, high) = self.metric.value(self.plate, (row, column)), self.span
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
        return f"{name}: {figure(self.metric.value(self.plate, (row, column)))}; {number}{failed}"


def heatmaps(
    plates: Sequence[Plate], survey: RunStatistics, chosen: Sequence[Metric] = ()
) -> list[tuple[Plate, list[Heatmap]]]:
    """The heat maps of as many plates as there is room for, but of one at least.

    chosen: what else is shown, see `columns_of_wells`.
    """
    spans = [(metric, span) for metric in (*metrics(survey), *chosen) if (span := limits(plates, metric)) is not None]
    drawn, room = list[tuple[Plate, list[Heatmap]]](), CELLS
    for plate in plates:
        room -= len(plate.rows) * len(plate.columns) * len(spans)
        if room < 0 and drawn:
            break
        drawn.append((plate, [Heatmap(plate, metric, span, survey.per) for metric, span in spans]))
    return drawn
