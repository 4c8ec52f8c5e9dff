from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import numpy_ranges
import pytest
from numpy.typing import NDArray
from pictures import disks
from scipy import ndimage

from nucseg_batch.arrays.kernels.ranges import FEWEST, TOP
from nucseg_batch.arrays.normalize import percentile_range
from nucseg_batch.arrays.ranges import RankedTally, ValueTally, intensity_range

GROUND, HEIGHT, NOISE = 300.0, 1500.0, 12.0
TYPICAL = GROUND + TOP * HEIGHT
"""Where the range of the nuclei below ends."""


def nuclei(shape: tuple[int, int], places: list[tuple[int, int]], seed: int = 1) -> NDArray[np.uint16]:
    """Nuclei 19 pixels wide, of one height, over noise."""
    light = GROUND + HEIGHT * (disks(shape, places, 9) > 0)
    return np.random.default_rng(seed).normal(light, NOISE).round().astype(np.uint16)


CROWD = [(y, x) for y in (20, 60, 100) for x in (20, 60, 100)]
PLAIN = nuclei((127, 131), CROWD)


@pytest.mark.parametrize("side", [127, 251, 509, 1021])
def test_a_nucleus_looks_alike_however_large_the_field_around_it_is(side: int) -> None:
    """By percentiles of all pixels its brightness would change tenfold."""
    low, high = intensity_range(nuclei((side, side), [(60, 60)]))
    assert low == pytest.approx(GROUND, abs=3 * NOISE)
    assert high == pytest.approx(TYPICAL, rel=0.03)


def padded(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return np.pad(pixels, [(40, 0), (0, 33)])


def hot(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    spots = np.random.default_rng(2).random(pixels.shape) < 0.005
    return np.where(spots, 65535, pixels).astype(np.uint16)


def with_debris(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    changed = pixels.copy()
    changed[5:12, 100:130] = 65535
    return changed


def turned(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    rows, columns = np.indices(pixels.shape)
    return np.where(rows + columns < 60, 0, pixels).astype(np.uint16)


@pytest.mark.parametrize("disturbed", [padded, hot, with_debris, turned])
def test_padding_hot_pixels_and_debris_do_not_move_the_range(
    disturbed: Callable[[NDArray[np.uint16]], NDArray[np.uint16]],
) -> None:
    """They are no light from the sample; half of the nuclei were lost by them."""
    low, high = intensity_range(PLAIN)
    moved = intensity_range(disturbed(PLAIN))
    assert moved == pytest.approx((low, high), rel=0.06)
    assert percentile_range(disturbed(PLAIN)) != pytest.approx((low, high), rel=0.06)


@pytest.mark.parametrize("height", [60.0, 120.0])
def test_haze_is_not_taken_for_nuclei(height: float) -> None:
    """It covers four times as much of the field and is clearly above the noise, but the nuclei shine more."""
    hazy = nuclei((251, 257), [*CROWD, *((y, x + 130) for y, x in CROWD)]).astype(np.float32)
    middle = ndimage.gaussian_filter((disks(hazy.shape, [(120, 130)], 90) > 0).astype(np.float32), 15)
    low, high = intensity_range(hazy + height * middle)
    assert low == pytest.approx(GROUND, abs=3 * NOISE)
    assert high == pytest.approx(TYPICAL, rel=0.1)


def test_an_offset_and_a_gain_of_the_camera_change_nothing() -> None:
    """The range moves with the values."""
    low, high = intensity_range(PLAIN)
    assert intensity_range(PLAIN + np.uint16(5000)) == (low + 5000, high + 5000)
    assert intensity_range(PLAIN * np.uint16(7)) == (7 * low, 7 * high)


def test_a_black_background_is_no_padding() -> None:
    """Of denoised images most pixels are 0; without these, nuclei would be taken for the background."""
    flat = (disks((127, 131), CROWD, 9) > 0).astype(np.uint8) * 200
    assert intensity_range(flat) == (0, 400)
    assert intensity_range(np.where(PLAIN > 600, PLAIN, 0).astype(np.uint16)) == pytest.approx((0, 3600), rel=0.03)


def test_noise_alone_is_not_stretched_over_the_range() -> None:
    """An empty field must not look like one full of dim things."""
    empty = np.random.default_rng(3).normal(GROUND, NOISE, (251, 257)).round().astype(np.uint16)
    low, high = intensity_range(empty)
    assert high - low > 6 * NOISE > percentile_range(empty)[1] - percentile_range(empty)[0]


def test_a_crowd_without_gaps_is_left_to_percentiles() -> None:
    """There is no background to measure from."""
    texture = ndimage.gaussian_filter(np.random.default_rng(4).standard_normal((127, 131)), 5)
    crowd = (2000 + 500 * texture / texture.std()).round().astype(np.uint16)
    low, high = intensity_range(crowd)
    assert (low, high) == pytest.approx((np.percentile(crowd, 1), np.percentile(crowd, 99.8)), rel=0.05)


def test_stained_tissue_ends_dark_where_its_nuclei_do() -> None:
    """White is 1; the few dark nuclei of a nearly empty field are inside the range, and not far beyond it."""
    light = np.where(disks((509, 521), [(60, 60)], 9) > 0, 90.0, 240.0)[..., None] * np.ones(3)
    tissue = np.random.default_rng(5).normal(light, 2.0).clip(0, 255).round().astype(np.uint8)
    low, high = intensity_range(tissue)
    assert 80 < low < 110
    assert high == pytest.approx(244, abs=4)
    assert percentile_range(tissue)[0] > 230, "where percentiles make noise of the white into black"


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.int32])
def test_the_range_is_the_same_for_every_type_of_the_same_values(kind: type) -> None:
    """A file's type must not change its mask."""
    eight = (PLAIN / 9).round().clip(0, 255).astype(np.uint8)
    assert intensity_range(eight.astype(kind)) == intensity_range(eight)


@pytest.mark.parametrize("shape", [(1, 1), (1, 57), (57, 1), (2, 2), (3, 5)])
def test_the_smallest_images_have_a_range(shape: tuple[int, int]) -> None:
    """Lines have no 2x2 blocks."""
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    low, high = intensity_range(pixels)
    assert 0 <= low <= high <= pixels.max() + FEWEST * 10
    assert intensity_range(np.full(shape, 7, np.uint8)) == (7, 7)
    assert intensity_range(np.zeros((*shape, 3), np.uint8)) == (0, 0)


def test_pieces_that_are_counted_say_what_the_whole_does() -> None:
    """A plane is added block by block, and only counts are kept."""
    for pixels in (PLAIN[:126, :130], np.stack([PLAIN[:126, :130] // 16] * 3, axis=-1).astype(np.uint8)):
        tally = ValueTally()
        for top in range(0, 126, 42):
            for left in range(0, 130, 64):
                tally.add(pixels[top : top + 42, left : left + 64])
        assert tally.pixels == 126 * 130
        assert tally.limits() == intensity_range(pixels)


def test_values_that_are_no_numbers_do_not_count() -> None:
    """One pixel that is not finite must not blind the image."""
    real = PLAIN.astype(np.float32)
    broken = real.copy()
    broken[4, 4], broken[9, 11] = np.nan, np.inf
    assert intensity_range(broken) == pytest.approx(intensity_range(real), rel=0.01)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64, ">u2"])
@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (3, 5), (131, 129), (1, 5, 3), (5, 1, 3), (9, 11, 3), (130, 131, 3)])
def test_compiled_rules_give_what_they_give_in_numpy(shape: tuple[int, ...], kind: type) -> None:
    """To the last bit; noise is dim, moderate and bright, and with a little light or darkness in it."""
    rng = np.random.default_rng(7)
    for mean in (1, 30, 200):
        image = rng.poisson(mean, shape).clip(0, 255)
        for change in (np.zeros(shape), 40 * (rng.random(shape) < 0.1), -mean * (rng.random(shape) < 0.02)):
            pixels = (image + change).clip(0, 255).astype(kind)
            assert intensity_range(pixels) == numpy_ranges.limits(pixels)


def test_ranges_of_the_test_images_are_those_of_numpy(shared: Path) -> None:
    """Fluorescence and stained tissue, as 8 and 16 bit integers and as float32."""
    for path in sorted((shared / "dsb2018" / "test" / "images").glob("*.png")):
        image = imagecodecs.png_decode(path.read_bytes())
        for pixels in (image, image.astype(np.uint16) * 173, (image / np.float32(7)).astype(np.float32)):
            assert intensity_range(pixels) == numpy_ranges.limits(pixels)


def test_counts_of_pieces_add_up_whichever_has_the_highest_value() -> None:
    """Pieces of a plane count up to their own highest value."""
    pieces = [np.array([3, 0, 7]), np.array([1]), np.array([9, 9, 2, 0])]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        tally = RankedTally()
        for i in order:
            tally.count(np.cumsum(np.bincount(pieces[i])))
        np.testing.assert_array_equal(tally.ranked().below, np.cumsum(np.bincount(np.concatenate(pieces))))
