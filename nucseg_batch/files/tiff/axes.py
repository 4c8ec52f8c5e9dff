"""Which axis of a TIFF is which, where the file does not say it: what the user says, what is assumed, what is refused.

Most files say their axes. Of those that do not, a series of pages is taken for z-slices, unless it is as short as
channels are, or its pages have the shape of channels that were stored in the last axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nucseg_batch.errors import ImageError
from nucseg_batch.plan import Assumption

UNKNOWN = "IQ"
"""Letters of tifffile for axes of which nothing is said."""
NO_AXIS = "-"
"""Letter of an axis of length 1 that is none of ours."""
FEW = range(2, 6)
"""Lengths of an unknown axis that may well be channels."""
NARROW, LONG = 16, 32
"""Planes with one side of at most NARROW and the other of at least LONG pixels, LONG of them or more, are no planes.
Neither are as many planes as one of their sides has pixels, where the other side is at most half of it."""


class UnknownAxesError(ImageError):
    """The axes of a file are not known."""

    def __init__(self, problem: str, remedy: str) -> None:
        """remedy: what to do where axes can be given."""
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem


@dataclass(frozen=True)
class ChosenAxes:
    """The axes of a TIFF."""

    letters: str
    """A letter of T, Z, C, Y, X and S for each axis of the file's array; `-`, or any other, for one of length 1."""
    assumptions: tuple[Assumption, ...] = ()
    """What was assumed."""
    unused: bool = False
    """Whether axes were given, and the file says others."""


def choose_axes(stated: str, shape: Sequence[int], given: str | None, *, bilevel: bool, claimed: bool) -> ChosenAxes:
    """The axes of an array of this shape; raises ImageError where they are not known, or those given do not fit.

    stated: a letter for each axis as tifffile reads the file, I or Q where the file does not say it. given: by the
    user. bilevel: whether pixels have one bit. claimed: whether the axes come from a description of the file.
    """
    unknown = [place for place, axis in enumerate(stated) if axis in UNKNOWN and shape[place] > 1]
    foreign = any(axis not in "TZCYXS" and length > 1 for axis, length in zip(stated, shape, strict=True))
    narrow = is_narrow(stated, shape)
    if given is not None and (foreign or narrow):
        return ChosenAxes(_fitted(given, shape))
    unused = given is not None and _squeezed(given, shape) != _squeezed(stated, shape)
    if not unknown:
        return ChosenAxes(stated, (narrow_claim(stated, shape),) if narrow and claimed else (), unused)
    if len(unknown) > 1 or "Z" in stated:
        raise UnknownAxesError(
            f"nothing says what its axes {_long(stated, shape)} of shape {_text(shape)} are, besides rows and columns",
            f"say it with --axes, such as --axes {_example(stated, shape)}.",
        )
    if narrow:
        raise UnknownAxesError(
            f"nothing says which axes its shape {_text(shape)} has, and planes of {_sides(stated, shape)} pixels are "
            "not plausible",
            f"say it with --axes: {_last(stated, shape)} for channels, else {_as_z(stated)}.",
        )
    length = shape[unknown[0]]
    if length in FEW and not bilevel and "S" not in stated and "C" not in stated:
        raise UnknownAxesError(
            f"nothing says whether the {length} pages of its shape {_text(shape)} are channels or z-slices",
            f"say it with --axes {stated.replace(stated[unknown[0]], 'C')} or --axes {_as_z(stated)}.",
        )
    assumed = Assumption(
        kind="axes",
        what=f"its {length} pages are z-slices",
        evidence="the file does not name this axis",
        option=f"--axes, such as --axes {stated.replace(stated[unknown[0]], 'T')}",
    )
    return ChosenAxes(_as_z(stated), (assumed,), unused)


def is_narrow(letters: str, shape: Sequence[int]) -> bool:
    """Whether planes are so narrow and so many that an axis of channels was most likely taken for rows or columns."""
    height, width = (_length(axis, letters, shape) for axis in "YX")
    count = math.prod(shape) // max(1, height * width * _length("S", letters, shape))
    short, long = min(height, width), max(height, width)
    return long >= LONG and count >= LONG and (short <= NARROW or (count == long and 2 * short <= long))


def narrow_claim(letters: str, shape: Sequence[int]) -> Assumption:
    """That planes are as narrow as the file's description says."""
    return Assumption(
        kind="axes",
        what=f"its planes have {_sides(letters, shape)} pixels",
        evidence=f"its description names the axes {letters} of its shape {_text(shape)}",
        option=f"--axes, such as --axes {_last(letters, shape)}",
        doubtful=True,
    )


def _fitted(given: str, shape: Sequence[int]) -> str:
    """A letter for each axis from those that the user gave, who may leave out axes of length 1."""
    given = given.upper()
    longer = [place for place, length in enumerate(shape) if length > 1]
    if len(given) == len(shape):
        letters = given
    elif len(given) == len(longer):
        letters = "".join(given[longer.index(i)] if i in longer else NO_AXIS for i in range(len(shape)))
    else:
        raise ImageError(f"--axes {given} names {len(given)} axes, but it has {len(shape)}, of shape {_text(shape)}.")
    if _length("S", letters, shape) not in (1, 3, 4):
        raise ImageError(
            f"--axes {given}: axis S of its shape {_text(shape)} has {_length('S', letters, shape)} samples; a colour "
            "has 3, or 4 with alpha."
        )
    if "S" in letters and _length("C", letters, shape) > 1:
        raise ImageError(f"--axes {given}: an image has either channels C or colours S.")
    return letters


def _squeezed(letters: str, shape: Sequence[int]) -> str:
    letters = letters.upper()
    if len(letters) != len(shape):
        return letters
    return _long(letters, shape)


def _long(letters: str, shape: Sequence[int]) -> str:
    return "".join(axis for axis, length in zip(letters, shape, strict=True) if length > 1)


def _length(axis: str, letters: str, shape: Sequence[int]) -> int:
    return shape[letters.index(axis)] if axis in letters else 1


def _sides(letters: str, shape: Sequence[int]) -> str:
    return f"{_length('Y', letters, shape)} x {_length('X', letters, shape)}"


def _as_z(letters: str) -> str:
    return "".join("Z" if axis in UNKNOWN else axis for axis in letters)


def _last(letters: str, shape: Sequence[int]) -> str:
    """The axes if the short side of a plane holds channels."""
    channels_last = _length("X", letters, shape) <= _length("Y", letters, shape)
    rest = "".join(axis for axis in letters if axis not in "YX")
    return (rest[:-1] if rest else "") + ("YXC" if channels_last else "YCX")


def _example(letters: str, shape: Sequence[int]) -> str:
    """Axes for an array with several unknown ones."""
    named = iter([axis for axis in "TZC"[-sum(axis in UNKNOWN for axis in letters) :] if axis not in letters])
    return "".join(next(named, axis) if axis in UNKNOWN else axis for axis in letters)


def _text(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"
