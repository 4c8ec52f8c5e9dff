from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import read_header, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (23, 37)).astype(np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (23, 37, 3)).astype(np.uint8)


def read(path: Path) -> np.ndarray:
    pixels = read_image(path, max_pixels=10**6)
    header = read_header(path, max_pixels=10**6)
    assert pixels.shape[:2] == (header.height, header.width), "header and pixels must agree on the shape"
    assert (pixels.shape[2] if pixels.ndim == 3 else 1) == header.channels
    assert pixels.dtype == header.dtype
    return pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_reads_as_stored(tmp_path: Path, dtype: type) -> None:
    """Eight and sixteen bits, no scaling."""
    stored = PIXELS.astype(dtype) * dtype(1 if dtype is np.uint8 else 257)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(stored))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), stored)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"])
def test_a_tiff_reads_as_stored_in_any_real_type(tmp_path: Path, dtype: str) -> None:
    """Negative and large values must not wrap."""
    stored = (PIXELS.astype(np.int64) - (100 if dtype.startswith("int") else 0)).clip(-100, 127).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored)
    found = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, stored)
    assert found.dtype == dtype


def test_double_precision_becomes_single(tmp_path: Path) -> None:
    """No microscope needs doubles, and devices do not want them."""
    tifffile.imwrite(tmp_path / "a.tif", PIXELS.astype(np.float64) / 3)
    found = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, (PIXELS / 3).astype(np.float32))


def test_colour_keeps_three_channels_and_drops_alpha(tmp_path: Path) -> None:
    """Alpha is no stain."""
    rgba = np.dstack([COLOUR, PIXELS])
    (tmp_path / "rgb.png").write_bytes(imagecodecs.png_encode(COLOUR))
    (tmp_path / "rgba.png").write_bytes(imagecodecs.png_encode(rgba))
    tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "planar.tif", np.moveaxis(COLOUR, 2, 0), photometric="rgb", planarconfig="separate")
    for name in ("rgb.png", "rgba.png", "rgba.tif", "planar.tif"):
        np.testing.assert_array_equal(read(tmp_path / name), COLOUR, err_msg=name)


def test_grey_with_alpha_is_grey(tmp_path: Path) -> None:
    """As exported by some figure software."""
    Image.fromarray(np.dstack([PIXELS, PIXELS[::-1]]), mode="LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read(tmp_path / "la.png"), PIXELS)


def test_palette_images_give_colours_never_indices(tmp_path: Path) -> None:
    """An index is not an intensity."""
    image = Image.fromarray(COLOUR).quantize(16)
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read(tmp_path / "p.png"), np.asarray(image.convert("RGB")))
    lut = np.random.default_rng(3).integers(0, 2**16, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", PIXELS, photometric="palette", colormap=lut)
    np.testing.assert_array_equal(read(tmp_path / "p.tif"), np.moveaxis(lut[:, PIXELS], 0, -1))


def test_a_look_up_table_that_only_tints_leaves_intensities(tmp_path: Path) -> None:
    """ImageJ stores a blue DAPI image as a palette; the pixels are the measurement."""
    ramp = np.zeros((3, 256), np.uint16)
    ramp[2] = np.arange(256) * 257
    tifffile.imwrite(tmp_path / "blue.tif", PIXELS, photometric="palette", colormap=ramp)
    np.testing.assert_array_equal(read(tmp_path / "blue.tif"), PIXELS)


def test_one_bit_images_become_black_and_white(tmp_path: Path) -> None:
    """Masks are often stored so; as PNG and as TIFF they must read alike."""
    bits = PIXELS > 128
    Image.fromarray(bits).save(tmp_path / "b.png")
    tifffile.imwrite(tmp_path / "b.tif", bits)
    expected = bits * np.uint8(255)
    np.testing.assert_array_equal(read(tmp_path / "b.png") > 0, bits)
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), expected)


def test_a_tiff_where_white_is_zero_is_inverted(tmp_path: Path) -> None:
    """Else nuclei would be dark in some files of a folder and bright in others."""
    tifffile.imwrite(tmp_path / "w.tif", PIXELS, photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "w.tif"), 255 - PIXELS)


def test_white_is_zero_is_inverted_within_the_bits_that_are_used(shared: Path) -> None:
    """In two bits white is 3, not 255: real files of two and four bits, and their inverted twins."""
    folder = shared / "formats" / "pillow_tiff"
    for bits in (2, 4):
        plain, inverted = (next(folder.rglob(f"hopper{bits}{letter}.tif")) for letter in ("", "I"))
        np.testing.assert_array_equal(read(plain), read(inverted))
        assert read(plain).max() <= 2**bits - 1


def test_pixels_that_are_not_finite_take_the_lowest_finite_value(tmp_path: Path) -> None:
    """Stitching leaves NaN where nothing was imaged; that is background."""
    stored = PIXELS.astype(np.float32) + 5
    stored[3, 4], stored[5, 6], stored[7, 8] = np.nan, np.inf, -np.inf
    tifffile.imwrite(tmp_path / "n.tif", stored)
    found = read(tmp_path / "n.tif")
    lowest = stored[np.isfinite(stored)].min()
    assert [found[3, 4], found[5, 6], found[7, 8]] == [lowest] * 3
    assert found[0, 0] == stored[0, 0]


def png_claiming(height: int, width: int) -> bytes:
    """A PNG whose header claims a shape that its few bytes do not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def bad_files() -> dict[str, tuple[str, bytes]]:
    png = imagecodecs.png_encode(PIXELS)
    jpeg = imagecodecs.jpeg8_encode(COLOUR)
    return {
        "empty": ("a.png", b""),
        "text": ("a.png", b"not an image at all"),
        "html as tiff": ("a.tif", b"<html>404</html>"),
        "png cut in half": ("a.png", png[: len(png) // 2]),
        "png cut at 95 %": ("a.png", png[: len(png) * 95 // 100]),
        "jpeg cut in half": ("a.jpg", jpeg[: len(jpeg) // 2]),
        "png that claims 300 000 pixels a side": ("a.png", png_claiming(300_000, 300_000)),
        "png with a flipped bit": ("a.png", png[:80] + bytes([png[80] ^ 4]) + png[81:]),
    }


@pytest.mark.parametrize("what", bad_files())
def test_a_damaged_file_is_refused_with_one_line(tmp_path: Path, what: str) -> None:
    """Never a crash, never pixels that were not there."""
    name, content = bad_files()[what]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / name, max_pixels=10**8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
@pytest.mark.parametrize("percent", [50, 95])
def test_a_truncated_tiff_is_refused(tmp_path: Path, compression: str | None, percent: int) -> None:
    """A copy that was interrupted must not become a half-empty image."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.random.default_rng(2).integers(0, 9, (200, 201)).astype(np.uint16), compression=compression
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * percent // 100])
    with pytest.raises(ImageError):
        read_image(path, max_pixels=10**6)


def test_the_kind_of_a_file_is_told_by_its_content(tmp_path: Path) -> None:
    """Converters often forget the suffix; a PNG called .jpg is still a picture."""
    (tmp_path / "a.jpg").write_bytes(imagecodecs.png_encode(PIXELS))
    tifffile.imwrite(tmp_path / "b.tif", PIXELS)
    (tmp_path / "b.tif").rename(tmp_path / "b.png")
    for name in ("a.jpg", "b.png"):
        np.testing.assert_array_equal(read(tmp_path / name), PIXELS)


def test_a_header_counts_the_bytes_of_deep_colour(tmp_path: Path) -> None:
    """Sixteen bits and three channels are six bytes a pixel; memory is planned by it."""
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(COLOUR.astype(np.uint16) * 257))
    assert read_header(tmp_path / "a.png", max_pixels=10**6).bytes == 23 * 37 * 6


def test_a_stack_is_refused_by_its_axes_never_read_in_part(tmp_path: Path) -> None:
    """Page 0 alone would look like success."""
    tifffile.imwrite(tmp_path / "zyx.tif", np.zeros((5, 23, 37), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(ImageError, match="Z=5"):
        read_header(tmp_path / "zyx.tif", max_pixels=10**6)


def test_channels_that_are_not_rgb_are_refused_never_dropped(tmp_path: Path) -> None:
    """The dropped one might have been DAPI."""
    two, four = np.stack([PIXELS, PIXELS], axis=-1), np.stack([PIXELS] * 4, axis=-1)
    tifffile.imwrite(tmp_path / "2.tif", two, photometric="minisblack", planarconfig="contig", extrasamples=[0])
    tifffile.imwrite(tmp_path / "4.tif", four, photometric="minisblack", planarconfig="contig", extrasamples=[0, 0, 0])
    for name in ("2.tif", "4.tif"):
        with pytest.raises(ImageError, match="channels that are not RGB"):
            read_header(tmp_path / name, max_pixels=10**6)


def test_doubles_beyond_single_precision_are_refused(tmp_path: Path) -> None:
    """As infinities they would have become the darkest pixels."""
    tifffile.imwrite(tmp_path / "a.tif", PIXELS.astype(np.float64) * 1e300)
    with pytest.raises(ImageError, match="single precision"):
        read_image(tmp_path / "a.tif", max_pixels=10**6)


def test_complex_and_cmyk_are_refused(tmp_path: Path) -> None:
    """There is no one right grey value in them."""
    tifffile.imwrite(tmp_path / "c.tif", PIXELS.astype(np.complex64))
    Image.fromarray(np.dstack([COLOUR, PIXELS]), mode="CMYK").save(tmp_path / "c.jpg")
    for name, word in (("c.tif", "complex64"), ("c.jpg", "CMYK")):
        with pytest.raises(ImageError, match=word):
            read_header(tmp_path / name, max_pixels=10**6)


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """The header is enough to know; --max-pixels is named so that the user can raise it."""
    (tmp_path / "a.png").write_bytes(png_claiming(2001, 1009))
    with pytest.raises(ImageError, match="--max-pixels"):
        read_header(tmp_path / "a.png", max_pixels=2000 * 1009)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    """A few hundred bytes must not take hundreds of megabytes."""
    (tmp_path / "a.png").write_bytes(png_claiming(9000, 9000))
    with pytest.raises(ImageError, match="bomb"):
        read_header(tmp_path / "a.png", max_pixels=10**9)


def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    """Opening a pipe for reading waits for ever."""
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="regular file"):
        read_header(tmp_path / "a.tif", max_pixels=10**6)


def test_single_tiffs_of_many_origins_read_to_their_listed_shape(shared: Path) -> None:
    """Real files from microscopes and image libraries; what is refused is refused in words."""
    import csv

    with open(shared / "formats" / "tiff_manifest.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seen = 0
    for row in rows:
        if row["read_with_tifffile"] != "ok" or row["axes"] != "YX" or row["series"] != "1":
            continue
        try:
            pixels = read_image(shared / "formats" / row["path"], max_pixels=10**8)
        except ImageError:
            continue
        seen += 1
        shape = pixels.shape[:2] if row["photometric"] == "PALETTE" else pixels.shape
        assert str(shape) == row["shape"], row["path"]
        if row["photometric"] == "MINISBLACK" and row["dtype"] != "bool" and pixels.dtype.kind in "ui":
            assert (str(pixels.min()), str(pixels.max())) == (row["min"], row["max"]), row["path"]
    assert seen > 50
