"""What a training leaves to look at: curves over its passes, and validation images beside truth and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from nucseg_batch.arrays.metrics import match, mean_average_precision, score
from nucseg_batch.training.data import Sample

EXAMPLES = 6
"""Validation images that are shown, from the best to the worst."""
SIDE = 512
"""Of larger images the middle is shown, so many pixels a side."""
TRUTH_COLOUR, FOUND_COLOUR = (0.2, 0.9, 0.3), (1.0, 0.3, 0.2)


@matplotlib.style.context("default", after_reset=True)
def save_curves(rows: list[dict[str, float]], path: Path) -> None:
    """Draws losses and validation scores over the passes; `rows` as in history.csv."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    panels = {
        losses: {"loss": "training", "val_loss": "validation"},
        scores: {"val_ap": "AP .50:.95", "val_ap50": "AP@.50", "val_foreground_iou": "foreground IoU"},
    }
    for panel, names in panels.items():
        for name, label in names.items():
            panel.plot(epochs, [row[name] for row in rows], label=label, marker="." if len(rows) < 30 else None)
        panel.set_xlabel("epoch")
        panel.grid(alpha=0.3)
        panel.legend()
    losses.set_ylabel("loss")
    losses.set_yscale("log")
    scores.set_ylabel("score on validation images")
    scores.set_ylim(0, 1)
    _save(figure, path)


@matplotlib.style.context("default", after_reset=True)
def save_examples(samples: list[Sample], predictions: list[NDArray[np.int32]], path: Path) -> None:
    """Draws validation images beside their annotation (green) and prediction (red), from the best to the worst."""
    scores = [
        mean_average_precision(score([match(s.scored(p), s.truth)])) for p, s in zip(predictions, samples, strict=True)
    ]
    order = np.argsort(scores)[::-1]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, EXAMPLES).round().astype(int))]
    figure = Figure(figsize=(10, 3.4 * len(chosen)), layout="constrained")
    panels = figure.subplots(len(chosen), 3, squeeze=False)
    for row, i in zip(panels, chosen, strict=True):
        sample, window = samples[i], _middle(samples[i].labels.shape)
        image = _shown(sample.image[window])
        truth = _outlined(image, sample.truth[window], TRUTH_COLOUR)
        found = _outlined(image, predictions[i][window], FOUND_COLOUR)
        titles = (_short(sample.key), f"annotation: {sample.truth.max()}", f"found: {predictions[i].max()}")
        titles = (*titles[:2], f"{titles[2]}, AP {scores[i]:.2f}")
        for panel, picture, title in zip(row, (image, truth, found), titles, strict=True):
            panel.imshow(picture, interpolation="nearest")
            panel.set_title(title, fontsize=9)
            panel.axis("off")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with mpl.rc_context({"savefig.dpi": 110}):
        figure.savefig(path)


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    starts = [max(0, (length - SIDE) // 2) for length in shape]
    return tuple(slice(start, start + SIDE) for start in starts)


def _shown(image: NDArray[Any]) -> NDArray[np.float32]:
    """A normalised image as colours from 0 to 1; grey ones brightened, so that dim nuclei can be seen."""
    image = np.clip(image, 0.0, 1.0)
    return np.repeat(np.sqrt(image)[..., None], 3, axis=2) if image.ndim == 2 else image


def _outlined(image: NDArray[np.float32], labels: NDArray[np.int32], colour: tuple[float, float, float]) -> Any:
    picture = image.copy()
    picture[find_boundaries(labels, mode="inner")] = colour
    return picture


def _short(key: str) -> str:
    return key if len(key) <= 32 else f"...{key[-29:]}"
