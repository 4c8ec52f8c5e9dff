"""Writes simulated fields of nuclei that are equally bright, but unevenly lit: one corner 60 % as much as the middle.

    python examples/uneven_plate.py FOLDER

24 fields `A01.tif` to `B12.tif`, and beside FOLDER the illumination as `FOLDER-flat.npy`. Every call writes the same
files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter

SIDE, APART, RADIUS = 384, 48, 11
"""Pixels: side of a field, distance of nuclei, and their mean radius."""
BACKGROUND, BRIGHT, SPREAD = 300, 3000, 0.06
"""Photons where the illumination is 1, and how much nuclei differ, relative to BRIGHT."""


def illumination() -> np.ndarray:
    """How brightly each place is lit; mean 1."""
    y, x = (np.indices((SIDE, SIDE)) + 0.5) / SIDE
    light = 1 / (1 + 0.9 * ((y - 0.4) ** 2 + (x - 0.35) ** 2))
    return np.asarray(light / light.mean())


def field(random: np.random.Generator, light: np.ndarray) -> np.ndarray:
    """One image, uint16."""
    y, x = np.indices(light.shape)
    photons = np.full(light.shape, BACKGROUND * random.uniform(0.8, 1.2))
    for place in np.flatnonzero(random.random((SIDE // APART) ** 2) < 0.6):
        cy, cx = APART * (np.array(divmod(place, SIDE // APART)) + 0.5) + random.uniform(-7, 7, 2)
        long, wide = RADIUS * random.uniform(0.85, 1.25, 2)
        turned = ((y - cy) + 1j * (x - cx)) * np.exp(1j * random.uniform(0, np.pi))
        inside = (turned.real / long) ** 2 + (turned.imag / wide) ** 2 < 1
        photons[inside] += BRIGHT * random.normal(1, SPREAD)
    return random.poisson(gaussian_filter(photons, 1) * light).astype(np.uint16)


def main(folder: Path) -> None:
    """Writes the fields to a new folder."""
    random, light = np.random.default_rng(2), illumination()
    folder.mkdir(parents=True)
    np.save(folder.with_name(f"{folder.name}-flat.npy"), light)
    for row in "AB":
        for column in range(1, 13):
            tifffile.imwrite(folder / f"{row}{column:02d}.tif", field(random, light))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
