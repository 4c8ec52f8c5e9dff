"""Damaged PNGs: refused before the decoder sees them, which costs the process something each time."""

from __future__ import annotations

import gc
import struct
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (31, 23)).astype(np.uint8)
GOOD = bytes(imagecodecs.png_encode(PIXELS))


def read(path: Path, content: bytes) -> np.ndarray:
    path.write_bytes(content)
    return read_image(path, max_pixels=10**6)


def part(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def flipped(place: int) -> bytes:
    return GOOD[:place] + bytes([GOOD[place] ^ 0x10]) + GOOD[place + 1 :]


def test_a_cut_png_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    """Also where only its end is missing, of which no pixel depends."""
    for length in range(len(GOOD)):
        with pytest.raises(ImageError, match=r"\A[^\n]+\Z"):
            read(tmp_path / "a.png", GOOD[:length])


def test_a_flipped_bit_anywhere_is_refused(tmp_path: Path) -> None:
    """Every byte of this file has a checksum, or is one."""
    for place in range(len(GOOD)):
        with pytest.raises(ImageError, match=r"\A[^\n]+\Z"):
            read(tmp_path / "a.png", flipped(place))


def test_parts_that_pixels_do_not_need_may_be_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong checksum of a comment costs no image, as in any viewer, and no line on the screen."""
    commented = GOOD[:33] + part(b"tEXt", b"Comment\0x", checksum=7) + GOOD[33:] + b"more"
    np.testing.assert_array_equal(read(tmp_path / "a.png", commented), PIXELS)
    assert caplog.messages == []


def test_thousands_of_damaged_pngs_do_not_wear_the_process_out(tmp_path: Path) -> None:
    """The decoder takes a reference to None away with each, and without any the process would end."""
    damaged = [GOOD[: len(GOOD) * percent // 100] for percent in (20, 50, 80, 95)]
    damaged += [flipped(place) for place in (len(GOOD) // 2, len(GOOD) - 14)]
    gc.collect()
    before = sys.getrefcount(None)
    for number in range(300):
        with pytest.raises(ImageError):
            read(tmp_path / "a.png", damaged[number % len(damaged)])
    gc.collect()
    assert sys.getrefcount(None) > before - 100
