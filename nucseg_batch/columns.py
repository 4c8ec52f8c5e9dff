"""The columns of the tables, each a record: every other place derives from these what it needs to know of a column.

`python tests/column_tables.py` writes the tables of columns in docs/output.md from them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

ColumnType = Literal["string", "int32", "int64", "float64"]
"""Type of the values, as pyarrow names it."""
Group = Literal["basic", "shape", "intensity"]
"""Columns of nuclei that are measured together; those of `intensity` once more in each separate channel."""


@dataclass(frozen=True)
class Column:
    """A column of images.csv, nuclei.csv or failures.csv."""

    name: str
    """Its name in the header."""
    definition: str
    """What it is, in Markdown for docs/output.md."""
    unit: str = ""
    """Unit or range, likewise."""
    empty: str = ""
    """When a cell is empty, likewise."""
    type: ColumnType = "float64"
    """Type of its values; any cell may be empty."""
    group: Group = "basic"
    """What it is measured with."""
    axis: int | None = None
    """Axis of the plane, 0 (y) or 1 (x), along which it is a coordinate: it moves with a window of the plane."""
    skimage: bool = False
    """Whether it is named and defined as in `skimage.measure.regionprops_table`."""
    source: str = ""
    """Of a column in micrometres: the column in pixels that it is computed from."""
    power: int = 0
    """Likewise: the power of the pixel size that `source` is multiplied by."""


def names(columns: Iterable[Column]) -> tuple[str, ...]:
    """Names of the columns."""
    return tuple(column.name for column in columns)


_text = functools.partial(Column, type="string")
_whole = functools.partial(Column, type="int32")
_IMAGE = _text("image", "name of the image, as above", empty="never")
_PLANE = (
    _whole(
        "t",
        "time point, counted in the image even if `--t` selects some",
        "from 0",
        "no such axis; the image was refused while planning",
    ),
    _whole("z", "z-slice, likewise", "from 0", "no such axis; `--z max`; refused while planning"),
)
PLANE_KEY = (_IMAGE, *_PLANE)
"""What names a plane in images.csv and nuclei.csv."""

PLANE_STATE = (
    _IMAGE,
    _text(
        "status",
        "`ok`: it has a mask, possibly without nuclei; `failed`: see failures.csv; `missing`: not done yet, after a "
        "`finish` of an unfinished run",
        empty="never",
    ),
    _text("mask", "path of its label group in `out.zarr`; the array at full resolution is `<mask>/0`", "", "not `ok`"),
    _whole("index", "index on axis i of that array", "from 0", "not `ok`; the array has no axis i (images of stores)"),
    *_PLANE,
)
"""Columns of images.csv that say which plane it is, and what became of it."""

PLANE_SUMMARY = (
    _whole("height", "rows of the plane", "px", "not `ok`, as for all following columns"),
    _whole("width", "columns", "px"),
    _whole("nuclei", "number of nuclei in the mask; their labels are 1 to this number"),
    Column("area_fraction", "pixels of nuclei / pixels of the plane", "0 to 1"),
    Column("area_mean", "mean of `area` of nuclei.csv", "px²", "no nuclei"),
    Column("area_median", "median of it", "px²", "no nuclei"),
    Column("area_std", "its standard deviation (divided by n); 0 for one nucleus", "px²", "no nuclei"),
    Column(
        "intensity_mean",
        "mean over nuclei of `intensity_mean` of nuclei.csv; each nucleus counts once",
        "of the image",
        "no nuclei",
    ),
    Column("intensity_std", "standard deviation (divided by n) of these means", "of the image", "no nuclei"),
    Column("intensity_background", "mean of all pixels outside nuclei", "of the image", "nuclei cover the plane"),
    Column(
        "confidence",
        "mean confidence of the nuclei, see [Which images to distrust](confidence.md)",
        "0 to 1",
        "no nuclei",
    ),
    Column(
        "sharpness",
        "mean squared difference of pixels that are 2 apart along x, divided by twice the variance, over every fourth "
        "row: 1 - autocorrelation at that distance. Near 0 out of focus, about 1 for noise. Compare only images of one "
        "kind",
        "about 0 to 1",
        "all pixels are equal",
    ),
    Column(
        "saturated_fraction",
        "fraction of pixels with the highest value in the plane: close to 0 unless the camera was saturated; 1 if all "
        "pixels are equal",
        "0 to 1",
    ),
    Column(
        "scale",
        "factor by which the plane was enlarged (above 1) or reduced for the network; the mask has the pixels of the "
        "image",
    ),
    Column("pixel_size", "pixel size from `--pixel-size`, else from the file", "µm", "unknown"),
)
"""Columns of images.csv that describe a segmented plane, see `files.run.tables.plane_summary`."""

IMAGES = (*PLANE_STATE, *PLANE_SUMMARY)
"""Columns of images.csv."""

_place = functools.partial(Column, unit="px", skimage=True)
_shape = functools.partial(Column, group="shape", skimage=True)
_intensity = functools.partial(Column, unit="of the image", group="intensity", skimage=True)
_LABEL = _whole(
    "label",
    "label of the nucleus in the mask of this plane, 1 to n. Nuclei are not tracked: labels of different time points "
    "or z-slices are unrelated",
    skimage=True,
)
NUCLEUS_KEY = (*PLANE_KEY, _LABEL)
"""What names a nucleus in nuclei.csv."""

MEASURED = (
    _LABEL,
    Column("area", "number of pixels", "px²", type="int64", skimage=True),
    _place("bbox-0", "first row of the bounding box", type="int32", axis=0),
    _place("bbox-1", "first column", type="int32", axis=1),
    _place("bbox-2", "row after the last one", type="int32", axis=0),
    _place("bbox-3", "column after the last one", type="int32", axis=1),
    _place("centroid-0", "mean row of its pixels", axis=0),
    _place("centroid-1", "mean column", axis=1),
    _shape("axis_major_length", "long axis of the ellipse with the same second moments", "px"),
    _shape("axis_minor_length", "short axis of it; 0 for a nucleus one pixel wide", "px"),
    _shape("eccentricity", "of that ellipse: distance of its foci / long axis; 0 is a circle", "0 to 1"),
    _shape(
        "orientation", "angle between the row axis (down) and the long axis, -π/2 to π/2, counter-clockwise", "radians"
    ),
    _shape("equivalent_diameter_area", "diameter of the circle of that area, √(4 area / π)", "px"),
    _shape("extent", "area / area of the bounding box", "0 to 1"),
    _shape(
        "perimeter",
        "length of the line through the centres of its border pixels, by the weights of Benkrid and Crookes",
        "px",
    ),
    _intensity("intensity_mean", "mean of its pixels in the channel with the nuclei, as for images.csv"),
    _intensity("intensity_min", "lowest value"),
    _intensity("intensity_max", "highest value"),
    _intensity("intensity_std", "standard deviation (divided by n)"),
)
"""Columns of nuclei.csv that `arrays.measure.measure` computes, in its order."""

NUCLEI = (
    *PLANE_KEY,
    *MEASURED,
    Column(
        "confidence",
        "mean over its pixels of probability x closeness of their votes for its centre, see [Which images to "
        "distrust](confidence.md); of a `--task semantic` model the probability alone",
        "0 to 1",
    ),
)
"""Columns of nuclei.csv in every run."""


def _micrometres(source: str, power: int) -> Column:
    square, name = ("²", f"{source}_um2") if power == 2 else ("", f"{source}_um")
    definition = f"`{source}` x pixel_size{square}"
    return Column(name, definition, f"µm{square}", "unknown pixel size", source=source, power=power)


MICROMETRES = (
    _micrometres("area", 2),
    _micrometres("equivalent_diameter_area", 1),
    _micrometres("axis_major_length", 1),
    _micrometres("axis_minor_length", 1),
    _micrometres("perimeter", 1),
)
"""Columns of nuclei.csv in micrometres, in runs that know a pixel size."""


def channel_columns(channels: Iterable[str]) -> tuple[Column, ...]:
    """Columns of nuclei.csv of separate channels, such as `intensity_mean-DAPI`."""
    return tuple(
        replace(
            column,
            name=f"{column.name}-{channel}",
            definition=f"`{column.name}` of the separate channel `{channel}`",
            empty="no such channel, or its file is missing",
            skimage=False,
        )
        for channel in channels
        for column in MEASURED
        if column.group == "intensity"
    )


FAILURES = (
    _text("image", "name of the image, in one row per failed plane"),
    _text(
        "stage",
        "`plan`: refused because of its header; `read`: not decodable; `segment`: network, memory, or killed "
        "processes; `measure`",
    ),
    _text(
        "error",
        "class of the error, such as `ImageError` or `MemoryError`; `KilledWorker` for an image that killed several "
        "processes",
    ),
    _text("message", "one line: time point and z-slice if it has them, what was found, and what to do"),
)
"""Columns of failures.csv."""

WELLS = (
    _text(
        "plate",
        "path of the plate, or of its folder and what the names of its files begin with",
        empty="all of IN is one plate",
    ),
    _text("row", "name of the row", empty="never"),
    _text("column", "name of the column", empty="never"),
    _text("well", "`A01`; `row/column` if row and column are not letters and a number", empty="never"),
    _whole("t", "time point", "from 0", "no such axis; images that were refused while planning"),
    _whole("images", "images with a mask, at this time point", empty="never"),
    _whole("images_failed", "images that failed, or of which a z-slice did", empty="never"),
    _whole("nuclei", "nuclei in these masks, over all z-slices", empty="never"),
)
"""Columns of wells.csv before those of `WELL_STATISTICS`."""

_OF_WELL = (
    Column("mean", "mean of `{}` over the nuclei of the well, for each column of nuclei.csv that is a measurement"),
    Column("median", "median of these values"),
    Column("mad", "median absolute deviation of these values from their median, not scaled"),
    Column("z", "only with `--controls`: robust z-score of the median, see below", empty="or the controls are equal"),
)


def well_columns(measured: Iterable[str], *, scores: bool) -> tuple[Column, ...]:
    """Columns of wells.csv of some columns of nuclei.csv, such as `area_median`; scores: whether with z-scores."""
    return tuple(
        replace(
            column,
            name=f"{name}_{column.name}",
            definition=column.definition.format(name),
            empty=", ".join(filter(None, ("no nucleus has a value", column.empty))),
        )
        for name in measured
        for column in _OF_WELL[: 4 if scores else 3]
    )


NO_MEASUREMENTS = frozenset(column.name for column in NUCLEI if column in NUCLEUS_KEY or column.axis is not None)
"""Columns of nuclei.csv that say which nucleus it is and where in its image: means of these have no meaning."""

TYPES: dict[str, ColumnType] = {
    column.name: column.type for column in (*IMAGES, *NUCLEI, *MICROMETRES, *FAILURES, *WELLS)
}
"""Type of each column by its name, which has one type in all tables. Columns of channels are not among them."""
