"""Nuclei of one view pasted into another, so that more of them touch than annotators happened to draw.

After copy-paste augmentation (Ghiasi et al. 2021, arXiv:2012.07177), with light that adds up as a microscope's does:
the brighter of the two shows where nuclei are bright, the darker where they are dark.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.views import blurred
from nucseg_batch.training.warp import CropView

MOST_HIDDEN = 0.25
"""Nuclei of which more would lie on top of others are not pasted."""
LONERS = 0.3
"""Share of the nuclei that would touch no other which are pasted all the same."""


def pasted(view: CropView, other: CropView, rng: np.random.Generator) -> CropView:
    """The view with nuclei of another of the same size, modality and magnification.

    Where a pasted nucleus overlaps another, the pixel belongs to the one that shows. Pixels that are not annotated stay
    as they are. Centres and areas remain those of the whole nuclei.
    """
    chosen = _chosen(view.labels, other.labels, rng)
    if not chosen.any():
        return view
    new = (chosen[np.maximum(other.labels, 0)]) & (view.labels >= 0)
    sign = _contrast(other)
    soft = blurred(_grown(_grown(new)), 1.0)[..., None]
    ground = np.percentile(sign * other.image, 5, axis=(0, 1))
    over = ground + (sign * other.image - ground) * soft
    under = sign * view.image
    shows = new & ((view.labels == 0) | (over > under).mean(axis=2).round().astype(bool))
    labels = np.where(shows, other.labels + np.int32(len(view.areas) - 1), view.labels)
    return CropView(
        sign * np.maximum(over, under),
        labels,
        np.where(shows, np.float32(1), view.cover),
        np.concatenate([view.centres, other.centres[1:]]),
        np.concatenate([view.areas, other.areas[1:]]),
    )


def _chosen(labels: NDArray[np.int32], other: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.bool_]:
    """For each label of `other`, 0 included, whether it is pasted."""
    ids = np.maximum(other, 0).ravel()
    length = int(ids.max()) + 1
    taken, near = labels > 0, _grown(_grown(labels > 0))
    area = np.bincount(ids, minlength=length)
    hidden = np.bincount(ids, taken.ravel(), length)
    touching = np.bincount(ids, near.ravel(), length) > 0
    chosen: NDArray[Any] = (area > 0) & (hidden <= MOST_HIDDEN * area) & (touching | (rng.random(length) < LONERS))
    edge = _grown(np.pad(other < 0, 1, constant_values=True))[1:-1, 1:-1]
    chosen[np.unique(ids.reshape(other.shape)[edge])] = False  # cut ones would show a straight edge
    chosen[0] = False
    return chosen


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the four neighbours of its pixels."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _contrast(view: CropView) -> np.float32:
    """1 where nuclei are brighter than what is around them, -1 where they are darker."""
    inside = view.labels > 0
    if not inside.any() or inside.all():
        return np.float32(1.0)
    return np.float32(1.0 if view.image[inside].mean() >= view.image[~inside].mean() else -1.0)
