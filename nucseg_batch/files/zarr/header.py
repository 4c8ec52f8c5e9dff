"""What an image in a zarr store is, from its metadata: which axis is which, channels, size of a pixel, levels.

OME-Zarr 0.1 to 0.5 say their axes (0.1 and 0.2 by rule: t, c, z, y, x), and so do arrays with dimension names of xarray
or of format 3. Axes of an array that does not say them must be given, unless it has two. Version 0.6 is read
through `systems`. The first multiscale of several is the image, as the standard
has it. Colours: an axis c stays separate channels, also where the viewer's settings paint them red, green and blue; it
is taken for the samples of a colour picture only where its channels are *named* red, green and blue in this order (and
alpha, which is dropped). A named axis of samples (s, or rgb), as tifffile writes, is colour, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from nucseg_batch.errors import ImageError
from nucseg_batch.files.pixel_size import MICROMETRES, PLAUSIBLE, plausible_step
from nucseg_batch.files.source import AXES, ChannelInfo, Header
from nucseg_batch.files.zarr.guard import ArrayFacts, check_array, member_path, read_type
from nucseg_batch.files.zarr.nodes import Node
from nucseg_batch.files.zarr.systems import flattened

UNITS = {
    **MICROMETRES,
    "picometer": 1e-6,
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "micron": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
"""Units of length in micrometres, as OME-Zarr names them and as people do."""
_NAMES = {
    "T": {"t", "time", "times", "timepoint", "frame"},
    "C": {"c", "ch", "channel", "channels"},
    "Z": {"z", "depth", "plane"},
    "Y": {"y", "row", "rows", "height"},
    "X": {"x", "column", "columns", "col", "width"},
    "S": {"s", "sample", "samples", "rgb", "rgba"},
}
_COLOURS = ({"red", "r"}, {"green", "g"}, {"blue", "b"}, {"alpha", "a"})
_EMISSION = ("emissionWave", "emissionWavelength", "emission_wavelength")
_EXCITATION = ("excitationWave", "excitationWavelength", "excitation_wavelength")
MAX_CHANNELS = 1024
"""Channels that an image may have; more are axes that were mixed up."""
STACK = "I"
"""Letter of the axis along which our own stores have images of one shape."""
_NO_AXIS = "-"
"""Letter of an axis of length 1 that is none of ours."""
_EXAMPLES = {count: f", such as --axes {axes}" for count, axes in ((3, "zyx"), (4, "czyx"), (5, "tczyx"))}
"""What to say of arrays of so many axes, whose order only the user knows."""
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What metadata raise that are not built as they should be."""


@dataclass(frozen=True)
class ZarrHeader:
    """An image in a zarr store, before any pixel is read."""

    header: Header
    """What it says of itself."""
    array: str
    """Path of its array of full resolution in the store."""
    letters: str
    """A letter for each axis of the array as stored: one of TCZYXS, STACK, or `-` for another one, of length 1."""
    facts: ArrayFacts
    """How its array is stored."""
    zarr_format: Literal[2, 3]
    """Version of the format."""
    blank: bool = False
    """Whether it has no chunk at all; always False behind a URL."""
    unused_axes: bool = False
    """Whether axes were given, and others are known."""

    @property
    def colour(self) -> bool:
        """Whether it is a colour picture."""
        return self.header.axes.endswith("S")


def first_level(node: Node, *, labels: bool = False) -> str:
    """Path of the array of full resolution of an image group; raises ImageError where the group has none.

    A label image is no image, unless `labels` allows it.
    """
    if "image-label" in node.ome and not labels:
        raise ImageError("it is a label image, not an image; give the image that it belongs to.")
    try:
        datasets = _multiscale(node)["datasets"]
        path = datasets[0]["path"]
        widths = [scale[-1] for scale in map(_scale, datasets) if scale]
    except ImageError:
        raise
    except _DAMAGE as error:
        raise ImageError("its OME-Zarr metadata list no pixels (no multiscales, or no datasets in them).") from error
    if widths and min(widths) < widths[0]:
        raise ImageError("its levels are not ordered from the finest to the coarsest, as OME-Zarr asks for.")
    return member_path(node.path, path)


def describe(
    group: Node | None, array: Node | ImageError | None, *, axes: str | None, stacked: bool = False
) -> ZarrHeader:
    """Describes an OME-Zarr image group and its first level, or (group None) a plain array whose axes may be given.

    `stacked` allows an axis i of many images, of which the header is that of each. Raises ImageError for what cannot be
    read, or only by guessing.
    """
    if isinstance(array, ImageError):
        raise array
    if array is None or array.kind != "array":
        raise ImageError("its metadata name an array that is not there; the copy of the store is incomplete.")
    facts = check_array(array)
    try:
        multiscale = _multiscale(group) if group is not None else {}
        letters = told = _letters(multiscale, array, facts, axes, stacked)
        omero = list(group.ome.get("omero", {}).get("channels", [])) if group is not None else []
        letters, channels = _channels(letters, facts, omero)
        size, step = _pixel_size(multiscale, letters), _z_step(multiscale, letters)
    except ImageError:
        raise
    except _DAMAGE as error:
        raise ImageError(f"its OME-Zarr metadata are damaged ({type(error).__name__}: {error}).") from error
    order = [letter for letter in (*AXES, "S") if letter in letters]
    lengths = [3 if letter == "S" else facts.shape[letters.index(letter)] for letter in order]
    nodes = [node for node in (group, array) if node is not None]
    header = Header(
        axes="".join(order),
        shape=tuple(lengths),
        dtype=read_type(facts.dtype),
        size=sum(node.size for node in nodes),
        mtime_ns=max(node.mtime_ns for node in nodes),
        channels=channels,
        pixel_size=size,
        z_step=step,
        levels=len(multiscale.get("datasets", "1")),
        chunk=_window(facts, letters),
    )
    unused = axes is not None and _told(axes, facts.shape) != told
    return ZarrHeader(header, array.path, letters, facts, array.zarr_format, unused_axes=unused)


def _multiscale(node: Node) -> dict[str, Any]:
    multiscale = node.ome["multiscales"][0]
    if not isinstance(multiscale, dict):
        raise TypeError("multiscales are no list of objects")
    return flattened(multiscale)


def _letters(multiscale: dict[str, Any], array: Node, facts: ArrayFacts, given: str | None, stacked: bool) -> str:
    """A letter for each axis of an array; raises ImageError where it is not known."""
    names = _axis_names(multiscale, len(facts.shape), stacked)
    if names is None and not multiscale:
        names = _dimension_names(array)
    if names is None and len(facts.shape) == 2:
        names = ["y", "x"]
    if names is None and given is not None and len(given) == len(facts.shape):
        names = list(given)
    if names is None:
        but = f"; --axes {given} names {len(given)}" if given else ""
        raise ImageError(
            f"its array has {len(facts.shape)} axes {facts.shape} and does not say which they are{but}; "
            f"say it with --axes{_EXAMPLES.get(len(facts.shape), '')}."
        )
    if len(names) != len(facts.shape):
        raise ImageError(f"its metadata name {len(names)} axes ({', '.join(names)}), but its array has {facts.shape}.")
    return _assigned(names, facts.shape, stacked)


def _told(given: str, shape: tuple[int, ...]) -> str | None:
    """Letters of axes that were given, for an array that says its own; None where they do not fit it."""
    try:
        return _assigned(list(given), shape) if len(given) == len(shape) else None
    except ImageError:
        return None


def _assigned(names: list[str], shape: tuple[int, ...], stacked: bool = False) -> str:
    letters = ""
    for name, length in zip(names, shape, strict=True):
        letter = STACK if stacked and name == "i" else _letter(name) or _NO_AXIS
        if letter == _NO_AXIS and length != 1:
            raise ImageError(f"it has an axis {name[:40]!r} of {length} places, which is none of t, c, z, y and x.")
        if letter == "S":
            letter = _NO_AXIS if length == 1 else letter
            if length not in (1, 3, 4):
                raise ImageError(f"its axis {name[:40]!r} has {length} samples; a colour has 3, or 4 with alpha.")
        if letter in letters.replace(_NO_AXIS, ""):
            raise ImageError(f"two of its axes ({', '.join(names)}) mean {letter.lower()}.")
        letters += letter
    if "Y" not in letters or "X" not in letters:
        raise ImageError(f"its axes ({', '.join(names)}) are not those of an image: y or x is missing.")
    if "S" in letters and "C" in letters:
        if shape[letters.index("C")] != 1:
            raise ImageError("it has both channels and colours; choose one and store it again.")
        letters = letters.replace("C", _NO_AXIS)
    return letters


def _letter(name: str) -> str | None:
    return next((letter for letter, names in _NAMES.items() if name.lower() in names), None)


def _axis_names(multiscale: dict[str, Any], count: int, stacked: bool) -> list[str] | None:
    """Names of the axes as OME-Zarr metadata give them; None where they do not.

    Axes of space that are not named z, y and x are these in order; in annotated data names count that are known at all.
    """
    axes = multiscale.get("axes")
    if axes is None:
        return list("tczyx") if str(multiscale.get("version")) in ("0.1", "0.2") and count == 5 else None
    if all(isinstance(axis, str) for axis in axes):
        return list(axes)
    spaces = [axis for axis in axes if axis.get("type") == "space"]
    letters = [_letter(str(axis["name"])) for axis in spaces]
    known = all(letter in ("Z", "Y", "X") for letter in letters) or (stacked and None not in letters)
    kinds = {"time": "t", "channel": "c"}
    rest = iter("zyx"[-len(spaces) :])
    names = []
    for axis in axes:
        name = str(axis["name"])
        if axis.get("type") == "space":
            name = name if known else next(rest, name)
        elif _letter(name) is None:
            name = kinds.get(str(axis.get("type")), name)
        names.append(name)
    return names


def _dimension_names(array: Node) -> list[str] | None:
    """Names of the dimensions of a plain array, where all are names of axes; None else."""
    for names in (array.metadata.get("dimension_names"), array.attributes.get("_ARRAY_DIMENSIONS")):
        if isinstance(names, list) and names and all(isinstance(name, str) and _letter(name) for name in names):
            return list(names)
    return None


def _channels(letters: str, facts: ArrayFacts, omero: list[Any]) -> tuple[str, tuple[ChannelInfo, ...]]:
    """Letters, with S for C where the channels are those of a colour, and what is known of the channels."""
    if "C" not in letters:
        return letters, ()
    count = facts.shape[letters.index("C")]
    if count > MAX_CHANNELS:
        raise ImageError(f"it has {count} channels, more than the {MAX_CHANNELS} that are allowed; are its axes right?")
    entries = omero if len(omero) == count and all(isinstance(entry, dict) for entry in omero) else [{}] * count
    labels = [str(entry.get("label", "")).strip() for entry in entries[: len(_COLOURS)]]
    if count in (3, 4) and all(label.lower() in names for label, names in zip(labels, _COLOURS, strict=False)):
        return letters.replace("C", "S"), ()
    return letters, tuple(_channel(number, entry) for number, entry in enumerate(entries))


def _channel(number: int, entry: dict[str, Any]) -> ChannelInfo:
    waves = [
        entry[key] for key in (*_EMISSION, *_EXCITATION) if isinstance(entry.get(key), (int, float)) and entry[key]
    ]
    name = entry.get("label")
    return ChannelInfo(str(number) if name is None or name == "" else str(name), float(waves[0]) if waves else None)


def _scale(holder: dict[str, Any]) -> list[float] | None:
    """The scale among the coordinate transformations of a level or multiscale; None without one."""
    for part in holder.get("coordinateTransformations") or []:
        if part.get("type") == "scale" and isinstance(part.get("scale"), list):
            return [float(number) for number in part["scale"]]
    return None


def _pixel_size(multiscale: dict[str, Any], letters: str) -> float | None:
    """Width of a pixel in micrometres; None where it is not known, or rows and columns differ in it."""
    height, width = (_distance(multiscale, letters.index(axis)) for axis in "YX")
    good = all(size is not None and PLAUSIBLE[0] <= size <= PLAUSIBLE[1] for size in (height, width))
    return width if good and math.isclose(height or 0.0, width or 0.0, rel_tol=0.01) else None


def _z_step(multiscale: dict[str, Any], letters: str) -> float | None:
    """Distance of z-slices in micrometres; None where it is not known."""
    return plausible_step(_distance(multiscale, letters.index("Z"))) if "Z" in letters else None


def _distance(multiscale: dict[str, Any], place: int) -> float | None:
    """Distance of neighbours along an axis, in micrometres; None where it is not known."""
    axes = multiscale.get("axes")
    scale = _scale(multiscale["datasets"][0]) if multiscale else None
    if not axes or not scale or not all(isinstance(axis, dict) for axis in axes):
        return None
    whole, factor = _scale(multiscale), UNITS.get(str(axes[place].get("unit")).replace("metre", "meter"))
    if factor is None:
        return None
    size = scale[place] * factor * (whole[place] if whole else 1.0)
    return size if math.isfinite(size) else None


def _window(facts: ArrayFacts, letters: str) -> tuple[int, int]:
    """Height and width of the chunks, at most those of the image."""
    places = (letters.index("Y"), letters.index("X"))
    return tuple(min(facts.chunk[place], facts.shape[place]) for place in places)  # type: ignore[return-value]
