"""The text of numbers, beside what Python writes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.table_text import EMPTY, LONGEST, REAL, WHOLE, table_text

COUNT = 40_000


def written(values: list[NDArray[np.float64]], kinds: list[int], start: bytes = b"a,,") -> str | None:
    """Rows of these columns, whose labels count from 1; None where Python must write them."""
    labels = np.arange(1, values[0].size + 1)
    out = np.empty(labels.size * (len(start) + 1 + LONGEST * (1 + len(kinds))), np.uint8)
    length = table_text(np.frombuffer(start, np.uint8), labels, np.array(values), np.array(kinds), out)
    return None if length < 0 else out[:length].tobytes().decode()


def halves(random: np.random.Generator) -> NDArray[np.float64]:
    """Numbers whose eighth digit is a five and the last one, where that is exact, and others close to such."""
    return (random.integers(0, 10**7, COUNT) + 0.5) * 10.0 ** random.integers(-9, 9, COUNT)


def fractions_of_two(random: np.random.Generator) -> NDArray[np.float64]:
    """Numbers of few binary digits, among which are exact halves of a last digit."""
    return random.integers(-(10**9), 10**9, COUNT) / 2.0 ** random.integers(0, 30, COUNT)


def beside_powers_of_ten(random: np.random.Generator) -> NDArray[np.float64]:
    """Powers of ten and the numbers beside them, where the number of digits changes."""
    powers = 10.0 ** random.integers(-15, 22, COUNT)
    return np.nextafter(powers, powers * random.choice([0.5, 1.0, 2.0], COUNT))


def of_all_sizes(random: np.random.Generator) -> NDArray[np.float64]:
    """Numbers of many digits."""
    return random.uniform(-1, 1, COUNT).round(6) * random.random(COUNT) * 10.0 ** random.integers(-6, 22, COUNT)


@pytest.mark.parametrize("numbers", [halves, fractions_of_two, beside_powers_of_ten, of_all_sizes])
def test_seven_digits_are_those_of_python(numbers: object) -> None:
    """Also where the rest is half of the last digit, and near it: one byte more or less would be another table."""
    assert callable(numbers)
    values = numbers(np.random.default_rng(11))
    values = values[(values == 0) | (abs(values) > 1e-15)]
    expected = "".join(f"a,,,{i},{value:.7g}\n" for i, value in enumerate(values.tolist(), 1))
    assert written([values], [REAL], b"a,,") == expected


def test_columns_of_all_kinds_stand_side_by_side() -> None:
    """Whole numbers in full, nothing for what is not known, zeros with their sign."""
    whole = np.array([0.0, -7.0, 2.0**53 - 1])
    real = np.array([math.nan, -0.0, 1e-5])
    assert written([whole, real, real, whole], [WHOLE, EMPTY, REAL, WHOLE], "ü,1,2".encode()) == (
        "ü,1,2,1,0,,,0\nü,1,2,2,-7,,-0,-7\nü,1,2,3,9007199254740991,,1e-05,9007199254740991\n"
    )
    assert written([np.zeros(0)], [WHOLE]) == ""


def test_the_longest_cells_have_room() -> None:
    """Of every kind in every column, or a row would be written over what follows it."""
    whole, real = np.full(31, -(2.0**53) + 1), np.full(31, -1.234567e-10)
    text = written([whole, real, whole], [WHOLE, REAL, WHOLE])
    assert text is not None
    assert text.splitlines()[-1] == "a,,,31,-9007199254740991,-1.234567e-10,-9007199254740991"


@pytest.mark.parametrize("far", [math.inf, -math.inf, 1e-17, 1e30, 5e-324, 1.7e308])
def test_what_is_out_of_reach_is_left_to_python(far: float) -> None:
    """Before a wrong digit is written; none of a plane's numbers is as far from 1."""
    assert written([np.array([1.0, far])], [REAL]) is None
    assert written([np.array([1.0, 2.0**53])], [WHOLE]) is None
