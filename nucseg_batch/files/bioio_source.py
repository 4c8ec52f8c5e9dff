"""The door to microscopes' own formats (CZI, ND2, LIF and others) through bioio, which is an optional extra.

Nothing of bioio is imported before such a file is opened. It reads every format as time, channels, depth, rows, columns
and perhaps samples of a colour; axes of one place are left out here, but for channels, whose names are worth having.
Values follow the rules of `zarr.source`. A file of several scenes is several images: which one must be said.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError
from nucseg_batch.files.pixel_size import PLAUSIBLE, plausible_step
from nucseg_batch.files.source import AXES, ChannelInfo, Header
from nucseg_batch.files.zarr.guard import pixel_type, read_type
from nucseg_batch.files.zarr.header import UNITS
from nucseg_batch.files.zarr.source import check_window, real_values
from nucseg_batch.files.zarr.store import reason

PLUGINS = {
    ".czi": "bioio-czi",
    ".nd2": "bioio-nd2",
    ".lif": "bioio-lif",
    ".dv": "bioio-dv",
    ".r3d": "bioio-dv",
    ".sldy": "bioio-sldy",
}
"""Package that reads files of a suffix, beside bioio itself."""
BIOIO_SUFFIXES = frozenset(PLUGINS)
"""Files with these suffixes are taken for images that bioio reads."""


def open_bioio(path: Path, scene: int | None = None) -> BioioSource:
    """Opens an image file through bioio.

    Raises ImageError for a file that cannot be read, for one of several scenes unless `scene` says which (from 0), and
    where bioio or its plug-in for the format is not installed.
    """
    with _reasons(path):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("it is not a regular file.")
        image = _bioio().BioImage(path)
        count = len(image.scenes)
        if scene is None and count > 1:
            raise ImageError(
                f"it holds {count} scenes; only files of one are segmented: export each scene to a file, "
                "or all of them to OME-Zarr with bioformats2raw."
            )
        if not 0 <= (scene or 0) < count:
            raise ImageError(f"it has no scene {scene}: it holds {count}.")
        image.set_scene(scene or 0)
        return BioioSource(path, image, status)


class BioioSource:
    """A scene of a file that is open for reading; implements `Source`. Readers take turns."""

    def __init__(self, path: Path, image: Any, status: os.stat_result) -> None:
        self._path = path
        self._pixels = image.dask_data
        self._lock = threading.Lock()
        self._header = _header(image, status)

    @property
    def header(self) -> Header:
        """What the file says."""
        return self._header

    def read(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """A window of one plane; see `Source`. Raises ImageError where it cannot be decoded."""
        header = self._header
        check_window(header, t, z, rows, columns)
        with self._lock, _reasons(self._path):
            stored = np.asarray(self._pixels[t, :, z, rows, columns].compute(scheduler="synchronous"))
        if "C" not in header.axes:
            stored = stored[0]  # a colour, whose samples are the last axis
        colour = header.axes.endswith("S")
        whole = stored.shape[-3 if colour else -2 :][:2] == (header.length("Y"), header.length("X"))
        return real_values(stored[..., :3] if colour else stored, whole=whole, filling=0)

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._pixels = None


def _header(image: Any, status: os.stat_result) -> Header:
    order, shape = str(image.dims.order), tuple(int(length) for length in image.dask_data.shape)
    if order == "TCZYXS" and shape[-1] == 1:
        raise ImageError("it has an axis of samples with a single one, which is neither grey nor colour.")
    if order not in ("TCZYX", "TCZYXS"):
        raise ImageError(f"it has axes {order}; time, channels, depth, rows, columns and colours can be read.")
    if any(length == 0 for length in shape):
        raise ImageError(f"it has no pixels (its shape is {shape}).")
    colour = order.endswith("S")
    if colour and (shape[1] != 1 or shape[-1] not in (3, 4)):
        raise ImageError(f"it has {shape[1]} channels of {shape[-1]} samples; one colour of 3 or 4 can be read.")
    lengths = dict(zip(AXES, shape, strict=False)) | ({"S": 3} if colour else {})
    axes = "".join(
        axis
        for axis, length in lengths.items()
        if axis in "YXS" or (axis == "C" and not colour) or (axis in "TZ" and length > 1)
    )
    names = image.channel_names or []
    channels = names if len(names) == shape[1] else [str(number) for number in range(shape[1])]
    chunk = tuple(image.dask_data.chunksize[3:5])
    return Header(
        axes=axes,
        shape=tuple(lengths[axis] for axis in axes),
        dtype=read_type(pixel_type(np.dtype(image.dtype).name)),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        channels=tuple(ChannelInfo(str(name)) for name in channels) if "C" in axes else (),
        pixel_size=_pixel_size(image),
        z_step=_z_step(image),
        chunk=chunk if chunk != shape[3:5] else None,
    )


def _pixel_size(image: Any) -> float | None:
    """Width of a pixel in micrometres, which sizes are in unless a plug-in names another unit.

    None where it is not known, or is 1, which plug-ins give by default, or differs from the height.
    """
    try:
        sizes = image.physical_pixel_sizes
        unit = getattr(getattr(getattr(image, "dimension_properties", None), "X", None), "unit", None)
        factor = 1.0 if unit is None else UNITS.get(str(unit).strip().replace("metre", "meter"))
        if factor is None or sizes.X is None or sizes.Y is None or sizes.X == 1.0:
            return None
        width, height = float(sizes.X) * factor, float(sizes.Y) * factor
    except Exception:  # plug-ins raise their own classes; a size is not worth an image
        return None
    good = PLAUSIBLE[0] <= width <= PLAUSIBLE[1] and math.isclose(width, height, rel_tol=0.01)
    return width if good else None


def _z_step(image: Any) -> float | None:
    """Distance of z-slices in micrometres likewise; None where it is not known, or is 1."""
    try:
        step = image.physical_pixel_sizes.Z
        unit = getattr(getattr(getattr(image, "dimension_properties", None), "Z", None), "unit", None)
        factor = 1.0 if unit is None else UNITS.get(str(unit).strip().replace("metre", "meter"))
        return None if factor is None or step is None or step == 1.0 else plausible_step(float(step) * factor)
    except Exception:  # as above
        return None


def _bioio() -> Any:
    """The module bioio; raises ImageError with what to install where it is missing."""
    try:
        module = importlib.import_module("bioio")
    except ImportError as error:
        raise ImageError("this format is read through bioio: pip install 'nucseg-batch[bioio]'.") from error
    log = logging.getLogger("bioio")
    if not log.handlers:
        log.addHandler(logging.NullHandler())  # what it has to say is in the errors that it raises
    return module


@contextlib.contextmanager
def _reasons(path: Path) -> Iterator[None]:
    """Turns whatever bioio and its plug-ins raise into an ImageError of one line."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("the file is no longer there.") from error
    except Exception as error:  # plug-ins raise their own classes
        if type(error).__name__ == "UnsupportedFileFormatError":
            plugin = PLUGINS.get(path.suffix.lower())
            hint = f"it is damaged, or {plugin} is missing: pip install {plugin}" if plugin else "see bioio's plug-ins"
            raise ImageError(f"bioio cannot read it: {hint}.") from error
        raise ImageError(f"bioio cannot read it ({reason(error)}).") from error
