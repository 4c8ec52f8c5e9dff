"""How exact estimates of the flat field are, beside BaSiC where basicpy is installed.

    python tests/benchmarks/flat_field.py [--only NAME] [--basic] [--images FOLDER] [--json FILE]

On simulated fields of nuclei of which the illumination is known: root mean square and maximum of the relative error.
--images: a folder with `images/` of one size and `labels/` of the same names, such as bbbc039_subset; of these the
illumination is not known, so it prints how much fields from two halves of the images differ, and how much the median
intensity of nuclei, above the median background of their image, varies between 4 x 4 parts of the field of view, before
and after the correction.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter, mean

from nucseg_batch.arrays.flat_field import cell_values, estimate_flat_field

Pixels = np.ndarray | Sequence[np.ndarray]
Estimate = Callable[[Pixels], np.ndarray]
SCENES: dict[str, tuple[int, tuple[int, int], int, int, int]] = {
    "sparse": (64, (260, 348), 40, 300, 0),
    "confluent": (64, (260, 348), 90, 300, 0),
    "dense": (64, (260, 348), 160, 300, 0),
    "few": (12, (260, 348), 60, 300, 0),
    "dim": (64, (260, 348), 60, 20, 0),
    "offset": (64, (260, 348), 60, 300, 100),
    "larger": (32, (520, 696), 200, 300, 0),
}
"""Images, their shape, nuclei on average, photons of the background, and offset of the camera."""
BRIGHT = 2000
"""Photons of a nucleus."""
PARTS = 4
"""Parts of the field of view along each side, with --images."""


def vignette(shape: tuple[int, int], corner: float = 0.55, centre: tuple[float, float] = (0.45, 0.56)) -> np.ndarray:
    """An illumination with mean 1, brightest off the middle, and a slope."""
    y, x = np.indices(shape)
    height, width = shape
    squared = (y / height - centre[0]) ** 2 + (x / width - centre[1]) ** 2
    field = 1 / (1 + squared / 0.5 * (1 / corner - 1)) * (1 + 0.05 * (x / width - 0.5))
    return np.asarray(field / field.mean())


def scene(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, h, w) of uint16 and the field that they were made with."""
    count, shape, nuclei, background, offset = SCENES[name]
    random = np.random.default_rng(7)
    field, found = vignette(shape), []
    for _ in range(count):
        light = _nuclei(random, shape, nuclei)
        light = gaussian_filter(light, 1) + gaussian_filter(light, 12) * 0.05
        photons = random.poisson(field * (light + background * random.uniform(0.7, 1.4)))
        found.append(photons.astype(float) + random.normal(offset, 3, shape))
    return np.clip(np.round(found), 0, 65535).astype(np.uint16), field


def _nuclei(random: np.random.Generator, shape: tuple[int, int], count: int) -> np.ndarray:
    """Ellipses, of which a third is twice as bright."""
    light = np.zeros(shape)
    for _ in range(random.poisson(count * random.uniform(0.4, 1.6))):
        cy, cx, radius = random.uniform(0, shape[0]), random.uniform(0, shape[1]), random.uniform(8, 13)
        top, left = (int(max(0, centre - 16)) for centre in (cy, cx))
        window = slice(top, int(min(shape[0], cy + 17))), slice(left, int(min(shape[1], cx + 17)))
        y, x = np.mgrid[window]
        bright = BRIGHT * (1 if random.random() < 0.65 else 2) * random.normal(1, 0.08)
        inside = ((y - cy) / radius) ** 2 + ((x - cx) / (radius * 1.2)) ** 2 < 1
        light[window] = np.maximum(light[window], bright * inside)
    return light


def own(images: Pixels) -> np.ndarray:
    """The estimate of `--flatfield estimate`."""
    field = estimate_flat_field([cell_values(image) for image in images], images[0].shape)
    assert field is not None
    return field


def basic(darkfield: bool) -> Estimate:
    """That of BaSiC."""

    def estimate(images: Pixels) -> np.ndarray:
        from basicpy import BaSiC

        found = BaSiC(get_darkfield=darkfield, smoothness_flatfield=1.0)
        found.fit(np.array(images).astype(np.float32))
        field = np.asarray(found.flatfield)
        return np.asarray(field / field.mean())

    return estimate


def errors(field: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Root mean square and maximum of the relative error."""
    apart = field / truth - 1
    return float(np.sqrt(np.mean(apart**2))), float(np.abs(apart).max())


def read(path: Path) -> np.ndarray:
    """The pixels of a file."""
    return np.asarray(tifffile.imread(path) if path.suffix.startswith(".tif") else Image.open(path))


def variation(images: Pixels, labels: Pixels, field: np.ndarray) -> float:
    """Coefficient of variation of the median brightness of nuclei in parts of the field of view."""
    found: dict[tuple[int, int], list[float]] = {}
    for image, mask in zip(images, labels, strict=True):
        even, numbers = image / field, np.arange(1, mask.max() + 1)
        above = mean(even, mask, numbers) - np.median(even[mask == 0])
        centres = [mean(axis, mask, numbers) for axis in np.indices(mask.shape)]
        typical = np.median(above)
        for value, y, x in zip(above, *centres, strict=True):
            place = int(y / mask.shape[0] * PARTS), int(x / mask.shape[1] * PARTS)
            found.setdefault(place, []).append(value / typical)
    medians = np.array([np.median(values) for values in found.values()])
    return float(medians.std() / medians.mean())


def main() -> None:
    """Prints a line for each scene and estimate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SCENES)
    parser.add_argument("--basic", action="store_true")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    estimates: dict[str, Estimate] = {"own": own}
    if given.basic:
        estimates |= {"BaSiC": basic(False), "BaSiC with dark field": basic(True)}
    results: list[dict[str, Any]] = []

    def add(**result: Any) -> None:
        results.append(result)
        print(
            "  ".join(
                f"{name} {value:.4f}" if isinstance(value, float) else str(value) for name, value in result.items()
            )
        )

    for name in [given.only] if given.only else () if given.images else SCENES:
        images, truth = scene(name)
        rms, most = errors(np.ones_like(truth), truth)
        add(scene=name, by="none", rms=rms, max=most)
        for by, estimate in estimates.items():
            rms, most = errors(estimate(images), truth)
            add(scene=name, by=by, rms=rms, max=most)
    if given.images:
        paths = sorted((given.images / "images").iterdir())
        images = np.stack([read(path) for path in paths])
        labels = [read(next((given.images / "labels").glob(f"{path.stem}.*"))) for path in paths]
        add(scene=given.images.name, by="none", variation=variation(images, labels, np.ones(images[0].shape)))
        for by, estimate in estimates.items():
            whole, one, other = (estimate(images[part]) for part in (slice(None), slice(0, None, 2), slice(1, None, 2)))
            extremes = {"lowest": float(whole.min()), "highest": float(whole.max())}
            halves = errors(one, other)[0]
            add(scene=given.images.name, by=by, **extremes, halves=halves, variation=variation(images, labels, whole))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
