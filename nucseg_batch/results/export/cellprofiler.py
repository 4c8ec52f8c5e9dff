"""The tables with the names that CellProfiler's ExportToSpreadsheet gives them, for CytoTable and pycytominer.

CellProfiler also measures with scikit-image; docs/export.md lists the differences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from nucseg_batch.columns import NUCLEUS_KEY, names
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.csv_rows import csv_row, csv_text
from nucseg_batch.results.export.task import RunExport
from nucseg_batch.results.export.wells import WellNames
from nucseg_batch.results.tables import PlaneNuclei, PlaneRow

FOLDER = "cellprofiler"
"""Where the tables are, below the folder of an export."""
CHANNEL = "Nuclei"
"""CellProfiler's name for the channel with the nuclei."""
SHAPES = {
    "AreaShape_Area": "area",
    "AreaShape_BoundingBoxMaximum_X": "bbox-3",
    "AreaShape_BoundingBoxMaximum_Y": "bbox-2",
    "AreaShape_BoundingBoxMinimum_X": "bbox-1",
    "AreaShape_BoundingBoxMinimum_Y": "bbox-0",
    "AreaShape_Center_X": "centroid-1",
    "AreaShape_Center_Y": "centroid-0",
    "AreaShape_Eccentricity": "eccentricity",
    "AreaShape_EquivalentDiameter": "equivalent_diameter_area",
    "AreaShape_Extent": "extent",
    "AreaShape_FormFactor": "form_factor",
    **{f"AreaShape_HuMoment_{number}": f"moments_hu-{number}" for number in range(7)},
    "AreaShape_MajorAxisLength": "axis_major_length",
    "AreaShape_MaxFeretDiameter": "feret_diameter_max",
    "AreaShape_MinorAxisLength": "axis_minor_length",
    "AreaShape_Orientation": "orientation",
    "AreaShape_Perimeter": "perimeter",
    "AreaShape_Solidity": "solidity",
    "Location_Center_X": "centroid-1",
    "Location_Center_Y": "centroid-0",
}
"""Columns of Nuclei.csv, and those of nuclei.csv that they are; Orientation is in degrees."""
INTENSITIES = {
    "intensity_mean": "MeanIntensity",
    "intensity_min": "MinIntensity",
    "intensity_max": "MaxIntensity",
    "intensity_std": "StdIntensity",
    "edge_intensity_sum": "IntegratedIntensityEdge",
    "edge_intensity_mean": "MeanIntensityEdge",
    "edge_intensity_std": "StdIntensityEdge",
    "edge_intensity_min": "MinIntensityEdge",
    "edge_intensity_max": "MaxIntensityEdge",
}
"""Columns of nuclei.csv, of the channel with the nuclei and of each other, and CellProfiler's names."""


def cellprofiler_names(header: Sequence[str]) -> dict[str, str]:
    """Columns of Nuclei.csv, each with the one of nuclei.csv that it is; what CellProfiler lacks is `Nucseg_<name>`."""
    found = {theirs: ours for theirs, ours in SHAPES.items() if ours in header}
    shapes = set(found.values())
    for ours in header:
        if ours in (*names(NUCLEUS_KEY), *shapes):
            continue
        feature, _, channel = ours.partition("-")
        theirs = f"Intensity_{INTENSITIES.get(feature)}_{re.sub(r'[^A-Za-z0-9]', '_', channel) or CHANNEL}"
        found[f"Nucseg_{ours}" if feature not in INTENSITIES or theirs in found else theirs] = ours
    return found


def write_cellprofiler(whole: RunExport) -> list[str]:
    """Writes `Experiment.csv`, `Image.csv` and `Nuclei.csv`; images are numbered from 1 in the order of the tables."""
    folder = whole.folder / FOLDER
    folder.mkdir(exist_ok=True)
    header = whole.run.nuclei_columns
    columns = cellprofiler_names(header)
    wells = WellNames(whole.run)
    with whole_file(folder / "Experiment.csv") as experiment:
        experiment.write(csv_text([("Key", "Value"), *whole.about.items()]).encode())
    with whole_file(folder / "Image.csv") as images, whole_file(folder / "Nuclei.csv") as objects:
        images.write(csv_text([("ImageNumber", *_image_columns())]).encode())
        means = {theirs: ours for theirs, ours in columns.items() if theirs.startswith("Intensity_MeanIntensity_")}
        sums = [theirs.replace("Mean", "Integrated", 1) for theirs in means]
        objects.write(
            csv_text([("ImageNumber", "ObjectNumber", *columns, "AreaShape_BoundingBoxArea", *sums)]).encode()
        )
        rows = (row for row in whole.run.planes(whole.pattern) if row.segmented)
        for number, (row, pieces) in enumerate(whole.run.with_nuclei_in_pieces(rows), start=1):
            images.write(f"{number},{_image(row, wells)}\n".encode())
            for nuclei in pieces:
                lines = _objects(nuclei, list(columns.values()), list(means.values()))
                objects.writelines(f"{number},{line}\n".encode() for line in lines)
            whole.progress(number, whole.planes)
    return []


def _image_columns() -> tuple[str, ...]:
    of_channel = (f"{name}_{CHANNEL}" for name in ("FileName", "PathName", "Height", "Width", "Count"))
    return (*of_channel, "Metadata_Plate", "Metadata_Well", "Metadata_T", "Metadata_Z")


def _image(row: PlaneRow, wells: WellNames) -> str:
    folder, _, name = row.image.rpartition("/")
    return csv_row((name, folder, *row.shape, row.nuclei, *wells.of(row), row.t, row.z))


def _objects(nuclei: PlaneNuclei, columns: list[str], means: list[str]) -> Iterator[str]:
    """The nuclei as rows without the number of their image; numbers are written as in nuclei.csv."""
    places = [nuclei.columns.index(name) for name in columns]
    turned = columns.index("orientation")
    degrees = np.degrees(nuclei["orientation"])
    height, width = (nuclei[f"bbox-{axis + 2}"] - nuclei[f"bbox-{axis}"] for axis in (0, 1))
    added = np.stack([height * width, *(nuclei[name] * nuclei["area"] for name in means)], axis=1)
    for row, label, angle, more in zip(nuclei.rows, nuclei.labels, degrees, added.tolist(), strict=True):
        cells = [row[place] for place in places]
        cells[turned] = _text(angle)
        yield ",".join((str(label), *cells, *map(_text, more)))


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.7g}"
