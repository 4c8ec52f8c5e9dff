"""Runs as COCO has them, compared with pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco

from nucseg_batch.arrays.rle import encode


def reference(pixels: np.ndarray) -> str:
    return coco.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"].decode()


@pytest.mark.parametrize("seed", range(30))
def test_every_label_is_encoded_as_pycocotools_does(seed: int) -> None:
    """The text itself is the same, so that hashes and diffs of annotations agree, too."""
    random = np.random.default_rng(seed)
    mask = random.integers(0, random.integers(2, 6), (random.integers(1, 151), random.integers(1, 19))).astype(
        np.uint32
    )
    encoded = encode(mask, mask.shape)
    assert encoded.keys() == set(np.unique(mask).tolist()) - {0}
    assert all(text == reference(mask == label) for label, text in encoded.items())


def test_a_window_counts_from_the_first_pixel_of_the_plane() -> None:
    """Large planes are encoded window by window; counts beyond 2^15 need several characters."""
    plane = np.zeros((1511, 701), np.uint8)
    window = np.random.default_rng(1).integers(0, 3, (37, 41)).astype(np.uint32)
    plane[800:837, 500:541] = window
    encoded = encode(window, plane.shape, 800, 500)
    assert {label: reference(plane == label) for label in (1, 2)} == encoded


def test_a_mask_without_nuclei_has_no_runs() -> None:
    """Empty images are common."""
    assert encode(np.zeros((5, 3), np.uint32), (5, 3)) == {}
