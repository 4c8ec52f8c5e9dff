"""Damaged, cut and hostile TIFFs: refused in one line, or read as they were before; never in part, never for long."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import open_file, read_image

RNG = np.random.default_rng(0)
STACK = RNG.integers(1, 60000, (2, 3, 2, 31, 23)).astype(np.uint16)
PAGES = STACK[:, :, 0].reshape(6, 31, 23)
COLOURS = RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)
Write = Callable[[Path], None]


def pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(COLOURS, subifds=1, tile=(32, 32), photometric="rgb", compression="zlib")
        writer.write(COLOURS[::2, ::2], tile=(32, 32), subfiletype=1, photometric="rgb", compression="zlib")


def writing(pixels: np.ndarray, **options: Any) -> Write:
    options.setdefault("photometric", "minisblack")
    return lambda path: tifffile.imwrite(path, pixels, **options)


KINDS: dict[str, Write] = {
    "a.ome.tif": writing(STACK, metadata={"axes": "TZCYX"}, compression="zlib"),
    "raw.ome.tif": writing(STACK, metadata={"axes": "TZCYX"}),
    "ij.tif": writing(STACK, imagej=True, metadata={"axes": "TZCYX"}),
    "ij-deflated.tif": writing(STACK, imagej=True, metadata={"axes": "TZCYX"}, compression="zlib"),
    "shaped.tif": writing(PAGES),
    "plain.tif": writing(PAGES, metadata=None, compression="lzw"),
    "big.tif": writing(PAGES, bigtiff=True, tile=(16, 16)),
    "jpeg.tif": writing(COLOURS, photometric="rgb", compression="jpeg", tile=(32, 32), metadata=None),
    "pyramid.tif": pyramid,
}


def read(path: Path) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """Shape and planes of the whole file."""
    source = open_file(path, max_pixels=10**6)
    header = source.header
    sides = slice(0, header.length("Y")), slice(0, header.length("X"))
    times, depths = range(min(header.length("T"), 9)), range(min(header.length("Z"), 99))
    return header.shape, [source.read(t, z, *sides) for t in times for z in depths]


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_was_cut_is_refused_wherever_it_was_cut(tmp_path: Path, name: str) -> None:
    """At half, at 95 %, and anywhere else: a stack must not come out shorter, a plane not half empty."""
    path = tmp_path / name
    KINDS[name](path)
    content = path.read_bytes()
    shape, planes = read(path)
    lengths = {len(content) // 2, len(content) * 95 // 100, *range(9, len(content), max(1, len(content) // 60))}
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        try:
            found = read(path)
        except ImageError as error:
            reason = str(error)
        else:
            reason = ""
            assert found[0] == shape, f"{length} of {len(content)} bytes read as another image"
            np.testing.assert_array_equal(found[1], planes)  # only padding was cut
        assert "\n" not in reason


@pytest.mark.parametrize("name", KINDS)
def test_flipped_bits_end_in_pixels_or_in_a_reason(tmp_path: Path, name: str) -> None:
    """No other exception, no hang, no memory without end; but a flip in uncompressed pixels cannot be noticed."""
    path = tmp_path / name
    KINDS[name](path)
    content = path.read_bytes()
    chance = random.Random(name)
    for _ in range(70):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 3))):
            place = chance.randrange(min(len(content), chance.choice((400, len(content)))))
            damaged[place] = chance.choice((0, 1, 255, damaged[place] ^ 1 << chance.randrange(8)))
        path.write_bytes(damaged)
        try:
            read(path)
        except ImageError as error:
            reason = str(error)
        else:
            reason = ""
        assert "\n" not in reason


def tiff(*pages: dict[int, tuple[int, ...]], tail: bytes = bytes(4096), last: int = 0) -> bytes:
    """A little TIFF of LONG tags, whose pixels lie in the `tail`; `last` is where the last page says a next one is."""
    at, parts = 8, [b"II*\0" + struct.pack("<I", 8)]
    for number, tags in enumerate(pages):
        end = at + 2 + 12 * len(tags) + 4
        extra, entries = b"", []
        for tag, values in sorted(tags.items()):
            where = values[0] if len(values) == 1 else end + len(extra)
            entries.append(struct.pack("<HHII", tag, 4, len(values), where))
            extra += b"" if len(values) == 1 else struct.pack(f"<{len(values)}I", *values)
        following = last if number == len(pages) - 1 else end + len(extra)
        parts.append(struct.pack("<H", len(tags)) + b"".join(entries) + struct.pack("<I", following) + extra)
        at = end + len(extra)
    return b"".join(parts) + tail


def page(height: int, width: int, **more: int | tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    """Tags of a grey page of one strip that begins at byte 600."""
    tags: dict[int, Any] = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 600, 277: 1, 278: height, 279: 900}
    tags |= {int(name[1:]): value for name, value in more.items()}
    return {tag: value if isinstance(value, tuple) else (value,) for tag, value in tags.items() if value != ()}


HOSTILE: dict[str, tuple[bytes, str]] = {
    "300 000 pixels a side": (tiff(page(300_000, 300_000)), "bomb"),
    "300 000 a side, compressed": (tiff(page(300_000, 300_000, t259=8)), "--max-pixels"),
    "2**32 - 1 a side": (tiff(page(2**32 - 1, 2**32 - 1, t259=8)), "--max-pixels|cannot be decoded"),
    "2**31 a side in tiles": (tiff(page(2**31, 2**31, t322=16, t323=16, t324=600, t325=256)), "lists 1 of"),
    "one tile larger than memory": (
        tiff(page(9, 9, t259=8, t322=2**20, t323=2**20, t324=600, t325=900)),
        "--max-pixels|cannot be decoded",
    ),
    "a tile of no width": (tiff(page(9, 9, t322=0, t323=16, t324=600, t325=81)), "cannot be|damaged|lists"),
    "no rows": (tiff(page(0, 9)), "no pixels|cannot be"),
    "no rows in a strip": (tiff(page(9, 9, t278=0)), "cannot be|damaged|lists"),
    "65 535 samples": (tiff(page(9, 9, t277=65535)), "samples|damaged|cannot be decoded"),
    "samples of 3 bits of text": (tiff(page(9, 9, t258=3, t339=9)), "cannot be|damaged"),
    "page after itself": (tiff(page(30, 30), last=8), "circle after 1"),
    "page before the first": (tiff(page(30, 30), page(30, 30), last=8), "circle after 2"),
    "next page beyond the end": (tiff(page(30, 30), last=10**6), "page 1 lies beyond"),
    "next page in the pixels": (tiff(page(30, 30), last=900), "page 1 of the TIFF has 0 tags"),
    "pages that overlap": (tiff(page(30, 30), last=20, tail=bytes(900)), "tags|overlap|beyond"),
    "strip beyond the end": (tiff(page(30, 30, t273=5000)), "truncated"),
    "strip that ends beyond the end": (tiff(page(30, 30, t273=4000)), "truncated|shorter"),
    "strip at 0": (tiff(page(30, 30, t273=0)), "offset 0"),
    "strip of no bytes": (tiff(page(30, 30, t279=0)), "offset 0"),
    "strip of too few bytes": (tiff(page(30, 30, t279=899)), "shorter than its rows"),
    "strip of too many": (tiff(page(30, 30, t279=1800)), "1800 bytes for pixels that take 900"),
    "no strips": (tiff(page(30, 30, t273=(), t279=())), "lists 0 of"),
    "many pages below a page": (tiff(page(30, 30, t330=(8,) * 5000), tail=bytes(9000)), "5000 pages below it"),
    "a page below itself": (tiff(page(30, 30, t330=8)), "below itself"),
    "palette without colours": (tiff(page(30, 30, t262=3)), "palette that is missing"),
    "palette of too few": (tiff(page(30, 30, t262=3, t320=(9, 8, 7))), "palette"),
    "colours nobody knows": (tiff(page(30, 30, t262=77)), "colours of kind"),
    "compression nobody knows": (tiff(page(30, 30, t259=77)), "cannot be decoded"),
    "tags without end": (b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(999), "65535 tags"),
    "no page": (b"II*\0" + bytes(99), "no image"),
    "a big TIFF of 12 bytes": (b"II+\0\x08\0\0\0" + bytes(4), "cut"),
    "a big TIFF with a page beyond 2**63": (b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(99), "beyond the end"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_header_costs_nothing_and_gets_one_line(tmp_path: Path, what: str) -> None:
    """What it claims is held against the file's size before memory is taken for it."""
    content, word = HOSTILE[what]
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ImageError, match=word) as caught:
        read(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)


def test_the_little_writer_of_these_tests_writes_tiffs(tmp_path: Path) -> None:
    """Else all of the above would be refused for another reason."""
    pixels = bytes(range(256)) * 16
    (tmp_path / "a.tif").write_bytes(tiff(*[page(30, 30)] * 6, tail=pixels))
    shape, planes = read(tmp_path / "a.tif")
    assert shape == (6, 30, 30)
    assert len(np.unique(planes[0])) == 256


def test_a_bomb_in_a_strip_is_refused_and_empty_glass_is_not(tmp_path: Path) -> None:
    """A strip is decoded at once; the tiles of a slide are not, and those without tissue take a few bytes each."""
    empty = np.zeros((9000, 9000), np.uint8)
    tifffile.imwrite(tmp_path / "strip.tif", empty, compression="zstd", rowsperstrip=9000)
    tifffile.imwrite(tmp_path / "tiles.tif", empty, compression="zstd", tile=(1024, 1024))
    with pytest.raises(ImageError, match="bomb"):
        open_file(tmp_path / "strip.tif", max_pixels=10**8)
    assert not open_file(tmp_path / "tiles.tif", max_pixels=10**8).read(0, 0, slice(0, 50), slice(0, 50)).any()


def test_a_jpeg_tile_that_claims_another_size_is_refused(tmp_path: Path) -> None:
    """Its decoder would take the memory that it claims."""
    path = tmp_path / "a.tif"
    KINDS["jpeg.tif"](path)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        start = file.pages.first.dataoffsets[0]
    frame = content.index(b"\xff\xc0", start)
    content[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="65000 x 65000 is in a tile of 32 x 32"):
        read(path)


def test_a_jpeg_tile_without_an_end_is_refused(tmp_path: Path) -> None:
    """Its decoder would fill it up with grey and say nothing."""
    path = tmp_path / "a.tif"
    KINDS["jpeg.tif"](path)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        end = file.pages.first.dataoffsets[0] + file.pages.first.databytecounts[0]
    content[end - 400 : end] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="no end"):
        read(path)


def test_pages_of_one_stack_that_differ_are_refused(tmp_path: Path) -> None:
    """A stack is told from its first pages; one that differs later must not be read as they are."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for number in range(12):
            side = (31, 23) if number != 9 else (23, 31)
            writer.write(np.zeros(side, np.uint8), metadata=None, contiguous=False)
    with pytest.raises(ImageError, match=r"differ|incompatible|fit|separate images"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize(("old", "new"), [(b"slices=3", b"slices=2"), (b"channels=2", b"channels=1")])
def test_imagej_axes_that_leave_planes_over_are_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    """A description that was edited, or damaged."""
    KINDS["ij.tif"](tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content.replace(old, new))
    with pytest.raises(ImageError, match="ImageJ description"):
        read(tmp_path / "a.tif")


def test_a_palette_of_another_type_is_damage(tmp_path: Path) -> None:
    """Colours are 16-bit numbers; read as floats they are any values, and none of them a colour."""
    path = tmp_path / "a.tif"
    ramp = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    tifffile.imwrite(path, np.arange(64 * 96, dtype=np.uint8).reshape(64, 96), photometric="palette", colormap=ramp)
    content = path.read_bytes()
    short, real = (struct.pack("<HHI", 320, kind, 768) for kind in (3, 11))
    assert content.count(short) == 1
    path.write_bytes(content.replace(short, real))
    with pytest.raises(ImageError, match=r"palette has values of type float32"):
        read_image(path, max_pixels=10**6)
