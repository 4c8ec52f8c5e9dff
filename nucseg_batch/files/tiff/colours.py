"""What the samples of a TIFF's pixels mean: grey, red-green-blue, palette numbers, alpha, or channels.

The rules are those that `images` lists. What means something else than light is refused in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import EXTRASAMPLE, PHOTOMETRIC

from nucseg_batch.errors import ImageError
from nucseg_batch.files.palettes import is_ramp, tinted
from nucseg_batch.plan import Assumption

ALPHA = frozenset({EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA})
_ALPHAS = tuple((alpha,) for alpha in ALPHA)
FURTHER = Assumption(
    kind="colour",
    what="its first three samples are red, green and blue, and the fourth is left out",
    evidence="it says that it is RGB, and nothing of the fourth sample",
    option="save it as channels",
)
"""What is assumed of RGB with a fourth sample of an unspecified kind."""
DECODED_TO_RGB = frozenset(
    {tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.APERIO_JP2000_YCBC}
)
"""Compressions whose decoder turns YCbCr into RGB."""
_GREY = frozenset({PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.PALETTE})
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True, eq=False)
class Samples:
    """How the samples of a pixel are used."""

    kind: Literal["grey", "colour", "channels"]
    """One intensity, red-green-blue, or channels that were measured apart."""
    count: int
    """How many of them are used, from the first; alpha comes behind them."""
    dtype: np.dtype[Any]
    """Of the pixels once palettes are looked up."""
    palette: NDArray[Any] | None = None
    """(3, entries): the colours that a pixel's number stands for."""
    white: int | None = None
    """The largest number, where 0 is white."""
    assumptions: tuple[Assumption, ...] = ()
    """What was assumed of its palette or its further samples."""

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Decoded samples (count, h, w) as (h, w) grey, (h, w, 3) colour or (c, h, w) channels."""
        if self.palette is not None:
            return np.ascontiguousarray(np.moveaxis(self.palette[:, pixels[0].astype(np.intp)], 0, -1))
        pixels = self.inverted(pixels)
        if self.kind == "colour":
            return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
        return pixels if self.kind == "channels" else pixels[0]

    def inverted(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pixels of any shape, of which 0 is black."""
        return pixels if self.white is None else pixels.dtype.type(self.white) - pixels


def samples_of(key: Any, *, apart: bool, channelled: bool, planes: int, measured: bool) -> Samples:
    """How the samples of a page are used; raises ImageError where they are no light.

    apart: whether the file says that the samples are channels. channelled: whether its channels are pages of their own.
    planes: how many pages make up the image. measured: whether its software stores intensities with the look-up table
    that they are displayed in.
    """
    if key.dtype is None or key.dtype.kind not in "buif":
        raise ImageError(f"pixels of type {key.dtype or f'{key.bitspersample} bits'} cannot be segmented.")
    kind, count = _kind(key, apart)
    if channelled and kind != "grey":
        raise ImageError(f"each of its channels has {key.samplesperpixel} samples; save its channels as grey pages.")
    if key.photometric != PHOTOMETRIC.PALETTE or channelled:
        return Samples(kind, count, key.dtype, white=_white(key), assumptions=_of_further(key, kind))
    palette = _palette(key, measured)
    if palette is None:
        return Samples(kind, count, key.dtype, assumptions=tinted(key.colormap))
    if planes > 1:
        raise ImageError(f"its {planes} planes are pictures in palette colours; save them as grey or RGB.")
    return Samples("colour", 1, palette.dtype, palette)


def _kind(key: Any, apart: bool) -> tuple[Literal["grey", "colour", "channels"], int]:
    samples, extra = int(key.samplesperpixel), tuple(key.extrasamples)
    photometric = _photometric(key)
    alpha = bool(extra) and extra[-1] in ALPHA
    if photometric in _GREY:
        light = 1
    elif photometric == PHOTOMETRIC.RGB or (photometric == PHOTOMETRIC.YCBCR and key.compression in DECODED_TO_RGB):
        light = 3
    else:
        name = getattr(photometric, "name", photometric)
        raise ImageError(f"colours of kind {name} have no defined grey value; convert it to RGB.")
    if samples == 1:
        return "grey", 1
    if light == 3 and samples == 4 and not apart and not alpha:
        return "colour", 3
    if samples == light + alpha and not apart:
        return ("grey" if light == 1 else "colour"), light
    if photometric == PHOTOMETRIC.PALETTE or (light == 3 and not apart):
        raise ImageError(f"it has {samples} channels that are not RGB; save the one of the nuclei as a separate file.")
    return "channels", samples - alpha


def _of_further(key: Any, kind: str) -> tuple[Assumption, ...]:
    """What is assumed of a fourth sample that is not said to be alpha."""
    extra = tuple(key.extrasamples)
    return (FURTHER,) if kind == "colour" and int(key.samplesperpixel) == 4 and extra[-1:] not in _ALPHAS else ()


def _photometric(key: Any) -> Any:
    """How a page says its samples are shown; where it does not say, 0 is black."""
    if "PhotometricInterpretation" not in key.tags and key.photometric == PHOTOMETRIC.MINISWHITE:
        return PHOTOMETRIC.MINISBLACK
    try:
        return PHOTOMETRIC(key.photometric)
    except ValueError:
        return key.photometric


def _white(key: Any) -> int | None:
    if _photometric(key) != PHOTOMETRIC.MINISWHITE or key.dtype.kind == "b":
        return None
    if key.dtype.kind != "u":
        raise ImageError(f"it says that 0 is white, which means nothing for pixels of type {key.dtype}; invert it.")
    return 2 ** int(key.bitspersample) - 1


def _palette(key: Any, measured: bool) -> NDArray[Any] | None:
    """The colours that pixels stand for; None where the pixels are intensities.

    Microscope software stores an intensity image with the look-up table it was displayed in. Such a table rises in each
    colour, or, where the software is known for it, in brightness; and the pixels themselves are what was measured.
    """
    table = key.colormap
    if table is None or table.ndim != 2 or table.shape[0] != 3 or key.dtype.kind not in "bu":
        raise ImageError("its pixels are numbers of a palette that is missing: the file is damaged.")
    if table.dtype.kind != "u":
        raise ImageError(f"its palette has values of type {table.dtype}: the file is damaged.")
    if table.shape[1] < 2 ** int(key.bitspersample):
        raise ImageError(f"its palette has {table.shape[1]} colours for {key.bitspersample} bits: the file is damaged.")
    steps = np.diff(table.astype(np.int64), axis=1)
    if is_ramp(table, int(key.bitspersample)) or (measured and (np.tensordot(_LUMINANCE, steps, 1) >= 0).all()):
        return None
    return table
