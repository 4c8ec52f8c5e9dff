"""How far a nucleus can be trusted, from what the network says of it anyway.

Two things show that a nucleus may be wrong: the network is not sure that its pixels are foreground, and the pixels do
not agree where its centre is, as in a clump that was not divided. A pixel's support for its nucleus is the product of
both: its probability, and how close to the nucleus' root it votes. It costs no pass of its own, because votes and roots
are there when nuclei are separated. The confidence of a nucleus is the mean support of its pixels, that of an image the
mean over its nuclei.

Chosen on the validation images among some twenty such measures; what it is worth is said in docs/confidence.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 8
"""Pixels at the network's scale: a vote so far from the root supports nothing."""
FULL = 255
"""Support of a pixel that is certain and votes for the root itself. The least is 1: 0 stands for no vote."""


def closeness(squared_distance: Any) -> Any:
    """0 to REACH**2: how close to its root a vote is; for arrays and tensors of whole numbers."""
    return _at_least(REACH**2 - squared_distance, 0)


def supported(weight: Any, close: Any) -> Any:
    """1 to FULL: the support of pixels with so much probability, in parts of FULL, whose votes are so close."""
    return _at_least(weight * close // REACH**2, 1)


def _at_least(value: Any, least: int) -> Any:
    """The larger of whole numbers and a bound, in what arrays and tensors of every backend can do."""
    return (value + least + abs(value - least)) // 2


def nuclei_confidence(
    labels: NDArray[np.integer], support: NDArray[np.uint8], ids: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Mean support of each nucleus, 0 to 1, (n,).

    labels: (height, width); support: of the same shape, 0 for pixels that did not vote, as rescaling adds some along
    the edge, which do not count. ids: (n,), the labels that are asked for. A nucleus none of whose pixels voted has 0.
    """
    if not ids.size:
        return np.zeros(0)
    inside = np.flatnonzero(labels.ravel() > 0)
    label, value = labels.ravel()[inside].astype(np.intp), support.ravel()[inside]
    length = int(ids.max()) + 1
    total = np.bincount(label, value, length)
    count = np.bincount(label, value > 0, length)
    return mean_support(total[ids], count[ids])


def mean_support(total: NDArray[Any], count: NDArray[Any]) -> NDArray[np.float64]:
    """0 to 1 for each nucleus, from the sum of its pixels' support and how many of them voted."""
    return np.asarray(total / (FULL * np.maximum(count, 1)), np.float64)
