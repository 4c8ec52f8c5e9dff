"""Stacks of nuclei whose volumes are known: ellipsoids that touch, and their slices as a 2D network segments them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucseg_batch.arrays.label_overlaps import LabelRuns, overlaps
from nucseg_batch.arrays.volumes import VolumeLinker

Stack = NDArray[np.uint32]
"""Labels (z, y, x)."""


def ellipsoids(
    shape: tuple[int, int, int], centres: Iterable[tuple[float, ...]], radii: Iterable[tuple[float, ...]]
) -> Stack:
    """Labels of ellipsoids 1..n, in pixels along z, y and x; a pixel in several belongs to the one it is deepest in."""
    stack, depth = np.zeros(shape, np.uint32), np.ones(shape)
    for label, (centre, radius) in enumerate(zip(centres, radii, strict=True), start=1):
        low = [max(0, int(c - r)) for c, r in zip(centre, radius, strict=True)]
        high = [min(n, int(c + r) + 2) for c, r, n in zip(centre, radius, shape, strict=True)]
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        grid = np.ogrid[window]
        own = sum(((one - c) / r) ** 2 for one, c, r in zip(grid, centre, radius, strict=True))
        deeper = own < depth[window]
        stack[window][deeper], depth[window][deeper] = label, own[deeper]
    return stack


def packed(
    shape: tuple[int, int, int],
    count: int,
    radius: float,
    *,
    anisotropy: float = 1.0,
    closeness: float = 0.95,
    seed: int = 0,
) -> Stack:
    """So many ellipsoids at random, of radii that vary by a third, many of which touch.

    radius: in pixels; slices are `anisotropy` pixels apart. closeness: least distance of two centres, by the sum of
    their mean radii.
    """
    rng = np.random.default_rng(seed)
    size = np.array(shape) * (anisotropy, 1, 1)
    centres, radii = np.empty((0, 3)), np.empty((0, 3))
    for _ in range(count * 400):
        own = radius * rng.uniform(0.67, 1.0) * rng.uniform(0.85, 1.15, 3)
        edge = np.minimum(own * 0.6, size / 2)
        centre = rng.uniform(edge, size - edge)
        if ((np.linalg.norm(centres - centre, axis=1)) >= closeness * (radii.mean(axis=1) + own.mean())).all():
            centres, radii = np.vstack([centres, centre]), np.vstack([radii, own])
        if len(centres) == count:
            break
    step = np.array((anisotropy, 1, 1))
    return ellipsoids(shape, centres / step, radii / step)


def segmented(truth: Stack, *, errors: float = 0.03, least: int = 12, seed: int = 0) -> Stack:
    """The slices of a stack as a 2D network gives them: each labelled 1..n without regard to the others.

    Outlines move by a pixel, sections smaller than `least` are not found, and for each of three kinds of error this
    share of the sections is missed, cut in two, or merged with a neighbour.
    """
    rng, found = np.random.default_rng(seed), np.zeros_like(truth)
    for z, plane in enumerate(truth):
        labels = plane.astype(np.int64)
        moved = rng.choice(3)
        if moved == 1:
            labels[ndimage.grey_erosion(labels, 3) != labels] = 0
        elif moved == 2:
            labels = np.where(labels == 0, ndimage.grey_dilation(labels, 3), labels)
        for label in np.unique(labels[labels > 0]).tolist():
            section, kind = labels == label, rng.uniform() / errors if errors else 9.0
            if section.sum() < least or kind < 1:
                labels[section] = 0
            elif kind < 2:
                rows, columns = np.nonzero(section)
                across = rows if np.ptp(rows) > np.ptp(columns) else columns
                half = across > np.median(across)
                labels[rows[half], columns[half]] = labels.max() + 1
            elif kind < 3:
                near = np.unique(labels[ndimage.binary_dilation(section, iterations=2) & (labels > 0) & ~section])
                if near.size:
                    labels[section] = near[0]
        names, where = np.unique(np.append(0, labels), return_inverse=True)
        order = np.append(0, 1 + rng.permutation(names.size - 1))  # labels of slices are unrelated
        found[z] = order[where.ravel()[1:]].reshape(plane.shape)
    return found


def linked(slices: Stack) -> Stack:
    """The volumes of slices that are each labelled 1..n."""
    linker, runs = VolumeLinker(), [LabelRuns.of(plane) for plane in slices]
    for z, plane in enumerate(slices):
        areas = np.bincount(plane.ravel())[1:]
        near = overlaps(runs[z - 1], runs[z]) if z > 0 else None
        far = overlaps(runs[z - 2], runs[z]) if z > 1 else None
        linker.add(areas, near, far)
    return np.stack([ids[plane] for ids, plane in zip(linker.ids(), slices, strict=True)])


def matches(found: NDArray[np.integer], truth: NDArray[np.integer]) -> tuple[int, int, int]:
    """Labels matched at an IoU above 0.5, labels found and labels in the truth; of planes or of stacks."""
    pairs = overlaps(LabelRuns.of(found.reshape(-1, found.shape[-1])), LabelRuns.of(truth.reshape(-1, truth.shape[-1])))
    one, other = np.bincount(found.ravel()), np.bincount(truth.ravel())
    iou = pairs.pixels / (one[pairs.first] + other[pairs.second] - pairs.pixels)
    return int((iou > 0.5).sum()), int((one[1:] > 0).sum()), int((other[1:] > 0).sum())


def f1(found: Stack, truth: Stack) -> float:
    """F1 of volumes at an IoU of 0.5."""
    matched, one, other = matches(found, truth)
    return 2 * matched / (one + other)


def average_precision(found: Stack, truth: Stack) -> float:
    """Mean over slices of TP / (TP + FP + FN) at an IoU of 0.5; slices without nuclei do not count."""
    counts = [matches(one, other) for one, other in zip(found, truth, strict=True)]
    return float(np.mean([tp / (a + b - tp) for tp, a, b in counts if a + b]))
