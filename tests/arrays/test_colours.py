"""Pictures of one stain that were saved as RGB, and pictures that are no such thing."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import disks, fluorescence
from PIL import Image

from nucseg_batch.arrays.colours import BLOCK, ColourSample, one_colour

SHAPE = (131, 173)
NUCLEI = fluorescence(disks(SHAPE, [(30, 40), (80, 100), (100, 30), (40, 140)], 11), seed=1)
CELLS = fluorescence(disks(SHAPE, [(60, 60), (20, 90), (110, 130)], 9), seed=2)
NOTHING = np.zeros_like(NUCLEI)
RNG = np.random.default_rng(3)


def rgb(*channels: NDArray[np.floating] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(channel).clip(0, 255).astype(np.uint8) for channel in channels], -1)


def jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def noisy(pixels: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    return rgb(*np.moveaxis(pixels + RNG.normal(0, sigma, pixels.shape), -1, 0))


def with_scale_bar(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    marked = pixels.copy()
    marked[120:124, 120:165] = 255
    return marked


BLUE = rgb(NOTHING, NOTHING, NUCLEI)
ONE: dict[str, tuple[NDArray[np.uint8], int]] = {
    "blue": (BLUE, 2),
    "green": (rgb(NOTHING, NUCLEI, NOTHING), 1),
    "red": (rgb(NUCLEI, NOTHING, NOTHING), 0),
    "constant and not 0": (rgb(NOTHING + 17, NUCLEI, NOTHING + 200), 1),
    "a tint of azure": (rgb(NUCLEI * 0.1, NUCLEI * 0.4, NUCLEI), 2),
    "a tint of magenta": (rgb(NUCLEI, NUCLEI * 0.05, NUCLEI * 0.8), 0),
    "noise of a camera": (noisy(BLUE, 4), 2),
    "JPEG": (jpeg(BLUE, 75), 2),
    "JPEG of bad quality": (jpeg(rgb(NUCLEI, NOTHING, NOTHING), 50), 0),
    "a white scale bar": (with_scale_bar(BLUE), 2),
}
SEVERAL: dict[str, NDArray[np.uint8]] = {
    "grey": rgb(NUCLEI, NUCLEI, NUCLEI),
    "grey with a warm tint": rgb(NUCLEI, NUCLEI * 0.9, NUCLEI * 0.7),
    "two stains": rgb(NOTHING, CELLS, NUCLEI),
    "two stains, one of which is weak": rgb(NOTHING, CELLS * 0.4, NUCLEI),
    "two stains as JPEG": jpeg(rgb(CELLS, NOTHING, NUCLEI), 75),
    "three stains": rgb(CELLS[::-1], CELLS, NUCLEI),
    "a second stain in one cell": rgb(NOTHING, np.where(np.arange(SHAPE[1]) < 70, CELLS, 0), NUCLEI),
    "stained tissue": rgb(240 - NUCLEI * 0.6, 235 - NUCLEI * 0.8, 245 - NUCLEI * 0.3),
    "noise": RNG.integers(0, 256, (*SHAPE, 3)).astype(np.uint8),
    "one value": np.full((*SHAPE, 3), 7, np.uint8),
    "white": np.full((*SHAPE, 3), 255, np.uint8),
    "grey overlaid with blue": rgb(CELLS, CELLS, np.maximum(CELLS, NUCLEI)),
}


@pytest.mark.parametrize("name", ONE)
def test_the_only_colour_of_a_picture_is_found(name: str) -> None:
    pixels, channel = ONE[name]
    found = one_colour(pixels)
    assert found is not None
    assert found.channel == channel


@pytest.mark.parametrize("name", SEVERAL)
def test_pictures_of_several_colours_are_left_as_they_are(name: str) -> None:
    assert one_colour(SEVERAL[name]) is None


def test_only_constant_channels_leave_no_doubt() -> None:
    for name, (pixels, _) in ONE.items():
        found = one_colour(pixels)
        assert found is not None
        assert found.exact == (name in ("blue", "green", "red", "constant and not 0", "a white scale bar")), name
        assert (found.white > 0) == (name == "a white scale bar"), name


@pytest.mark.parametrize("change", [lambda p: p.astype(np.uint16) * 13, lambda p: p.astype(np.float32) / 255])
def test_the_type_of_pixels_does_not_matter(change: Callable[[NDArray[np.uint8]], NDArray[np.generic]]) -> None:
    """A camera of 12 bits fills a sixteenth of its type, and floats have no type to fill."""
    for name, (pixels, channel) in ONE.items():
        found = one_colour(change(pixels))
        assert found is not None, name
        assert found.channel == channel
    for name, pixels in SEVERAL.items():
        assert one_colour(change(pixels)) is None, name


def test_windows_of_a_plane_are_judged_together() -> None:
    """A window without the second stain says nothing of the plane; and one that is empty neither."""
    several = np.concatenate([rgb(NOTHING, NOTHING, NOTHING), BLUE, SEVERAL["two stains"]])
    for pixels, expected in ((several, None), (several[: 2 * SHAPE[0]], 2)):
        sample = ColourSample(pixels.shape[0] * pixels.shape[1])
        for top in range(0, len(pixels), SHAPE[0]):
            sample.add(pixels[top : top + SHAPE[0]])
        found = sample.decided()
        assert (None if found is None else found.channel) == expected


def test_pictures_smaller_than_a_block_are_judged_by_their_pixels() -> None:
    small = BLUE[30 : 30 + BLOCK - 3, 40:45]
    found = one_colour(small)
    assert found is not None
    assert found.channel == 2
