from __future__ import annotations

import math

import numpy as np
import pytest

from nucseg_batch.arrays import sampling
from nucseg_batch.arrays.normalize import percentile_range
from nucseg_batch.arrays.ranges import intensity_range
from nucseg_batch.arrays.sampling import is_constant, nothing_bright, sample_windows, survey_intensities
from nucseg_batch.settings import Intensities


class Plane:
    """A plane that is read by windows, and counts what was read."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.shape = (pixels.shape[0], pixels.shape[1])
        self.read_pixels = 0

    def __call__(self, rows: slice, columns: slice) -> np.ndarray:
        window = self.pixels[rows, columns]
        self.read_pixels += math.prod(window.shape[:2])
        return window


def field(shape: tuple[int, int], cover: float, *, tissue: float = 1.0, seed: int = 0) -> np.ndarray:
    """Noise of 400 +- 20 with nuclei of 1200 to 3400 on `cover` of it, all in the upper left `tissue` of the plane."""
    rng = np.random.default_rng(seed)
    image = rng.normal(400, 20, shape)
    height, width = (round(length * math.sqrt(tissue)) for length in shape)
    y, x = np.indices((23, 23)) - 11
    disk = y**2 + x**2 <= 11**2
    for _ in range(round(cover * math.prod(shape) / disk.sum())):
        top, left = rng.integers(0, height - 23), rng.integers(0, width - 23)
        image[top : top + 23, left : left + 23][disk] = rng.uniform(1200, 3400)
    return image.astype(np.uint16)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "colour"])
def test_a_plane_that_is_read_whole_has_the_range_of_the_whole_image(kind: str) -> None:
    """A plane done by regions looks to the network just as it would in one piece."""
    image = field((701, 1103), 0.1)
    shown = {
        "uint8": (image // 16).astype(np.uint8),
        "uint16": image,
        "float32": image.astype(np.float32) / 7,
        "colour": np.stack([image // 16, image // 20, image // 30], axis=-1).astype(np.uint8),
    }[kind]
    plane = Plane(shown)
    whole = survey_intensities(plane, plane.shape)
    for chunk in (None, (64, 128), (1, 1103), (333, 777)):
        assert survey_intensities(plane, plane.shape, chunk) == whole, "however it is stored"
        assert survey_intensities(plane, plane.shape, chunk).limits == intensity_range(shown)
        assert survey_intensities(plane, plane.shape, chunk, "percentiles").limits == percentile_range(shown)


@pytest.mark.parametrize("chunk", [None, (64, 64), (100, 2999), (512, 512)])
@pytest.mark.parametrize("tissue", [1.0, 0.3])
def test_the_range_of_a_sample_is_near_that_of_the_whole(
    chunk: tuple[int, int] | None, tissue: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For nuclei all over the plane and for those in a third of it, in any chunks."""
    monkeypatch.setattr(sampling, "EXACT_PIXELS", 2**21)
    monkeypatch.setattr(sampling, "WINDOW_PIXELS", (2**12, 2**18))
    monkeypatch.setattr(sampling, "FEWEST_WINDOWS", 8)
    monkeypatch.setattr(sampling, "BLOCK", 64)
    image = field((3001, 2999), 0.04, tissue=tissue)
    plane = Plane(image)
    found = survey_intensities(plane, plane.shape, chunk)
    assert plane.read_pixels == found.pixels < 0.45 * image.size
    rules: dict[Intensities, float] = {"percentiles": 0.04, "nuclei": 0.12}  # the typical of 150 nuclei differs more
    for rule, near in rules.items():
        found = survey_intensities(plane, plane.shape, chunk, rule)
        low, high = intensity_range(image, rule)
        assert abs(found.low - low) < 0.01 * (high - low)
        assert abs(found.high - high) < near * (high - low), rule


def test_a_sample_depends_on_the_plane_alone_and_lies_on_its_chunks() -> None:
    """The same windows in every process; whole chunks, because these are decoded whole."""
    first = sample_windows((30_011, 50_021), (512, 1024))
    assert first == sample_windows((30_011, 50_021), (512, 1024))
    assert len(first) == len(set(map(str, first))) == sampling.EXACT_PIXELS // (512 * 1024)
    for rows, columns in first:
        assert rows.start % 512 == columns.start % 1024 == 0
        assert rows.stop in (rows.start + 512, 30_011)
        assert columns.stop in (columns.start + 1024, 50_021)


@pytest.mark.parametrize("chunk", [None, (64, 64), (8, 100_003), (100_003, 100_003), (8192, 8192), (1, 1)])
def test_however_large_a_plane_and_its_chunks_the_sample_is_small(chunk: tuple[int, int] | None) -> None:
    """And spread: no ninth of the plane is without a window that reaches into it."""
    side = 100_003
    found = sample_windows((side, side), chunk)
    sizes = [(rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in found]
    assert len(found) >= sampling.FEWEST_WINDOWS
    assert max(sizes) <= sampling.WINDOW_PIXELS[1]
    assert sum(sizes) <= 2**29
    for top in range(0, side, side // 3 + 1):
        for left in range(0, side, side // 3 + 1):
            assert any(
                rows.start < top + side // 3 and top < rows.stop
                for rows, columns in found
                if columns.start < left + side // 3 and left < columns.stop
            )


def test_blocks_of_one_value_are_no_part_of_the_picture() -> None:
    """What a scanner left out is 0, and must not become the black of the picture, nor push its white away."""
    image = field((512, 1024), 0.1)
    padded = np.zeros((2048, 4096), np.uint16)
    padded[512:1024, 1024:2048] = image
    plane = Plane(padded)
    found = survey_intensities(plane, plane.shape)
    assert found.limits == intensity_range(image)
    assert percentile_range(padded)[0] == 0
    assert found.places == ((slice(512, 1024), slice(1024, 1536)), (slice(512, 1024), slice(1536, 2048)))


@pytest.mark.parametrize("value", [0, 37])
def test_a_plane_of_one_value_has_no_range(value: int) -> None:
    """It is shown as black, and nothing is found."""
    plane = Plane(np.full((701, 1103), value, np.uint8))
    found = survey_intensities(plane, plane.shape)
    assert found.limits == (value, value)
    assert found.informative(100) == [(slice(300, 400), slice(501, 601))]


def test_few_nuclei_on_a_large_plane_are_not_all_beyond_the_range() -> None:
    """Where they cover a thousandth, 99.8 % of the pixels are noise, and its top would be shown as white."""
    image = field((2003, 2011), 0.001)
    assert percentile_range(image)[1] < 500
    plane = Plane(image)
    assert survey_intensities(plane, plane.shape).limits == intensity_range(image)
    found = survey_intensities(plane, plane.shape, intensities="percentiles")
    assert found.low == percentile_range(image)[0]
    assert 1500 < found.high < 3400
    assert survey_intensities(plane, plane.shape).high > 1500


@pytest.mark.parametrize("kind", ["empty", "poisson", "bright", "dust"])
def test_where_nothing_rises_above_the_noise_the_range_is_that_of_any_image(kind: str) -> None:
    """Empty planes, bright planes with dark nuclei, and a few hot pixels."""
    rng = np.random.default_rng(4)
    image = rng.normal(400, 20, (1009, 1013)).astype(np.uint16)
    if kind == "poisson":
        image = rng.poisson(9, image.shape).astype(np.uint16)
    if kind == "bright":
        image = 4000 - field(image.shape, 0.1)
    if kind == "dust":
        image[rng.integers(0, 1009, 50), rng.integers(0, 1013, 50)] = 60_000
    plane = Plane(image)
    assert survey_intensities(plane, plane.shape).limits == intensity_range(image)


def test_values_that_are_no_numbers_do_not_count() -> None:
    """One pixel that is not finite must not blind the whole plane."""
    image = field((701, 1103), 0.1).astype(np.float32)
    expected = intensity_range(image)
    image[5, 7], image[9, 11] = np.nan, np.inf
    plane = Plane(image)
    assert survey_intensities(plane, plane.shape).limits == pytest.approx(expected, rel=1e-3)


def test_most_is_to_be_seen_where_the_nuclei_are() -> None:
    """Not in the middle, which on a slide is often empty."""
    image = field((2003, 3011), 0.05)
    image[:1500] = np.random.default_rng(1).normal(400, 20, (1500, 3011))
    image[:, :2000] = np.random.default_rng(2).normal(400, 20, (2003, 2000))
    plane = Plane(image)
    found = survey_intensities(plane, plane.shape)
    first, second = found.informative(500, 2)
    for rows, columns in (first, second):
        assert rows.stop - rows.start == columns.stop - columns.start == 500
        assert (image[rows, columns] > 1000).mean() > 0.01
    assert first != second
    assert found.informative(5000) == [(slice(0, 2003), slice(0, 3011))]


def test_what_is_constant_is_constant() -> None:
    """In all channels; one pixel that differs is enough."""
    grey, colour = np.full((61, 67), 9, np.uint16), np.full((61, 67, 3), (9, 8, 7), np.uint8)
    for image in (grey, colour):
        assert is_constant(image)
        image[60, 66] = 11
        assert not is_constant(image)
        image[60, 66] = image[0, 0]
        image[30, 30] = 11
        assert not is_constant(image)


def test_only_what_is_as_bright_as_nuclei_counts_as_bright() -> None:
    """Single hot pixels do not, nuclei do, and neither does noise."""
    image = np.random.default_rng(3).normal(400, 20, (301, 307)).astype(np.uint16)
    limits = (400.0, 2400.0)
    assert nothing_bright(image, limits)
    image[100, 100] = 3000
    assert nothing_bright(image, limits)
    image[200:208, 200:208] = 1000
    assert not nothing_bright(image, limits)
    assert not nothing_bright(np.full((64, 64, 3), 240, np.uint8), (30.0, 245.0))
