"""Values of options that a Python program gives, checked and brought to the types of the settings."""

from __future__ import annotations

import dataclasses
import os
import reprlib
from functools import cache
from numbers import Integral, Real
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import SettingError, UsageError
from nucseg_batch.settings import ESTIMATE, LISTED_OPTIONS, SegmentSettings

NUMBERS_TOO = frozenset({"channel", "t", "z", "ring", "expand", "memory"})
"""Options that are text, and for which a number may be given."""
LISTS_TOO = LISTED_OPTIONS | {"expand"}
"""Options that are text with commas, and for which a list or a tuple may be given."""
FILES = frozenset({"flatfield"})
"""Options that are text, and for which a path may be given."""
EXPECTED = {float: "a number", int: "a whole number", bool: "True or False", str: "text"}
"""What a value must be, by the type of its setting."""
OF_FILES = f"the path of an image file, or {ESTIMATE!r}"
"""What a value of FILES must be."""


def setting_value(name: str, value: Any) -> Any:
    """The value of a field of `SegmentSettings` in its own type; raises SettingError for a value of another type.

    Numbers may be those of numpy. For text, what the constants of this module name may be given instead.
    """
    kind = _kinds()[name]
    if value is None and kind.optional:
        return None
    if kind.type is str:
        return _text(name, value)
    number = isinstance(value, Real) and not isinstance(value, bool)
    if kind.type is float and number:
        return float(value)
    if kind.type is int and number and (isinstance(value, Integral) or float(value).is_integer()):
        return int(value)
    if kind.type is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    raise _wrong(name, value, EXPECTED[kind.type])


@dataclasses.dataclass(frozen=True)
class _Kind:
    """The type of a setting."""

    type: type
    """One of EXPECTED."""
    optional: bool
    """Whether it can be None."""


@cache
def _kinds() -> dict[str, _Kind]:
    """The types of all settings, by name; a Literal is text."""
    kinds = {}
    for name, hint in get_type_hints(SegmentSettings).items():
        members = getattr(hint, "__args__", ()) if type(None) in getattr(hint, "__args__", ()) else (hint,)
        given = next(one for one in members if one is not type(None))
        kinds[name] = _Kind(given if given in EXPECTED else str, type(None) in members)
    return kinds


def _text(name: str, value: Any) -> str:
    """A value as the text that the command takes."""
    if isinstance(value, str):
        return str(value)
    if name in LISTS_TOO and isinstance(value, list | tuple) and all(map(_is_word, value)):
        return ",".join(map(str, value))
    if name in NUMBERS_TOO and _is_word(value):
        return str(value)
    if name in FILES and isinstance(value, os.PathLike):
        return os.fspath(value)
    others = ", a number" * (name in NUMBERS_TOO) + ", or several of these in a list" * (name in LISTS_TOO)
    raise _wrong(name, value, OF_FILES if name in FILES else f"text{others}")


def _is_word(value: Any) -> bool:
    """Whether a value can stand between commas: text or a number."""
    return isinstance(value, str | Real) and not isinstance(value, bool)


def _wrong(name: str, value: Any, expected: str) -> SettingError:
    shape = getattr(value, "shape", None)
    shown = f"an array of shape {shape}" if shape else reprlib.repr(value)
    save = "; save the array to a file first" if shape and name in FILES else ""
    return SettingError(name, f"must be {expected}, but is {shown}{save}.")


def checked_image(image: NDArray[Any]) -> NDArray[Any]:
    """An image in a dtype that the network takes: uint8, uint16 or float32; UsageError for what is no image."""
    image = np.asarray(image)
    colour = image.ndim == 3 and image.shape[2] == 3
    if not (image.ndim == 2 or colour) or 0 in image.shape:
        raise UsageError(f"image must be (height, width) or (height, width, 3), but is {image.shape}.")
    if image.dtype.kind not in "uifb":
        raise UsageError(f"image must have an integer or float dtype, but has {image.dtype}.")
    if image.dtype in (np.uint8, np.uint16):
        return image
    real = image.astype(np.float32)
    if not np.isfinite(real).all():
        raise UsageError("image contains NaN or infinity; replace them first, as with numpy.nan_to_num.")
    return real


def checked_diameter(diameter: float) -> float:
    """A width of nuclei in pixels; UsageError for one that cannot be."""
    if not 0.01 <= diameter <= 10_000:
        raise UsageError(f"diameter must be between 0.01 and 10000 pixels, but is {diameter}.")
    return diameter
