"""Writes a small simulated plate in which a protein moves from the cytoplasm into the nucleus.

    python examples/translocation_plate.py PLATE

2 x 3 wells with 2 fields each, and one file per channel, such as `A01_s1_DAPI.tif` and `A01_s1_GFP.tif`. DAPI stains
the nuclei. GFP is a protein: mostly in the nucleus in row A, mostly in the cytoplasm in row B. Every call writes the
same files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tifffile
from scipy.ndimage import distance_transform_edt, gaussian_filter

SIDE, APART, RADIUS, CYTOPLASM = 384, 48, 11, 12
"""Pixels: side of a field, distance of nuclei, their mean radius, and width of the cytoplasm around them."""
BACKGROUND = 100


def field(random: np.random.Generator, inside: float) -> dict[str, np.ndarray]:
    """Both channels of a field. inside: mean brightness of the nucleus, over that of nucleus + cytoplasm."""
    y, x = np.indices((SIDE, SIDE))
    labels = np.zeros((SIDE, SIDE), int)
    for place in np.flatnonzero(random.random((SIDE // APART) ** 2) < 0.8):
        cy, cx = APART * (np.array(divmod(place, SIDE // APART)) + 0.5) + random.uniform(-7, 7, 2)
        long, wide = RADIUS * random.uniform(0.85, 1.25, 2)
        turned = ((y - cy) + 1j * (x - cx)) * np.exp(1j * random.uniform(0, np.pi))
        labels[(turned.real / long) ** 2 + (turned.imag / wide) ** 2 < 1] = place + 1
    distance, nearest = distance_transform_edt(labels == 0, return_indices=True)
    cells = labels[tuple(nearest)] * (distance < CYTOPLASM)
    brightness = random.uniform(0.7, 1.3, labels.max() + 1)
    fraction = random.normal(inside, 0.04, brightness.size)
    protein = np.where(labels > 0, fraction[cells], 1 - fraction[cells]) * (cells > 0)
    light = {"DAPI": 6000 * brightness[labels] * (labels > 0), "GFP": 4000 * brightness[cells] * protein}
    return {
        channel: random.poisson(gaussian_filter(BACKGROUND + pixels, 1)).astype(np.uint16)
        for channel, pixels in light.items()
    }


def main(folder: Path) -> None:
    """Writes the 24 files to a new folder."""
    random = np.random.default_rng(1)
    folder.mkdir(parents=True)
    for row, inside in (("A", 0.7), ("B", 0.25)):
        for column in (1, 2, 3):
            of_well = inside + random.normal(0, 0.02)
            for site in (1, 2):
                for channel, pixels in field(random, of_well).items():
                    tifffile.imwrite(folder / f"{row}{column:02d}_s{site}_{channel}.tif", pixels)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
