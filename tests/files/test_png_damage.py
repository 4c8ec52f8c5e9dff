"""Damaged PNGs: refused before the decoder sees them, which costs the process something each time."""

from __future__ import annotations

import gc
import io
import struct
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("shape", [(31, 23), (301, 257)])
def test_every_kind_of_png_is_read_as_by_the_decoder_alone(tmp_path: Path, mode: str, shape: tuple[int, int]) -> None:
    """Its pixels are unpacked before, in one block or several; the transparent colour stays, and pieces are joined."""
    noise = np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(noise)
    image = image if mode == "I;16" else image.convert(mode)
    image.save(file, "PNG", **({"transparency": 7} if mode in ("L", "P") else {}))
    content = file.getvalue()
    decoded = imagecodecs.png_decode(content)
    expected = decoded[..., 0] if mode in ("L", "LA") else decoded[..., :3] if decoded.ndim == 3 else decoded
    np.testing.assert_array_equal(read(tmp_path / "a.png", content), expected)
    in_pieces = pieces(content, 100)
    assert in_pieces.count(b"IDAT") > content.count(b"IDAT")
    np.testing.assert_array_equal(read(tmp_path / "b.png", in_pieces), expected)


def test_pixels_that_do_not_unpack_are_refused(tmp_path: Path) -> None:
    """Of a file whose checksums are right: too few pixels, and bytes that are not packed."""
    packed = zlib.compress(bytes(24 * 30))
    for wrong in (packed, b"\x78\x01" + bytes(50), b""):
        content = GOOD[:33] + part(b"IDAT", wrong) + part(b"IEND", b"")
        with pytest.raises(ImageError, match=r"\A[^\n]+\Z"):
            read(tmp_path / "a.png", content)


def pieces(content: bytes, length: int) -> bytes:
    """A PNG with its pixels in parts of so many bytes."""
    made, at = content[:8], 8
    while at < len(content):
        kind, end = content[at + 4 : at + 8], at + 12 + int.from_bytes(content[at : at + 4], "big")
        body = content[at + 8 : end - 4]
        step = length if kind == b"IDAT" else max(1, len(body))
        made += b"".join(part(kind, body[i : i + step]) for i in range(0, max(1, len(body)), step))
        at = end
    return made
