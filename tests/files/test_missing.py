from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError
from nucseg_batch.files import images
from nucseg_batch.files.images import open_file, read_image
from nucseg_batch.files.missing import is_filling

FIELD = (np.arange(37 * 53, dtype=np.float32).reshape(37, 53) * 7 % 101) / 101 + 0.25


def read(place: Path, pixels: NDArray[np.floating]) -> NDArray[np.floating]:
    tifffile.imwrite(place / "a.tif", pixels)
    return read_image(place / "a.tif", max_pixels=10**6)


def with_gap(value: float, kind: type = np.float32) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """An image with a corner of one value, and what it should be read as."""
    pixels, right = FIELD.astype(kind), FIELD.copy()
    pixels[:20, :20] = value
    right[:20, :20] = np.inf
    right[:20, :20] = right.min()
    return pixels, right


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.finfo(np.float32).max, np.float32),
        (-np.finfo(np.float32).max, np.float32),
        (-np.finfo(np.float64).max, np.float64),
        (9.96921e36, np.float32),
        (-1e30, np.float32),
        (1e31, np.float64),
        (-9999, np.float32),
        (-99999, np.float64),
        (-32768, np.float16),
        (np.nan, np.float16),
        (np.inf, np.float32),
    ],
)
def test_a_gap_filled_with_one_extreme_value_is_read_as_the_darkest_pixel(
    tmp_path: Path, value: float, kind: type
) -> None:
    """A fifth of the image would be its range, and all nuclei flat."""
    pixels, right = with_gap(value, kind)
    np.testing.assert_array_equal(read(tmp_path, pixels), right.astype(kind).astype(np.float32))


def test_single_extremes_of_any_value_are_missing(tmp_path: Path) -> None:
    """As a division by almost nothing leaves them, with infinities among them."""
    pixels, right = FIELD.copy(), FIELD.copy()
    odd = [1e38, -3e35, np.inf, 7e30, np.nan, -1e30]
    pixels[5, 3:9] = odd
    right[5, 3:9] = np.delete(FIELD.ravel(), range(5 * 53 + 3, 5 * 53 + 9)).min()
    np.testing.assert_array_equal(read(tmp_path, pixels), right)


@pytest.mark.parametrize(
    "pixels",
    [
        FIELD * 1e29,
        FIELD * 1e34,
        FIELD - 1,
        np.where(FIELD > 1, -9999, FIELD - 0.5).astype(np.float32),
        np.full((7, 11), -9999, np.float32),
        np.full((7, 11), 1e35, np.float32),
        np.where(FIELD > 1, 9999, FIELD).astype(np.float32),
        np.where(FIELD > 1, -9998, FIELD).astype(np.float32),
    ],
    ids=["large", "very large", "negative", "-9999 among negatives", "all -9999", "all extreme", "9999", "-9998"],
)
def test_measured_values_are_never_replaced(tmp_path: Path, pixels: NDArray[np.float32]) -> None:
    """What may be a measurement is one."""
    np.testing.assert_array_equal(read(tmp_path, pixels), pixels)


def test_doubles_of_many_values_beyond_single_precision_are_still_refused(tmp_path: Path) -> None:
    """They are an image of another unit, and no gap."""
    with pytest.raises(ImageError, match="single precision"):
        read(tmp_path, np.where(FIELD > 0.5, FIELD.astype(np.float64) * 1e300, 0))


@pytest.mark.parametrize("value", [-9999.0, 3e38, np.nan])
def test_windows_are_parts_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """What counts as missing is decided by the plane, band by band, and never by a window."""
    monkeypatch.setattr(images, "_BAND_PIXELS", 53 * 5)
    for other in (0.0, -5.0):
        pixels, _ = with_gap(value)
        pixels[36, 52] = other
        tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(16, 16))
        whole = read_image(tmp_path / "a.tif", max_pixels=10**6)
        source = open_file(tmp_path / "a.tif", max_pixels=10**6)
        for rows, columns in ((slice(0, 23), slice(3, 41)), (slice(2, 5), slice(0, 7)), (slice(30, 37), slice(40, 53))):
            np.testing.assert_array_equal(source.read(0, 0, rows, columns), whole[rows, columns])
        assert (value == -9999.0 and other < 0) == bool((whole == -9999).any())


def test_fillings_are_known_without_the_rest_of_the_plane() -> None:
    """In pieces of an array that nobody reads as a whole."""
    values = np.array([1e30, -1e30, np.finfo(np.float32).max, np.nan, np.inf, 2e30, 0, -9999], np.float32)
    assert is_filling(values).tolist() == [True] * 5 + [False] * 3
    assert not is_filling(np.array([65504, -9999], np.float16)).any()


def test_a_signalling_nan_is_filled_without_a_warning(tmp_path: Path) -> None:
    """Damaged files hold any bits; numpy warns when it converts this one, and warnings are errors here."""
    pixels, right = with_gap(np.nan)
    pixels[:20, :20].view(np.uint32)[...] = 0x7F800001
    np.testing.assert_array_equal(read(tmp_path, pixels), right)
