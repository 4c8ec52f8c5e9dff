"""Arrays as kernels take them: few types, so that each kernel is compiled a few times at most.

All are C-contiguous, of the machine's byte order, and read-only: to Numba, arrays that can be written are another type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_labels(labels: NDArray[np.integer]) -> NDArray[Any]:
    """Labels as uint16 if they are, else as int32 or, where the type can hold higher ones that occur, as int64."""
    if labels.dtype == np.uint16:
        return read_only(labels, np.uint16)
    if labels.dtype.itemsize < 4:
        return read_only(labels, np.int32)
    if labels.dtype == np.uint32 and labels.max(initial=0) < 2**31:
        return read_only(labels.view(np.int32), np.int32)
    return read_only(labels, np.int32 if labels.dtype == np.int32 else np.int64)


def as_pixels(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels of any real type as uint8, uint16, float32 or float64."""
    kind = pixels.dtype.type
    return read_only(pixels, kind if kind in (np.uint8, np.uint16, np.float32) else np.float64)


def is_whole(pixels: NDArray[Any]) -> bool:
    """Whether pixels are whole numbers of 8 or 16 bits without a sign, whose sums are exact."""
    return pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2


def read_only(array: NDArray[Any], kind: Any) -> NDArray[Any]:
    """An array of a dtype, contiguous; the same memory where it was so already."""
    view: NDArray[Any] = np.ascontiguousarray(array, kind).view()
    view.flags.writeable = False
    return view
