"""Arrays of a program as images: dask, zarr and other arrays that give windows of themselves, read like files.

Values are those of a zarr array that is read from disk, see `zarr.source.real_values`.
"""

from __future__ import annotations

import reprlib
from typing import Any

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray

from nucseg_batch.errors import UsageError
from nucseg_batch.files.dask_windows import DaskWindows
from nucseg_batch.files.missing import is_filling
from nucseg_batch.files.source import AXES, Header
from nucseg_batch.files.zarr.guard import read_type
from nucseg_batch.files.zarr.source import check_window, real_values

KNOWN_AXES = {2: "yx", 5: "tczyx"}
"""Axes of an array that does not name them, by their number."""
EXAMPLES = {3: "zyx, tyx, cyx or yxs", 4: "czyx, tcyx, tzyx or zyxs"}
"""What they can be where the number does not say it."""
KINDS = "buif"
"""Kinds of dtypes that are pixels."""


def array_axes(array: Any, given: str | None) -> str:
    """A letter of TCZYXS for each axis of an array: as given, as a zarr array names them, or by their number.

    given: such as `tczyx`, in any order; s stands for the three samples of a colour. Raises UsageError where they are
    not known, or do not fit, and for what is no array.
    """
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        raise UsageError(
            "x must be a dask, zarr or numpy array, or another one with shape and dtype that is indexed with slices, "
            f"but is {reprlib.repr(array)} ({type(array).__name__}); for files, use open_images."
        )
    shape: tuple[int, ...] = array.shape
    axes = given or getattr(array, "axes", None) or _dimension_names(array) or KNOWN_AXES.get(len(shape))
    if axes is None:
        such = f", such as {EXAMPLES[len(shape)]}" if len(shape) in EXAMPLES else ""
        raise UsageError(f"axes must be given for an array of shape {shape}{such}.")
    letters = axes.upper()
    colour = "S" in letters
    good = set("YX") <= set(letters) <= set("TZYXS" if colour else AXES) and len(set(letters)) == len(letters)
    if not good or len(letters) != len(shape):
        raise UsageError(
            f"axes must name each axis of an array of shape {shape} once: y, x and some of t, z, and c or s; but are "
            f"{axes!r}."
        )
    if colour and shape[letters.index("S")] not in (3, 4):
        raise UsageError(
            f"axis s must have 3 samples, or 4 with alpha, but axes {axes!r} of shape {shape} have others."
        )
    return letters


def array_header(array: Any, letters: str, chunk: tuple[int, int] | None) -> Header:
    """What an array with these axes is as an image; chunk: height and width of the pieces in which it is stored.

    Raises UsageError for an array without pixels, with a length that is not known yet, or of another dtype.
    """
    shape, dtype = array.shape, np.dtype(array.dtype)
    if not all(length >= 1 for length in shape):  # also lengths of dask arrays that are not known, which are NaN
        raise UsageError(f"an array must have pixels and a known shape, but this one has {shape}.")
    if dtype.kind not in KINDS or dtype.itemsize > 8:
        raise UsageError(f"an array must have an integer, bool or float dtype of up to 64 bits, but this has {dtype}.")
    lengths = dict(zip(letters, shape, strict=True)) | ({"S": 3} if "S" in letters else {})
    axes = "".join(axis for axis in (*AXES, "S") if axis in lengths)
    sides = (lengths["Y"], lengths["X"])
    piece = None if chunk is None else (min(chunk[0], sides[0]), min(chunk[1], sides[1]))
    channels = getattr(array, "channels", ()) if "C" in axes else ()
    return Header(axes, tuple(lengths[axis] for axis in axes), read_type(dtype), 0, 0, channels, chunk=piece)


class ArraySource:
    """One channel, or the colours, of an array; implements `Source`, and can be sent to other processes.

    array: anything with shape and dtype that gives a window when it is indexed with slices. letters: see `array_axes`.
    channel: which place of axis C is read, where there is one.
    """

    def __init__(self, array: Any, letters: str, chunk: tuple[int, int] | None = None, channel: int = 0) -> None:
        whole = array_header(array, letters, chunk)
        axes = whole.axes.replace("C", "")
        self._header = Header(
            axes, tuple(whole.length(axis) for axis in axes), whole.dtype, whole.size, whole.mtime_ns, chunk=whole.chunk
        )
        self._array = DaskWindows(array) if hasattr(array, "__dask_graph__") else _by_blocks(array, letters)
        self._letters, self._channel = letters, channel
        self._filling = _filling(array)

    @property
    def header(self) -> Header:
        """What the array is as an image, without axis C."""
        return self._header

    def read(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """A window of one plane, (h, w) or (h, w, 3); see `Source`. Raises what reading the array raises."""
        check_window(self._header, t, z, rows, columns)
        places: dict[str, int | slice] = {"T": t, "Z": z, "C": self._channel, "S": slice(0, 3)}
        places |= {"Y": slice(rows.start or 0, rows.stop), "X": slice(columns.start or 0, columns.stop)}
        window = np.asarray(self._array[tuple(places[letter] for letter in self._letters)])
        left = [letter for letter in self._letters if letter in "YXS"]
        pixels = window.transpose([left.index(letter) for letter in "YXS" if letter in left])
        whole = pixels.shape[:2] == (self._header.length("Y"), self._header.length("X"))
        return real_values(pixels, whole=whole, filling=self._filling)

    def close(self) -> None:
        """Nothing is open."""


def _by_blocks(array: Any, letters: str) -> Any:
    """An array, read so that a chunk with several planes or channels is not decoded again for each of them."""
    chunks = getattr(array, "chunks", None)
    if not chunks or len(chunks) != len(letters):
        return array
    if all(chunk == 1 for chunk, letter in zip(chunks, letters, strict=True) if letter in "TZC"):
        return array
    return DaskWindows(da.from_array(array, chunks=tuple(chunks), inline_array=True))


def _dimension_names(array: Any) -> str | None:
    """The letters that a zarr array names its dimensions with; None where it does not."""
    names = getattr(getattr(array, "metadata", None), "dimension_names", None) or ()
    return "".join(names) if names and all(name is not None and len(name) == 1 for name in names) else None


def _filling(array: Any) -> float:
    """What stands for missing values of floats: the fill value of a zarr array, 0 where that is not finite."""
    if not isinstance(array, zarr.Array) or np.dtype(array.dtype).kind != "f":
        return 0.0
    value = array.fill_value
    return 0.0 if value is None or is_filling(np.array(value, np.float64)) else float(value)
