"""Further measures of the shape of nuclei, of all at once: hulls, form factor and invariants of moments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.hulls import hulls


def shape_columns(groups: Groups, perimeter: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """`solidity`, `feret_diameter_max` and `form_factor`: (n,) float64, with a value for each label of the groups.

    The first two are named and defined as in `skimage.measure.regionprops_table`; the hull has whole pixels, so that
    solidity is a ratio of counts. form_factor: 4 pi area / perimeter**2, as CellProfiler's FormFactor, NaN where the
    perimeter of a pixel is 0. perimeter: (n,), as `arrays.measure` has it. Labels without pixels are NaN.
    """
    hull, count = hulls(groups), np.where(groups.count > 0, groups.count, np.nan)
    with np.errstate(invalid="ignore"):
        return {
            "solidity": count / hull.area,
            "feret_diameter_max": np.where(groups.count > 0, hull.diameter, np.nan),
            "form_factor": 4 * np.pi * count / np.where(perimeter > 0, perimeter, np.nan) ** 2,
        }


def moments_hu(groups: Groups) -> dict[str, NDArray[np.float64]]:
    """`moments_hu-0` to `-6`, as `regionprops_table` has them: (n,) float64; labels without pixels are NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        invariants = _invariants(_normalized_moments(groups))
    return {f"moments_hu-{i}": value for i, value in enumerate(invariants)}


def _normalized_moments(groups: Groups) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Moments of the second and third order around each centroid, by powers of rows and of columns, free of scale.

    Those of a run have closed forms around its middle, where the odd ones are 0.
    """
    group, row, column, length = groups.runs()
    first = np.flatnonzero(np.diff(group, prepend=-1))
    area = groups.count.astype(np.float64)

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """One value for each label from one for each run."""
        found = np.full(groups.ids.size, np.nan)
        found[groups.present] = np.add.reduceat(values, first)
        return found

    def centred(places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Around the label's centroid; first around its first run, because far from the origin sums lose digits."""
        near = places - np.repeat(places[first], np.diff(first, append=group.size))
        return near - (summed(near * length) / area)[group]

    y, x = centred(row.astype(np.float64)), centred(column + (length - 1) / 2)
    width = length * (length * length - 1) / 12  # the second moment of a run around its middle
    sums = {
        (2, 0): length * y * y,
        (1, 1): length * y * x,
        (0, 2): length * x * x + width,
        (3, 0): length * y**3,
        (2, 1): length * y * y * x,
        (1, 2): y * (length * x * x + width),
        (0, 3): length * x**3 + 3 * x * width,
    }
    return {power: summed(values) / area ** (sum(power) / 2 + 1) for power, values in sums.items()}


def _invariants(nu: dict[tuple[int, int], NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Hu's seven invariants under translation, scale and rotation."""
    a, b = nu[3, 0] + nu[1, 2], nu[2, 1] + nu[0, 3]
    c, d = nu[3, 0] - 3 * nu[1, 2], 3 * nu[2, 1] - nu[0, 3]
    total, difference, mixed = nu[2, 0] + nu[0, 2], nu[2, 0] - nu[0, 2], 4 * nu[1, 1]
    p, q = a * (a * a - 3 * b * b), b * (3 * a * a - b * b)
    return [
        total,
        difference**2 + mixed * nu[1, 1],
        c * c + d * d,
        a * a + b * b,
        c * p + d * q,
        difference * (a * a - b * b) + mixed * a * b,
        d * p - c * q,
    ]
