"""Rows 20 to 31 of the fault matrix, from folder to pixels: what is odd reads right, and what is bad costs itself only.

Single readers have tests of their own; those of names and links are with `discover`.
"""

from __future__ import annotations

import os
import resource
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.find.channel_files import with_channels
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.header_scan import HeaderScan, scan_headers
from nucseg_batch.files.opened import open_source
from nucseg_batch.plan import ImageInfo
from nucseg_batch.settings import SegmentSettings

GREY = np.random.default_rng(0).integers(0, 256, (203, 307)).astype(np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (203, 307, 3)).astype(np.uint8)
GOOD = "good.png"


def scanned(folder: Path, **options: object) -> HeaderScan:
    settings = SegmentSettings(**options)  # type: ignore[arg-type]
    return scan_headers(with_channels(discover(str(folder)), settings.channel), settings, lambda done: None)


def read_all(folder: Path, **options: object) -> dict[str, np.ndarray | str]:
    """Pixels of the first plane of every image of a folder, or the one line that says why there are none."""
    found = scanned(folder, **options)
    results: dict[str, np.ndarray | str] = {failure.image: failure.message for failure in found.failures}
    for info in found.images:
        try:
            results[info.key] = read(folder, info)
        except ImageError as error:
            results[info.key] = str(error)
    for result in results.values():
        assert not isinstance(result, str) or (result and "\n" not in result)
    return results


def read(folder: Path, info: ImageInfo, t: int = 0, z: int = 0) -> np.ndarray:
    with closing(open_source(folder, info.key, SegmentSettings(), info.files, info.group)) as source:
        return source.read(t, z, slice(0, info.height), slice(0, info.width))


def tiff(path: Path, pixels: np.ndarray = GREY, **options: object) -> bytes:
    tifffile.imwrite(path, pixels, **options)  # type: ignore[arg-type]
    return path.read_bytes()


def png_claiming(height: int, width: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def tiff_claiming(path: Path, height: int, width: int) -> bytes:
    """A TIFF of one small strip whose tags claim another shape."""
    content = bytearray(tiff(path, GREY[:7, :11]))
    with tifffile.TiffFile(path) as file:
        for name, value in (("ImageWidth", width), ("ImageLength", height), ("RowsPerStrip", height)):
            tag = file.pages[0].tags[name]
            content[tag.valueoffset : tag.valueoffset + (2 if tag.dtype == 3 else 4)] = value.to_bytes(
                2 if tag.dtype == 3 else 4, "little"
            )
    return bytes(content)


def flipped(content: bytes, place: float) -> bytes:
    at = int(len(content) * place)
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


def unusable(path: Path) -> dict[str, bytes]:
    """Files that must be refused, by name: damaged, foreign, or claiming more than they hold."""
    png, jpeg = imagecodecs.png_encode(GREY), imagecodecs.jpeg8_encode(COLOUR)
    kinds = {
        "raw": tiff(path),
        "deflate": tiff(path, compression="deflate"),
        "lzw": tiff(path, compression="lzw"),
        "tiled": tiff(path, tile=(64, 64)),
        "tiled_deflate": tiff(path, tile=(64, 64), compression="deflate"),
        "jpeg": tiff(path, compression="jpeg"),
    }
    files = {
        "empty.tif": b"",
        "text.png": b"not an image at all",
        "html.tif": b"<html><body>404 Not Found</body></html>",
        "flipped.png": flipped(png, 0.5),
        "flipped_deflate.tif": flipped(kinds["deflate"], 0.5),
        "flipped_lzw_tag.tif": kinds["lzw"][:4] + b"\xff\xff\xff\x7f" + kinds["lzw"][8:],
        "huge.png": png_claiming(300_000, 300_000),
        "bomb.png": png_claiming(9000, 9000),
        "huge.tif": tiff_claiming(path, 60_000, 60_000),
        "nothing.png": png_claiming(0, 5),
        "complex.tif": tiff(path, GREY.astype(np.complex64)),
        "nan.tif": tiff(path, np.full((5, 7), np.nan, np.float32)),
        "beyond_single.tif": tiff(path, GREY.astype(np.float64) * 1e300),
    }
    for percent in (50, 95):
        files[f"cut_{percent}.png"] = png[: len(png) * percent // 100]
        files[f"cut_{percent}.jpg"] = jpeg[: len(jpeg) * percent // 100]
        files |= {
            f"cut_{percent}_{kind}.tif": content[: len(content) * percent // 100] for kind, content in kinds.items()
        }
    path.unlink()
    return files


def cmyk(path: Path) -> None:
    Image.fromarray(np.dstack([COLOUR, GREY]), mode="CMYK").save(path)


def test_every_bad_file_of_a_folder_costs_itself_only(tmp_path: Path) -> None:
    """Rows 20, 21, 22, 24, 26, 28: a line for each, and the good image among them is read as it is."""
    folder = tmp_path / "in"
    folder.mkdir()
    files = unusable(tmp_path / "scratch.tif")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    cmyk(folder / "cmyk.jpg")
    (folder / GOOD).write_bytes(imagecodecs.png_encode(GREY))
    results = read_all(folder)
    np.testing.assert_array_equal(results.pop(GOOD), GREY)
    assert results.keys() == {*files, "cmyk.jpg"}
    read_anyway = sorted(name for name, result in results.items() if not isinstance(result, str))
    assert read_anyway == [], "these gave pixels that were not there"


def test_what_cannot_be_seen_is_read_as_it_is_stored(tmp_path: Path) -> None:
    """Row 22: without a checksum a changed pixel is a pixel; the README says so."""
    content = tiff(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        start = file.pages[0].dataoffsets[0]
    changed = bytearray(content)
    changed[start + 1000] ^= 0x10
    (tmp_path / "a.tif").write_bytes(changed)
    pixels = read_all(tmp_path)["a.tif"]
    assert np.count_nonzero(pixels != GREY) == 1


@contextmanager
def little_memory(extra: int) -> Iterator[None]:
    """Allows the process so many bytes of address space beyond those it has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_headers_of_what_claims_too_much_are_refused_without_its_memory(tmp_path: Path) -> None:
    """Row 28: refused from the header, within a bound that is far below what is claimed."""
    (tmp_path / "huge.png").write_bytes(png_claiming(300_000, 300_000))
    (tmp_path / "bomb.png").write_bytes(png_claiming(9000, 9000))
    content = tiff_claiming(tmp_path / "huge.tif", 60_000, 60_000)
    (tmp_path / "huge.tif").write_bytes(content)
    group = zarr.open_group(tmp_path / "chunk.zarr", mode="w")
    group.create_array("0", shape=(2**17, 2**17), chunks=(2**17, 2**17), dtype="uint8")
    scanned(tmp_path)  # threads and decoders take address space of their own the first time
    with little_memory(512 * 2**20):
        found = scanned(tmp_path)
    assert found.images == []
    assert {failure.image for failure in found.failures} == {"huge.png", "bomb.png", "huge.tif", "chunk.zarr/0"}


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("rgb.png", lambda path: Image.fromarray(COLOUR).save(path), COLOUR),
        ("rgba.png", lambda path: Image.fromarray(np.dstack([COLOUR, GREY]), mode="RGBA").save(path), COLOUR),
        ("la.png", lambda path: Image.fromarray(np.dstack([GREY, GREY[::-1]]), mode="LA").save(path), GREY),
        ("bit.png", lambda path: Image.fromarray(GREY > 99).save(path), (GREY > 99) * np.uint8(255)),
        ("bit.tif", lambda path: tiff(path, GREY > 99), (GREY > 99) * np.uint8(255)),
        ("white0.tif", lambda path: tiff(path, GREY, photometric="miniswhite"), 255 - GREY),
        ("i8.tif", lambda path: tiff(path, (GREY // 2).astype(np.int8) - 100), (GREY // 2).astype(np.int8) - 100),
        ("u32.tif", lambda path: tiff(path, GREY.astype(np.uint32) << 24), GREY.astype(np.uint32) << 24),
        ("f64.tif", lambda path: tiff(path, GREY / np.float64(3)), (GREY / np.float64(3)).astype(np.float32)),
        ("big_endian.tif", lambda path: tiff(path, GREY.astype(">u2") * 257, byteorder=">"), GREY.astype("u2") * 257),
        ("one.tif", lambda path: tiff(path, GREY[:1, :1]), GREY[:1, :1]),
        ("row.tif", lambda path: tiff(path, GREY[:1]), GREY[:1]),
        ("column.png", lambda path: Image.fromarray(GREY[:, :1]).save(path), GREY[:, :1]),
        ("flat.tif", lambda path: tiff(path, np.full((5, 7), 9, np.uint16)), np.full((5, 7), 9, np.uint16)),
    ],
)
def test_every_mode_reads_by_its_rule(
    tmp_path: Path, name: str, write: Callable[[Path], object], expected: np.ndarray
) -> None:
    """Rows 23, 24, 27: header and pixels agree, and nothing wraps."""
    write(tmp_path / name)
    found = scanned(tmp_path)
    assert found.failures == []
    (info,) = found.images
    pixels = read(tmp_path, info)
    np.testing.assert_array_equal(pixels, expected)
    assert (info.height, info.width) == expected.shape[:2]
    assert (info.channels, info.dtype) == (expected.shape[2] if expected.ndim == 3 else 1, pixels.dtype.name)


def test_rotation_by_exif_is_not_applied(tmp_path: Path) -> None:
    """Row 23: a mask must lie over the pixels as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", exif=exif, quality=95)
    Image.fromarray(COLOUR).save(tmp_path / "b.jpg", quality=95)
    results = read_all(tmp_path)
    np.testing.assert_array_equal(results["a.jpg"], results["b.jpg"])


def test_palettes_give_colours_never_indices(tmp_path: Path) -> None:
    """Row 23."""
    image = Image.fromarray(COLOUR).quantize(16)
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_all(tmp_path)["p.png"], np.asarray(image.convert("RGB")))


def test_pages_are_planes_and_never_left_out(tmp_path: Path) -> None:
    """Row 25: every page of every kind of stack is planned, with the axis that it lies along."""
    stack = np.random.default_rng(2).integers(0, 2**16, (3, 2, 5, 23, 37)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "five.ome.tif",
        stack,
        ome=True,
        metadata={"axes": "TCZYX", "Channel": {"Name": ["GFP", "DAPI"]}},
    )
    tifffile.imwrite(tmp_path / "time.tif", stack[:, 0, 0], imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "pages.tif", stack[:, :, 0].reshape(6, 23, 37))
    images = {info.key: info for info in scanned(tmp_path).images}
    assert {key: (info.axes, info.plane_count) for key, info in images.items()} == {
        "five.ome.tif": ("tz", 15),
        "time.tif": ("t", 3),
        "pages.tif": ("z", 6),
    }
    five = images["five.ome.tif"]
    assert (five.names, five.nuclei) == (("GFP", "DAPI"), 1)
    np.testing.assert_array_equal(read(tmp_path, five, t=2, z=3), stack[2, :, 3])
    np.testing.assert_array_equal(read(tmp_path, images["time.tif"], t=1), stack[1, 0, 0])
    np.testing.assert_array_equal(read(tmp_path, images["pages.tif"], z=3), stack[1, 1, 0])


def test_a_set_of_files_is_one_image(shared: Path) -> None:
    """Row 25: an OME-TIFF of five files is neither five images nor the first file alone."""
    found = scanned(shared / "formats" / "viv" / "sites" / "avivator" / "data", channel="0")
    sets = [info for info in found.images if "multifile" in info.key]
    assert [(info.key, info.axes, info.plane_count) for info in sets] == [("multifile-Z1.ome.tiff", "z", 5)]
    assert found.found.skipped["further file of an OME-TIFF of several files"] == 4


def test_pixels_that_are_no_numbers_are_background(tmp_path: Path) -> None:
    """Row 26: some NaN and infinities take the lowest value, and what remains is as it was."""
    stored = GREY.astype(np.float32) + 5
    stored[3, 4], stored[5, 6], stored[7, 8] = np.nan, np.inf, -np.inf
    tiff(tmp_path / "a.tif", stored)
    pixels = read_all(tmp_path)["a.tif"]
    assert isinstance(pixels, np.ndarray)
    assert [pixels[3, 4], pixels[5, 6], pixels[7, 8]] == [5.0] * 3
    assert np.count_nonzero(pixels != GREY.astype(np.float32) + 5) <= 3


def test_a_list_of_pages_that_runs_in_a_circle_ends(tmp_path: Path) -> None:
    """Row 28: a link back to the first page."""
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY, GREY]))
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first, last = file.pages[0].offset, file.pages[1]
        link = last.offset + 2 + 12 * len(last.tags)
    content[link : link + 4] = first.to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(content)
    assert "circle" in read_all(tmp_path)["a.tif"]


def test_devices_sockets_and_pipes_never_hang(tmp_path: Path) -> None:
    """Row 31: /dev/zero never ends, a pipe never begins; they are passed over in folders and told in lists."""
    (tmp_path / GOOD).write_bytes(imagecodecs.png_encode(GREY))
    os.mkfifo(tmp_path / "pipe.tif")
    os.symlink("/dev/zero", tmp_path / "zero.tif")
    os.symlink(".", tmp_path / "loop")
    (tmp_path / "files.txt").write_text(f"{GOOD}\npipe.tif\nzero.tif\nsocket.tif\n")
    with closing(socket.socket(socket.AF_UNIX)) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # paths of sockets are short
        try:
            server.bind("socket.tif")
        finally:
            os.chdir(here)
        found = discover(str(tmp_path))
        listed = discover(f"@{tmp_path / 'files.txt'}")
    assert [entry.key for entry in found.entries] == [entry.key for entry in listed.entries] == [GOOD]
    assert found.skipped["device, pipe or socket"] == 3
    assert {failure.image for failure in listed.failures} == {"pipe.tif", "zero.tif", "socket.tif"}


def test_a_file_that_vanishes_after_it_was_found_is_a_failure(tmp_path: Path) -> None:
    """Row 16, before reading."""
    (tmp_path / GOOD).write_bytes(imagecodecs.png_encode(GREY))
    (tmp_path / "gone.png").write_bytes(imagecodecs.png_encode(GREY))
    found = discover(str(tmp_path))
    (tmp_path / "gone.png").unlink()
    result = scan_headers(found, SegmentSettings(), lambda done: None)
    assert [info.key for info in result.images] == [GOOD]
    assert [(failure.image, failure.error) for failure in result.failures] == [("gone.png", "FileNotFoundError")]
