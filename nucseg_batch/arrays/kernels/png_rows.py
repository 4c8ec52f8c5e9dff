"""The filters of PNG undone, for rows of grey pixels.

Each row is stored as differences from what a filter predicts (https://www.w3.org/TR/png-3, section 9). General decoders
are fast where a pixel has three or four bytes, which are computed at once; of one byte a pixel, each needs the one
before, and is kept in a register here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.compiled import compiled, inlined

_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)
"""The filters, as the first byte of a row names them."""


@inlined
def _paeth(left: Any, above: Any, corner: Any) -> Any:
    """Which of three neighbours is nearest to left + above - corner; the earlier one where two are."""
    low, high = min(left, above), max(left, above)
    limit = 3 * corner - left - above
    if limit <= low:
        return high
    return low if high <= limit else corner


@inlined
def _undo(kind: int, row: NDArray[np.uint8], above: NDArray[np.uint8], here: NDArray[np.uint8], step: int) -> None:
    """Undoes the filter of a row for every `step`th byte from the first of its arguments on."""
    left = corner = np.int32(0)
    if kind == _NONE:
        for x in range(0, row.size, step):
            here[x] = row[x]
    elif kind == _SUB:
        for x in range(0, row.size, step):
            left = (left + np.int32(row[x])) & 255
            here[x] = left
    elif kind == _UP:
        for x in range(0, row.size, step):
            here[x] = row[x] + above[x]
    elif kind == _AVERAGE:
        for x in range(0, row.size, step):
            left = (np.int32(row[x]) + ((left + np.int32(above[x])) >> 1)) & 255
            here[x] = left
    else:
        for x in range(0, row.size, step):
            up = np.int32(above[x])
            left = (np.int32(row[x]) + _paeth(left, up, corner)) & 255
            here[x] = left
            corner = up


@compiled
def unfiltered(stored: NDArray[np.uint8], step: int, out: NDArray[np.uint8]) -> bool:
    """Undoes the filters of an image; False where a row names a filter that there is not.

    stored: (height, 1 + bytes of a row), the filter of each row first. step: bytes of a pixel. out: (height, bytes of a
    row), which is filled.
    """
    above = np.zeros(out.shape[1], np.uint8)
    for y in range(out.shape[0]):
        kind = stored[y, 0]
        if kind > _PAETH:
            return False
        row, here = stored[y, 1:], out[y]
        if step == 1:  # which is compiled with the constant
            _undo(kind, row, above, here, 1)
        else:
            for first in range(step):
                _undo(kind, row[first:], above[first:], here[first:], step)
        above = here
    return True
