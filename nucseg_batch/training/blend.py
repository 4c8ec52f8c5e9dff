"""Fine-tuning that remembers: weights between those of the start and those of the end of a training.

A few images of a new kind teach a network that kind and make it forget others. Weights on the straight line between
both ends keep most of the old and most of the new (Wortsman et al. 2022, WiSE-FT, arXiv:2109.01903), and need no image
of the old kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from numpy.typing import NDArray

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the way from the start to the end that are tried, the shortest first."""
ENOUGH = 0.9
"""Share of the best gain in validation score with which a shorter way is preferred."""


def blend(network: keras.Model, start: Sequence[NDArray[Any]], score: Callable[[], float]) -> tuple[float, list[float]]:
    """Moves a trained network's weights back towards `start` as far as that costs little of what was learned.

    start: the weights that training began with, in the order of `network.get_weights()`. score: the validation score
    of the network's present weights, higher is better. The network ends with the weights of the smallest of SHARES
    that reaches ENOUGH of the best gain over the start; with those of the first where nothing gains. Returns that share
    and the scores at the start and at each of SHARES.
    """
    end = network.get_weights()

    def scored(share: float) -> float:
        network.set_weights([(1 - share) * a + share * b for a, b in zip(start, end, strict=True)])
        return score()

    scores = [scored(share) for share in (0.0, *SHARES)]
    wanted = scores[0] + ENOUGH * (max(scores) - scores[0])
    chosen = next((share for share, one in zip(SHARES, scores[1:], strict=True) if one >= wanted), SHARES[0])
    network.set_weights([(1 - chosen) * a + chosen * b for a, b in zip(start, end, strict=True)])
    return chosen, scores
