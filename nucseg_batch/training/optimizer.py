"""The optimizer of every training: AdamW with averaged weights, warm-up and cosine decay."""

from __future__ import annotations

from typing import Any

import keras

WARM_UP = 0.04
"""Share of the steps over which the learning rate rises."""
EMA_SHARE = 15
"""The average of the weights covers at most a fifteenth of the steps, so that it forgets the random start."""


def averaging_adamw(
    steps: int, learning_rate: float, precision: str, *, momentum: float, weight_decay: float
) -> keras.optimizers.Optimizer:
    """AdamW whose rate rises to `learning_rate` and decays over all steps; a constant rate for a single step.

    precision: the dtype policy of the network. In float16 the loss is scaled, so that small gradients are not lost.
    momentum: of the average of the weights, unless there are so few steps that EMA_SHARE asks for less.
    """
    warm_up = max(1, round(WARM_UP * steps))
    rate: Any = learning_rate
    if steps > warm_up:
        rate = keras.optimizers.schedules.CosineDecay(
            learning_rate / 20, steps - warm_up, alpha=0.01, warmup_target=learning_rate, warmup_steps=warm_up
        )
    adam = keras.optimizers.AdamW(
        rate,
        weight_decay=weight_decay,
        global_clipnorm=1.0,
        use_ema=True,
        ema_momentum=max(0.0, min(momentum, 1 - EMA_SHARE / steps)),
    )
    return keras.optimizers.LossScaleOptimizer(adam) if precision == "mixed_float16" else adam
