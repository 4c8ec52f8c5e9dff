"""Phases of the cell cycle from the DNA content of nuclei, as flow cytometry estimates them from a histogram.

The DNA content of a nucleus is its summed intensity above background, area x (intensity_mean - intensity_background).
Its logarithm to base 2 is modelled as a mixture: G1, a normal distribution; G2 and M, another of the same width at
twice the content, which is 1 further; S, uniform in content from one to the other and blurred as these are; and a
uniform rest of debris, overlaps and polyploid nuclei. EM fits place and width of the peaks and the four fractions;
place and width are computed from G1 and G2 alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtr

from nucseg_batch.results.report.distribution import Distribution

FEWEST = 500
"""Nuclei from which on a histogram is shown."""
FEWEST_OF_IMAGE = 40
"""Nuclei of an image from which on its most frequent content is looked for."""
BINS = 64
"""Bins of histograms per doubling of the content."""
BLUR = 0.1
"""Standard deviation in doublings with which the histogram of an image is smoothed."""
WIDTHS = (0.02, 0.35)
"""Least and largest standard deviation of the logarithm to base 2."""
STARTS, STEPS = 8, 300
"""Places of the G1 peak at which EM begins, and its steps."""
SMALLEST = 0.05
"""Fraction of G1 below which the peak that was taken for G2 can as well be that of G1."""
DEEP, SURE = 0.8, 4.0
"""Depth of the valley between the peaks, as a share of the lower one, and the difference in standard errors."""
LN2 = math.log(2)


@dataclass(frozen=True)
class CellCycle:
    """Phases of the nuclei of a run."""

    g1: float
    """DNA content at the G1 peak, in grey values x pixels; that of G2 is at twice this content."""
    variation: float
    """Coefficient of variation of the peaks: standard deviation / mean of the content."""
    phases: tuple[float, float, float]
    """Fractions of G1, S and G2/M, of the nuclei in these three."""
    rest: float
    """Fraction of all nuclei that are in none of them."""


def is_stained(values: Distribution) -> bool:
    """Whether the contents can be those of a fluorescent stain: of enough nuclei, nearly all above background."""
    return values.count >= FEWEST and values.quantile(0.05) > 0


def aligned(contents: NDArray[np.float64]) -> NDArray[np.float64]:
    """The positive contents of the nuclei of one image, (n,), divided by the most frequent one, which mostly is of G1.

    Images of other exposures and backgrounds can then be compared. Empty for too few nuclei.
    """
    some = contents[contents > 0]
    if len(some) < FEWEST_OF_IMAGE:
        return some[:0]
    places = np.log2(some)
    bins = np.floor((places - places.min()) * BINS).astype(int)
    smooth = gaussian_filter1d(np.bincount(bins).astype(float), BLUR * BINS, mode="constant")
    relative: NDArray[np.float64] = some / 2 ** (places.min() + (smooth.argmax() + 0.5) / BINS)
    return relative


def cell_cycle(values: Distribution) -> CellCycle | None:
    """Estimates phases from DNA contents; None where their histogram does not have two peaks at 1:2.

    values: summed intensities above background of single nuclei, for which `is_stained` holds.
    """
    low = math.log2(max(values.quantile(0.005), values.median / 32)) - 0.25
    high = math.log2(min(values.quantile(0.995), values.median * 32)) + 0.25
    edges = np.linspace(low, high, math.ceil((high - low) * BINS) + 1)
    x, counts = (edges[1:] + edges[:-1]) / 2, values.histogram(2**edges).astype(float)
    begins = [math.log2(values.quantile(share)) for share in np.linspace(0.02, 0.95, STARTS)]
    fits = [_fit(x, counts, place, high - low) for place in begins]
    fits = [fit for fit in fits if fit.fractions[0] >= SMALLEST and _has_two_peaks(x, counts, fit)]
    if not fits:
        return None
    best = max(fits, key=lambda fit: fit.likelihood)
    g1, s, g2, rest = best.fractions.tolist()
    whole = g1 + s + g2
    variation = math.sqrt(math.expm1((best.width * LN2) ** 2))
    return CellCycle(2.0**best.place, variation, (g1 / whole, s / whole, g2 / whole), rest)


@dataclass(frozen=True)
class _Fit:
    place: float
    width: float
    fractions: NDArray[np.float64]
    likelihood: float


def _fit(x: NDArray[np.float64], counts: NDArray[np.float64], place: float, span: float) -> _Fit:
    """EM from a place of the G1 peak. x and counts: (bins,)."""
    width, fractions, total = 0.12, np.array([0.5, 0.2, 0.2, 0.1]), counts.sum()
    likelihood = -math.inf
    for _ in range(STEPS):
        joint = fractions[:, None] * _densities(x, place, width, span)
        density = joint.sum(axis=0)
        before, likelihood = likelihood, float(counts @ np.log(density))
        if abs(likelihood - before) < 1e-6 * total:
            break
        shares = counts * joint / density
        fractions = shares.sum(axis=1) / total
        peaks, offsets = shares[[0, 2]], np.array([[0.0], [1.0]])
        weight = max(float(peaks.sum()), 1e-9)
        place = float((peaks * (x - offsets)).sum()) / weight
        width = float(np.clip(math.sqrt((peaks * (x - offsets - place) ** 2).sum() / weight), *WIDTHS))
    return _Fit(place, width, fractions, likelihood)


def _densities(x: NDArray[np.float64], place: float, width: float, span: float) -> NDArray[np.float64]:
    """Densities of G1, S, G2 and the rest at x, (4, bins).

    Uniform in content is 2^u ln 2 in its logarithm u, from 0 to 1; blurring it multiplies it and moves its ends.
    """
    u, shift = x - place, LN2 * width**2
    blurred = LN2 * np.exp(LN2 * u + (LN2 * width) ** 2 / 2)
    s = blurred * (ndtr((u + shift) / width) - ndtr((u + shift - 1) / width))
    scale = 1 / (width * math.sqrt(2 * math.pi))
    g1, g2 = (scale * np.exp(-(((u - offset) / width) ** 2) / 2) for offset in (0, 1))
    return np.stack([g1, s, g2, np.full(len(x), 1 / span)])


def _has_two_peaks(x: NDArray[np.float64], counts: NDArray[np.float64], fit: _Fit) -> bool:
    """Whether there are fewer nuclei between the peaks of a fit than at either, by more than chance."""
    below = np.concatenate([[0.0], np.cumsum(counts)])

    def around(place: float) -> float:
        first, last = np.searchsorted(x, [place - fit.width / 2, place + fit.width / 2])
        return float(below[last] - below[first])

    valley = min(around(fit.place + part) for part in np.linspace(0.2, 0.8, 25))
    lower = min(around(fit.place), around(fit.place + 1))
    return valley < DEEP * lower and lower - valley > SURE * math.sqrt(lower + valley)
