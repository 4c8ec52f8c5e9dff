"""BMP, GIF, WebP and JPEG 2000: read as the same pixels in a PNG, refused where they are damaged or too large."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.images import open_file, read_image

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (31, 47)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (31, 47, 3)).astype(np.uint8)
DEEP = RNG.integers(0, 4096, (31, 47)).astype(np.uint16)


def pillow(pixels: NDArray[Any], kind: str, mode: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def jpeg2000(pixels: NDArray[Any], **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, **options))


def opaque(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 77, np.uint8)], axis=2)


EXACT: dict[str, tuple[bytes, NDArray[Any]]] = {
    "grey.bmp": (pillow(GREY, "BMP"), GREY),
    "colour.bmp": (pillow(COLOUR, "BMP"), COLOUR),
    "alpha.bmp": (pillow(opaque(COLOUR), "BMP"), COLOUR),
    "bits.bmp": (pillow(GREY > 99, "BMP"), (GREY > 99) * np.uint8(255)),
    "grey.dib": (pillow(GREY, "BMP"), GREY),
    "grey.gif": (pillow(GREY, "GIF"), GREY),
    "colour.webp": (pillow(COLOUR, "WEBP", lossless=True), COLOUR),
    "alpha.webp": (pillow(opaque(COLOUR), "WEBP", lossless=True, exact=True), COLOUR),
    "grey.webp": (pillow(GREY, "WEBP", lossless=True), np.repeat(GREY[..., None], 3, 2)),
    "grey.jp2": (jpeg2000(GREY), GREY),
    "colour.jp2": (jpeg2000(COLOUR), COLOUR),
    "alpha.jp2": (jpeg2000(opaque(COLOUR)), COLOUR),
    "deep.jp2": (jpeg2000(DEEP, bitspersample=12), DEEP),
    "grey.j2k": (jpeg2000(GREY, codecformat="j2k"), GREY),
}


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def read(path: Path, max_pixels: int = 10**6) -> NDArray[Any]:
    return read_image(path, max_pixels=max_pixels)


@pytest.mark.parametrize("name", EXACT)
def test_pixels_are_those_that_were_stored(tmp_path: Path, name: str) -> None:
    content, pixels = EXACT[name]
    found = read(written(tmp_path, name, content))
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


def test_windows_and_whole_pictures_agree(tmp_path: Path) -> None:
    for name, (content, pixels) in EXACT.items():
        source = open_file(written(tmp_path, name, content), max_pixels=10**6)
        np.testing.assert_array_equal(source.read(0, 0, slice(3, 17), slice(20, 46)), pixels[3:17, 20:46])


def test_they_are_found_in_a_folder(tmp_path: Path) -> None:
    for name, (content, _) in EXACT.items():
        written(tmp_path, name, content)
    assert [entry.key for entry in discover(str(tmp_path)).entries] == sorted(EXACT)


@pytest.mark.parametrize("name", EXACT)
def test_a_cut_file_is_refused_wherever_pixels_are_lost(tmp_path: Path, name: str) -> None:
    """The last bytes of a BMP pad its rows, and that of a GIF says that nothing follows."""
    content, _ = EXACT[name]
    spare = {"bmp": 3, "dib": 3, "gif": 2}.get(name.rsplit(".", 1)[1], 0)
    for length in [*range(0, 80), *range(80, len(content) - spare, 97), len(content) - spare - 1]:
        path = written(tmp_path, name, content[:length])
        with pytest.raises(ImageError, match=r"\A[^\n]+\Z"):
            read(path)


def lying(content: bytes, place: int, form: str, value: int) -> bytes:
    return content[:place] + struct.pack(form, value) + content[place + struct.calcsize(form) :]


SIZ = EXACT["grey.jp2"][0].index(b"\xff\x4f\xff\x51")
HUGE: dict[str, bytes] = {
    "a.bmp": lying(EXACT["grey.bmp"][0], 18, "<i", 2**20),
    "a.gif": lying(EXACT["grey.gif"][0], 6, "<H", 65535),
    "a.webp": lying(EXACT["colour.webp"][0], 21, "<I", 0x0FFFFFFF),
    "a.jp2": lying(EXACT["grey.jp2"][0], SIZ + 8, ">I", 2**31),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_header_that_claims_too_much_is_refused_before_anything_is_decoded(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    for function in ("webp_decode", "jpeg2k_decode"):
        monkeypatch.setattr(imagecodecs, function, decode)
    monkeypatch.setattr(Image.Image, "load", decode)
    with pytest.raises(ImageError, match=r"more than the 1000000 allowed"):
        open_file(written(tmp_path, name, HUGE[name]), max_pixels=10**6)


def frames(kind: str) -> bytes:
    file = io.BytesIO()
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    first.save(file, kind, save_all=True, append_images=[second], duration=100)
    return file.getvalue()


@pytest.mark.parametrize(("name", "content"), [("a.gif", frames("GIF")), ("a.webp", frames("WEBP"))])
def test_animations_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(ImageError, match="animation"):
        open_file(written(tmp_path, name, content), max_pixels=10**6)


SIGNED = lying(EXACT["grey.jp2"][0], SIZ + 42, ">B", 0x87)
SUBSAMPLED = lying(jpeg2000(COLOUR), jpeg2000(COLOUR).index(b"\xff\x4f\xff\x51") + 46, ">B", 2)
YCC = jpeg2000(COLOUR).replace(b"colr\1\0\0\0\0\0\x10", b"colr\1\0\0\0\0\0\x12")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (SIGNED, "signed numbers of 8 bits"),
        (SUBSAMPLED, "differ in size"),
        (YCC, "YCC"),
        (lying(EXACT["grey.jp2"][0], SIZ + 40, ">H", 7), "7 channels"),
        (lying(EXACT["grey.jp2"][0], 12, ">I", 2**30), "longer than the file"),
    ],
)
def test_jpeg_2000_of_other_kinds_is_refused_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        open_file(written(tmp_path, "a.jp2", content), max_pixels=10**6)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.bmp", b"hello, I am no picture", "not a readable image"),
        ("x.tif", b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        ("x.png", b"\x93NUMPY\1\0" + bytes(99), "NumPy"),
        ("x.png", b"PK\3\4" + bytes(99), "zip archive"),
        ("x.jpg", b"<!DOCTYPE html><html>", "web page"),
        ("x.tif", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        ("x.bmp", b"BM" + bytes(99), "header is damaged"),
        ("x.webp", b"RIFF\x20\0\0\0WEBPVP9 " + bytes(32), "header is damaged"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        open_file(written(tmp_path, name, content), max_pixels=10**6)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def indexed(kind: str, table: list[tuple[int, int, int]], **options: Any) -> Callable[[], bytes]:
    def content() -> bytes:
        numbers = (GREY.astype(int) % len(table)).astype(np.uint8)
        picture = Image.frombytes("P", (GREY.shape[1], GREY.shape[0]), numbers.tobytes())
        picture.putpalette([value for colour in table for value in colour])
        file = io.BytesIO()
        picture.save(file, kind, **options)
        return file.getvalue()

    return content


BLUES = [(0, 0, number) for number in range(256)]
GAMMA = [(0, round(255 * (number / 255) ** 0.5), 0) for number in range(256)]
SORTED_BLUES = [(0, 0, number) for number in range(0, 250, 5)]
MIXED = [(number, 255 - number, number // 2) for number in range(256)]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize(
    ("table", "intensities"), [(BLUES, True), (GAMMA, True), (SORTED_BLUES, False), (MIXED, False)]
)
def test_palettes_mean_the_same_in_every_format(
    tmp_path: Path, kind: str, table: list[tuple[int, int, int]], intensities: bool
) -> None:
    """A full ramp tints intensities; fewer colours than numbers are those of one picture."""
    name = f"a.{kind.lower()}"
    source = open_file(written(tmp_path, name, indexed(kind, table)()), max_pixels=10**6)
    numbers = GREY.astype(int) % len(table)
    found = source.read(0, 0, slice(0, 31), slice(0, 47))
    if intensities:
        np.testing.assert_array_equal(found, numbers)
        (assumed,) = source.header.assumptions
        assert (assumed.kind, assumed.doubtful) == ("colour", False)
    else:
        expected = np.array(table, np.uint16)[numbers]
        found = found >> 8 if kind == "TIFF" else found
        np.testing.assert_array_equal(found, expected)
        assert source.header.assumptions == ()


def test_a_palette_of_greys_needs_no_words(tmp_path: Path) -> None:
    table = [(number,) * 3 for number in range(256)]
    source = open_file(written(tmp_path, "a.png", indexed("PNG", table)()), max_pixels=10**6)
    assert (source.header.axes, source.header.assumptions) == ("YX", ())
    np.testing.assert_array_equal(source.read(0, 0, slice(0, 31), slice(0, 47)), GREY)


def test_a_palette_behind_long_texts_is_found(tmp_path: Path) -> None:
    """The palette lies beyond the bytes that are read to tell the kind of a file."""
    content = indexed("PNG", BLUES)()
    text = b"Comment\0" + b"x" * 3000
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + bytes(4)
    path = written(tmp_path, "a.png", content[:33] + chunk + content[33:])
    np.testing.assert_array_equal(read(path), GREY)
