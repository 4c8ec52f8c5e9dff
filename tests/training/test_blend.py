"""Weights between the start and the end of a fine-tuning."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from nucseg_batch.training.blend import SHARES, blend


@pytest.fixture
def tuned() -> keras.Model:
    """A network whose weights, statistics of normalisation among them, are all 1 after training."""
    inputs = keras.Input((4, 4, 1))
    network = keras.Model(inputs, keras.layers.BatchNormalization()(keras.layers.Conv2D(3, 1)(inputs)))
    network.set_weights([np.ones_like(weight) for weight in network.get_weights()])
    return network


@pytest.mark.parametrize(
    ("score", "share"),
    [
        (lambda way: way, 1.0),  # each step gains as much: 90 % of it is reached at the end only
        (lambda way: min(way, 0.5), 0.5),  # all is learned half way
        (lambda way: 0.3 + min(way, 0.46), 0.5),  # 90 % of the gain is enough
        (lambda way: -abs(way - 0.25), 0.25),  # what comes later harms
        (lambda way: -way, 0.25),  # nothing is gained
        (lambda way: 0.4, 0.25),  # all are alike
        (lambda way: 0.1 if way == 0.5 else 0.2 if way == 1 else 0.0, 1.0),  # a way of ups and downs
    ],
)
def test_weights_stay_near_the_start_as_far_as_that_costs_little(
    tuned: keras.Model, score: Callable[[float], float], share: float
) -> None:
    start = [np.zeros_like(weight) for weight in tuned.get_weights()]
    ways: list[float] = []

    def scored() -> float:
        values = np.unique(np.concatenate([weight.ravel() for weight in tuned.get_weights()]))
        assert values.size == 1, "all weights are equally far on their way"
        ways.append(float(values[0]))
        return score(ways[-1])

    chosen, scores = blend(tuned, start, scored)
    assert chosen == share
    assert ways == [0.0, *SHARES]
    assert scores == [score(way) for way in ways]
    assert all((weight == np.float32(share)).all() for weight in tuned.get_weights())
