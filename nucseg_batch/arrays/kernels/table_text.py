"""Numbers as the text of a table, the same to the last byte as Python's `%d` and `%.7g`.

The seven digits of a number are those of its product with a power of ten. That product is rounded, and what is lost in
rounding is computed as well (T. J. Dekker, "A floating-point technique for extending the available precision", 1971,
https://doi.org/10.1007/BF01397083), so that the digits are right even where the rest is half of the last one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.compiled import compiled, inlined

EMPTY, WHOLE, REAL = range(3)
"""What the cells of a column are: nothing, whole numbers, other numbers."""
LONGEST = 20
"""Bytes of a cell and of the comma before it, at most."""
_DIGITS = 7
_LEAST, _MOST = 10 ** (_DIGITS - 1), 10**_DIGITS
_FURTHEST = 22
"""Powers of ten up to this one are exact in float64."""
_POWERS = 10.0 ** np.arange(_FURTHEST + 1)
_EXACT = 2.0**53
"""Whole numbers below this are exact in float64."""
_SPLIT = 2.0**27 + 1
_ZERO, _COMMA, _DOT, _MINUS, _PLUS, _E, _NEWLINE = (ord(one) for one in "0,.-+e\n")


@compiled
def table_text(
    start: NDArray[np.uint8],
    labels: NDArray[np.int64],
    values: NDArray[np.float64],
    kinds: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> int:
    """Writes a row a nucleus: `start`, the label and the cells, with commas between them and a newline at the end.

    start: bytes that all rows begin with. labels: (n,). values: (columns, n); NaN is an empty cell. kinds: (columns,),
    EMPTY, WHOLE or REAL. out: n times as many bytes as `start`, a newline and LONGEST for the label and each column
    take. Returns how many were written; -1 where a number is infinite, or so large or small that Python must write it.
    """
    at = 0
    for row in range(labels.size):
        for one in start:
            out[at] = one
            at += 1
        out[at] = _COMMA
        at = _whole(labels[row], out, at + 1)
        for column in range(kinds.size):
            out[at] = _COMMA
            at += 1
            value = values[column, row]
            if kinds[column] == EMPTY or value != value:
                continue
            if kinds[column] == WHOLE:
                if abs(value) >= _EXACT:
                    return -1
                at = _whole(np.int64(value), out, at)
            else:
                at = _real(value, out, at)
                if at < 0:
                    return -1
        out[at] = _NEWLINE
        at += 1
    return at


@inlined
def _whole(value: np.int64, out: NDArray[np.uint8], at: int) -> int:
    """Writes a whole number; returns where it ends."""
    if value < 0:
        out[at] = _MINUS
        at, value = at + 1, -value
    end, rest = at + 1, value // 10
    while rest > 0:
        end, rest = end + 1, rest // 10
    for place in range(end - 1, at - 1, -1):
        out[place] = _ZERO + value % 10
        value //= 10
    return end


@inlined
def _rest_of_product(a: float, b: float, product: float) -> float:
    """What a * b exceeds its rounded product by, exactly."""
    high_a, high_b = a * _SPLIT, b * _SPLIT
    high_a, high_b = high_a - (high_a - a), high_b - (high_b - b)
    low_a, low_b = a - high_a, b - high_b
    return ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b


@inlined
def _seven_digits(value: float) -> tuple[int, int]:
    """Seven digits of a positive number, as a whole number, and the exponent of the first; 0 digits if out of reach."""
    exponent = math.floor(math.log10(value))
    for _ in range(2):  # the logarithm may be rounded to that of a power of ten
        shift = _DIGITS - 1 - exponent
        if abs(shift) > _FURTHEST:
            return 0, 0
        if shift >= 0:
            scaled = value * _POWERS[shift]
            rest = _rest_of_product(value, _POWERS[shift], scaled)
        else:
            scaled = value / _POWERS[-shift]
            back = scaled * _POWERS[-shift]
            rest = (value - back) - _rest_of_product(scaled, _POWERS[-shift], back)
        if scaled > _MOST:
            exponent += 1
        elif scaled < _LEAST:
            exponent -= 1
        else:
            break
    if not _LEAST <= scaled <= _MOST:
        return 0, 0
    digits = int(scaled)
    over = scaled - digits
    if over > 0.5 or (over == 0.5 and (rest > 0 or (rest == 0 and digits % 2 == 1))):
        digits += 1
    if digits == _MOST:
        return _LEAST, exponent + 1
    return digits, exponent


@inlined
def _real(value: float, out: NDArray[np.uint8], at: int) -> int:
    """Writes a number that is not NaN with seven significant digits; returns where it ends, or -1."""
    if math.copysign(1.0, value) < 0:
        out[at] = _MINUS
        at, value = at + 1, -value
    if value == 0:
        out[at] = _ZERO
        return at + 1
    if value == np.inf:
        return -1
    digits, exponent = _seven_digits(value)
    if digits == 0:
        return -1
    count = _DIGITS
    while digits % 10 == 0:
        digits, count = digits // 10, count - 1
    if exponent < -4 or exponent >= _DIGITS:
        at = _with_dot(digits, count, 1, out, at)
        out[at], out[at + 1] = _E, _MINUS if exponent < 0 else _PLUS
        size = abs(exponent)
        out[at + 2], out[at + 3] = _ZERO + size // 10, _ZERO + size % 10
        return at + 4
    if exponent >= 0:
        return _with_dot(digits, count, exponent + 1, out, at)
    out[at], out[at + 1] = _ZERO, _DOT
    for place in range(at + 2, at + 1 - exponent):
        out[place] = _ZERO
    return _with_dot(digits, count, count, out, at + 1 - exponent)


@inlined
def _with_dot(digits: int, count: int, whole: int, out: NDArray[np.uint8], at: int) -> int:
    """Writes `count` digits, the first `whole` of them before a dot, which only stands where digits follow it."""
    for _ in range(count, whole):
        digits *= 10
    count = max(count, whole)
    end = at + count + (1 if count > whole else 0)
    place = end - 1
    for i in range(count):
        if i == count - whole and i > 0:
            out[place] = _DOT
            place -= 1
        out[place] = _ZERO + digits % 10
        digits //= 10
        place -= 1
    return end
