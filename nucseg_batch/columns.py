"""The columns of the tables, each a record: every other place derives from these what it needs to know of a column.

`python tests/column_tables.py` writes the tables of columns in docs/output.md from them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

ColumnType = Literal["string", "int32", "int64", "float64"]
"""Type of the values, as pyarrow names it."""
Group = (
    Literal["basic", "shape", "moments", "intensity", "weighted", "edge", "radial", "texture", "neighbours"]
    | Literal["compartments", "background"]
)
"""Columns of nuclei that belong together."""


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
    """What it belongs to, and is measured with."""
    per_channel: bool = False
    """Whether it is of an intensity: measured in the channel of the nuclei and once more in each separate channel."""
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
_intensity = functools.partial(Column, unit="of the image", group="intensity", per_channel=True, skimage=True)
_LABEL = _whole(
    "label",
    "label of the nucleus in the mask of this plane, 1 to n. Labels of different time points "
    "or z-slices are unrelated, but see `--link`",
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

_per_channel = functools.partial(Column, unit="of the image", per_channel=True)
BACKGROUND: Group = "background"
"""The group whose columns need all pixels of a plane."""
_background = functools.partial(_per_channel, group=BACKGROUND)
_COVERED = "nuclei cover the plane"
_hu = "one of Hu's seven invariants under translation, scale and rotation, of the shape"
NEIGHBOUR_COUNT = "neighbour_count"
"""The column that depends on the radius of neighbours."""
_EDGE = "pixels with another nucleus or background on one of four sides"
OPTIONAL = (
    _shape("solidity", "area / area of the convex hull; 1 is convex", "0 to 1"),
    _shape("feret_diameter_max", "largest distance between two points of the hull", "px"),
    Column("form_factor", "4π area / perimeter², as CellProfiler's FormFactor", "", "perimeter is 0", group="shape"),
    *(Column(f"moments_hu-{i}", _hu, group="moments", skimage=True) for i in range(7)),
    _per_channel("intensity_sum", "sum of its pixels; DNA content in a DNA stain", group="intensity"),
    _intensity("intensity_median", "median of its pixels"),
    _per_channel("intensity_p25", "25th percentile, as `numpy.percentile` has it", group="intensity"),
    _per_channel("intensity_p75", "75th percentile", group="intensity"),
    *(
        _place(
            f"centroid_weighted-{axis}",
            f"mean {what} of its pixels, weighted by their intensities",
            empty="intensities sum to 0",
            group="weighted",
            per_channel=True,
            axis=axis,
        )
        for axis, what in enumerate(("row", "column"))
    ),
    _per_channel("edge_intensity_sum", f"sum of its edge: {_EDGE}, as in CellProfiler", group="edge"),
    _per_channel("edge_intensity_mean", "mean of its edge", empty="no edge in the image", group="edge"),
    _per_channel("edge_intensity_std", "standard deviation of its edge", empty="no edge in the image", group="edge"),
    _per_channel("edge_intensity_min", "lowest value of its edge", empty="no edge in the image", group="edge"),
    _per_channel("edge_intensity_max", "highest value of its edge", empty="no edge in the image", group="edge"),
    _background("background_intensity_median", "median of all pixels of the plane outside nuclei", empty=_COVERED),
    _background("corrected_intensity_mean", "`intensity_mean` - `background_intensity_median`", empty=_COVERED),
    _background("corrected_intensity_sum", "`area` x that; DNA content in a DNA stain", empty=_COVERED),
    *(
        Column(
            f"radial_distribution_frac_at_d_{i}of4",
            f"fraction of its intensity in zone {i} of 4 from the middle to the edge, as CellProfiler's FracAtD",
            "0 to 1",
            "intensities sum to 0",
            group="radial",
            per_channel=True,
        )
        for i in range(1, 5)
    ),
    *(
        Column(
            f"texture_{name}",
            f"{definition}, see below",
            unit,
            "a single pixel, or one that is not finite",
            group="texture",
            per_channel=True,
        )
        for name, definition, unit in (
            ("contrast", "mean squared difference of grey levels of neighbouring pixels", "0 to 49"),
            ("dissimilarity", "mean difference of them", "0 to 7"),
            ("homogeneity", "mean of 1 / (1 + squared difference)", "0 to 1"),
            ("asm", "sum of squared frequencies of pairs of grey levels, the angular second moment", "0 to 1"),
            ("energy", "square root of it", "0 to 1"),
            ("correlation", "correlation of grey levels of neighbouring pixels; 1 if all are equal", "-1 to 1"),
        )
    ),
    Column("neighbour_distance", "distance to the nearest centroid", "px", "only one nucleus", group="neighbours"),
    _whole(NEIGHBOUR_COUNT, "number of other centroids at most `--neighbour-radius` away", group="neighbours"),
    Column(
        "touching_fraction",
        "fraction of its border, in sides of pixels, that is also the border of another nucleus; the border of the "
        "image does not count",
        "0 to 1",
        group="neighbours",
    ),
)
"""Columns of nuclei.csv that are added when asked for, by group or name."""
OPTIONAL_GROUPS: tuple[str, ...] = tuple(dict.fromkeys(column.group for column in OPTIONAL))
"""Groups that can be asked for; some have columns besides that every run has."""
ALL = "all"
"""Asks for all of them."""


def requested_columns(words: str) -> tuple[Column, ...]:
    """The optional columns of groups and names, with commas, in the order of OPTIONAL; other words are ignored."""
    asked = {word.strip() for word in words.split(",")}
    return tuple(column for column in OPTIONAL if asked & {column.name, column.group, ALL})


def canonical_request(words: str) -> str:
    """The same columns in one form: groups that are asked for whole, names of the others, in the order of OPTIONAL."""
    asked = requested_columns(words)
    if asked == OPTIONAL:
        return ALL
    whole = [group for group in OPTIONAL_GROUPS if all(c in asked for c in OPTIONAL if c.group == group)]
    return ",".join(dict.fromkeys(column.group if column.group in whole else column.name for column in asked))


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
    _micrometres("feret_diameter_max", 1),
    _micrometres("neighbour_distance", 1),
    _micrometres("ring_area", 2),
    _micrometres("cell_area", 2),
)
"""Columns of nuclei.csv in micrometres, in runs that know a pixel size and have the columns in pixels."""


def channel_columns(channels: Iterable[str], columns: Iterable[Column] = MEASURED) -> tuple[Column, ...]:
    """Those of the columns that are of intensities for each separate channel, such as `intensity_mean-DAPI`."""
    intensities = [column for column in columns if column.per_channel]
    return tuple(
        replace(
            column,
            name=f"{column.name}-{channel}",
            definition=f"`{column.name}` of the separate channel `{channel}`",
            empty="; ".join(filter(None, (column.empty, "no such channel, or its file is missing"))),
            skimage=False,
        )
        for channel in channels
        for column in intensities
    )


def compartment_columns(*, ring: bool, cell: bool, background: bool = False) -> tuple[Column, ...]:
    """Columns of nuclei.csv of rings and of cells, see `arrays.compartment_sums`, and of rings as the background."""
    rings = (*_compartment("ring"), _RATIO, *(_RING_BACKGROUND if background else ())) if ring else ()
    return (*rings, *(_compartment("cell") if cell else ()))


def _compartment(name: str) -> Iterator[Column]:
    """Columns of one compartment."""
    column = functools.partial(Column, group="compartments")
    yield column(f"{name}_area", f"number of pixels of the {name}; 0 without one", "px²", type="int64")
    for statistic, definition in (
        ("mean", f"mean of the pixels of the {name}"),
        ("std", "standard deviation (divided by n)"),
        ("min", "lowest value"),
        ("max", "highest value"),
    ):
        yield column(f"{name}_intensity_{statistic}", definition, "of the image", f"no {name}", per_channel=True)
    yield column(f"{name}_intensity_sum", "sum of the values; 0 without pixels", "of the image", per_channel=True)


_RATIO = Column(
    "intensity_ratio",
    "`intensity_mean` / `ring_intensity_mean`",
    empty="no ring, or its mean is 0",
    group="compartments",
    per_channel=True,
)

_RING_BACKGROUND = (
    _background("ring_intensity_median", "median of the ring, with `--measure background`", empty="no ring"),
    _background("ring_corrected_intensity_mean", "`intensity_mean` - `ring_intensity_median`", empty="no ring"),
    _background("ring_corrected_intensity_sum", "`area` x that", empty="no ring"),
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

_KNOWN = {
    column.name: column
    for column in (
        *IMAGES,
        *NUCLEI,
        *OPTIONAL,
        *MICROMETRES,
        *compartment_columns(ring=True, cell=True, background=True),
        *FAILURES,
    )
}
TYPES: dict[str, ColumnType] = {name: column.type for name, column in _KNOWN.items()}
"""Type of each column by its name, which has one type in all tables. Columns of channels are not among them."""


def column_named(name: str) -> Column:
    """The record of a column by its name, which may end in `-<channel>`; without a definition where it is not known."""
    if name in _KNOWN:
        return _KNOWN[name]
    for base in (name[:place] for place in range(len(name) - 1, 0, -1) if name[place] == "-"):
        if base in _KNOWN and (found := channel_columns([name[len(base) + 1 :]], [_KNOWN[base]])):
            return found[0]
    return Column(name, "")


def is_measurement(name: str) -> bool:
    """Whether a column of nuclei.csv says more than which nucleus it is and where, so that its mean has a meaning."""
    column = column_named(name)
    return name not in names(NUCLEUS_KEY) and column.axis is None and column.type != "string"
