"""Draws the outlines of found nuclei over their images, as PNG, to look at a run.

    python examples/overlay.py IMAGES OUT.zarr FOLDER [--first 20]

IMAGES is the folder that was segmented into OUT.zarr. Contrast is stretched between the 1st and 99.8th percentile.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

import nucseg_batch
from nucseg_batch.arrays.normalize import apply_range, percentile_range
from nucseg_batch.files.images import read_image


def overlay(pixels: NDArray[np.generic], mask: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """(height, width, 3): the image with yellow outlines just inside each nucleus."""
    shown = np.minimum(apply_range(pixels, *percentile_range(pixels)), 1)
    picture = np.dstack([shown] * 3) if shown.ndim == 2 else shown
    picture = (picture * 255).astype(np.uint8)
    picture[find_boundaries(mask, mode="inner")] = (255, 220, 0)
    return picture


def main() -> None:
    """Writes an overlay for each of the first images of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=20)
    arguments = parser.parse_args()
    masks = nucseg_batch.open_masks(arguments.store)
    for name in islice(masks, arguments.first):
        picture = overlay(read_image(arguments.images / name, max_pixels=10**8), masks[name])
        path = arguments.folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(imagecodecs.png_encode(picture))
    print(f"wrote overlays of {min(arguments.first, len(masks))} images to {arguments.folder}")


if __name__ == "__main__":
    main()
