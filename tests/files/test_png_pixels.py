"""PNG files whose rows were filtered in every way, beside two general decoders."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.files.png_pixels import png_pixels


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def filtered(pixels: NDArray[np.generic], filters: Iterable[int]) -> bytes:
    """Grey pixels as rows with these filters, from the definition: stored = byte - prediction."""
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(len(pixels), -1).astype(int)
    step = pixels.itemsize
    above = np.zeros(rows.shape[1], int)
    stored = []
    for row, kind in zip(rows, filters, strict=True):
        a, c = (np.concatenate([np.zeros(step, int), line])[: row.size] for line in (row, above))
        b = above
        nearest = np.argmin([abs(b - c), abs(a - c), abs(a + b - 2 * c)], axis=0)  # the first one of equal ones
        predicted = (0 * a, a, b, (a + b) // 2, np.choose(nearest, [a, b, c]))[kind % 5]
        stored.append(bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes())
        above = row
    return b"".join(stored)


def png(pixels: NDArray[np.generic], stored: bytes, pieces: int = 1) -> bytes:
    """A grey PNG of rows that are filtered already, compressed and in that many parts."""
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8 * pixels.itemsize, 0, 0, 0, 0)
    packed = zlib.compress(stored)
    step = -(-len(packed) // pieces)
    parts = b"".join(chunk(b"IDAT", packed[i : i + step]) for i in range(0, len(packed), step))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + parts + chunk(b"IEND", b"")


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("shape", [(37, 23), (11, 1), (1, 13), (2, 2)])
@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, "mixed"])
def test_grey_rows_of_every_filter_are_what_general_decoders_see(
    dtype: str, shape: tuple[int, int], kind: int | str
) -> None:
    """Alone and mixed, the first row and the first column too, which have no neighbours."""
    random = np.random.default_rng(7)
    pixels = random.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    filters = random.permutation(np.arange(shape[0]) % 5) if kind == "mixed" else [int(kind)] * shape[0]
    content = png(pixels, filtered(pixels, filters), pieces=3)
    np.testing.assert_array_equal(imagecodecs.png_decode(content), pixels)
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)
    found = png_pixels(content)
    assert (found.dtype, found.flags.c_contiguous) == (np.dtype(dtype), True)
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}])
def test_pixels_of_every_kind_are_what_a_general_decoder_sees(mode: str, options: dict[str, bool]) -> None:
    """Those that are decoded here, and those that are handed on."""
    values = np.random.default_rng(1).integers(0, 2**16, (29, 31), dtype=np.uint16)
    eight = Image.fromarray((values >> 8).astype(np.uint8))
    picture = Image.fromarray(values) if mode == "I;16" else eight.convert(mode)
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    expected = imagecodecs.png_decode(file.getvalue())
    found = png_pixels(file.getvalue())
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("place", [26, 27])
def test_methods_that_there_are_not_are_left_to_the_general_decoder(place: int) -> None:
    """Of compression and of filters the format has one each; and one header."""
    pixels = np.random.default_rng(3).integers(0, 256, (17, 19)).astype(np.uint8)
    whole = png(pixels, filtered(pixels, [0] * 17))
    head = bytearray(whole[16:29])
    twice = whole[:33] + chunk(b"IHDR", bytes(head)) + whole[33:]
    head[place - 16] = 1
    refused = imagecodecs.PngError, UnicodeDecodeError  # of its message, which it cannot always read
    for content in (whole[:8] + chunk(b"IHDR", bytes(head)) + whole[33:], twice):
        with pytest.raises(refused):
            imagecodecs.png_decode(content)
        with pytest.raises(refused):
            png_pixels(content)


@pytest.mark.parametrize("damage", ["unknown filter", "too short", "too long", "checksum", "no stream"])
def test_rows_that_cannot_be_right_are_refused(damage: str) -> None:
    """By the general decoder's judgement: none of them becomes a picture with wrong rows."""
    pixels = np.random.default_rng(3).integers(0, 256, (17, 19)).astype(np.uint8)
    stored = filtered(pixels, [0, 1, 2, 3, 4, 5 if damage == "unknown filter" else 0] + [2] * 11)
    stored = stored[:-25] if damage == "too short" else stored
    packed = zlib.compress(stored + (b"\0" * 20 if damage == "too long" else b""))
    packed = packed[:-4] + bytes(4) if damage == "checksum" else packed
    packed = b"nothing that was compressed" if damage == "no stream" else packed
    whole = png(pixels, stored)
    content = whole[:33] + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    try:
        expected = imagecodecs.png_decode(content)
    except Exception as error:
        with pytest.raises(type(error)):
            png_pixels(content)
    else:
        assert damage == "too long"  # which decoders allow
        np.testing.assert_array_equal(png_pixels(content), expected)
