"""Makes good image files and malformed ones from real pixels: the same ones for the same seed.

Every format is damaged in every way that makes sense for it. For each file it is known beforehand whether its damage
can be told at all: formats without a checksum hold changed pixels as they hold right ones.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.random import Generator
from numpy.typing import NDArray
from zarr_examples import write_image

Pixels = NDArray[Any]
Write = Callable[[Path, Pixels], None]
Damage = Callable[[bytes, Generator], bytes]


@dataclass(frozen=True)
class Malformed:
    """A file, or a zarr store, that was damaged."""

    name: str
    """Its name in the folder."""
    how: str
    """Format and damage, for who reads a failing test."""
    told: bool
    """Whether a reader can, and so must, tell the damage."""


def _grey(pixels: Pixels) -> Pixels:
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels.max(axis=2))


def _deep(pixels: Pixels) -> Pixels:
    return _grey(pixels).astype(np.uint16) * 257


def _colour(pixels: Pixels) -> Pixels:
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _bytes(encode: Callable[[Pixels], bytes], kind: Callable[[Pixels], Pixels]) -> Write:
    return lambda path, pixels: path.write_bytes(encode(kind(pixels))) and None


def _tiff(kind: Callable[[Pixels], Pixels] = _grey, **options: Any) -> Write:
    return lambda path, pixels: tifffile.imwrite(path, kind(pixels), **options)


def _stack(path: Path, pixels: Pixels) -> None:
    """Six planes, each with a page of its own and its pixels right behind it; of fewer nothing says that they are z."""
    with tifffile.TiffWriter(path) as writer:
        for plane in 3 * (_grey(pixels), _grey(pixels)[::-1]):
            writer.write(plane, metadata=None, contiguous=False, compression="deflate")


def _zarr(**options: Any) -> Write:
    return lambda path, pixels: write_image(path, _grey(pixels), "yx", **options) and None


def _checked() -> list[Any]:
    from zarr.codecs import ZstdCodec

    return [ZstdCodec(checksum=True)]


def _gzip() -> list[Any]:
    from zarr.codecs import GzipCodec

    return [GzipCodec()]


PLAIN: dict[str, Write] = {
    "png": _bytes(imagecodecs.png_encode, _grey),
    "colour.png": _bytes(imagecodecs.png_encode, _colour),
    "raw.tif": _tiff(),
    "deflate.tif": _tiff(compression="deflate"),
    "lzw.tif": _tiff(compression="lzw", predictor=True),
    "packbits.tif": _tiff(compression="packbits"),
    "zstd.tif": _tiff(compression="zstd"),
    "tiled.tif": _tiff(tile=(32, 32)),
    "tiled_deflate.tif": _tiff(tile=(32, 32), compression="deflate"),
    "big.tif": _tiff(bigtiff=True),
    "ome.tif": _tiff(ome=True, metadata={"axes": "YX"}),
    "imagej.tif": _tiff(imagej=True),
    "two.zarr": _zarr(version="0.4", chunks=(32, 32)),
    "raw.zarr": _zarr(compressors=None, chunks=(32, 32)),
    "gzip.zarr": _zarr(compressors=_gzip(), chunks=(64, 64)),
    "checked.zarr": _zarr(compressors=_checked(), chunks=(32, 32)),
    "sharded.zarr": _zarr(compressors=_checked(), chunks=(16, 16), shards=(64, 64)),
}
"""Ways to keep one plane of grey without loss (and of colour, as its name says), by the end of the file's name."""
OTHER: dict[str, Write] = {
    "deep.png": _bytes(imagecodecs.png_encode, _deep),
    "jpg": _bytes(lambda pixels: imagecodecs.jpeg8_encode(pixels, level=90), _colour),
    "jpeg.tif": _tiff(_colour, compression="jpeg", photometric="rgb"),
    "motorola.tif": _tiff(_deep, byteorder=">"),
    "stack.tif": _stack,
}
"""Ways that lose something, or keep other numbers or planes."""
FORMATS = PLAIN | OTHER


def empty(content: bytes, rng: Generator) -> bytes:
    """A copy that never began."""
    return b""


def cut(content: bytes, rng: Generator) -> bytes:
    """A copy that ended early: 5 to 95 % of it are there."""
    return content[: int(len(content) * rng.uniform(0.05, 0.95))]


def garbage(content: bytes, rng: Generator) -> bytes:
    """Something else under the right name."""
    return rng.bytes(max(50, len(content) + int(rng.integers(1, 40))))


def garbage_behind_the_signature(content: bytes, rng: Generator) -> bytes:
    """The first eight bytes are right."""
    return content[:8] + rng.bytes(len(content))


def flipped_header(content: bytes, rng: Generator) -> bytes:
    """One to three bits of the first 200 bytes are others."""
    return _flipped(content, 0, min(200, len(content)), rng)


def flipped_data(content: bytes, rng: Generator) -> bytes:
    """One to three bits of the middle are others."""
    return _flipped(content, len(content) // 2, len(content) * 9 // 10, rng)


def zeros(content: bytes, rng: Generator) -> bytes:
    """A fifth of the file is a hole, as copies leave them that were resumed wrongly."""
    start, length = int(len(content) * rng.uniform(0.4, 0.7)), max(1, len(content) // 5)
    return content[:start] + bytes(length) + content[start + length :]


def swapped(content: bytes, rng: Generator) -> bytes:
    """The first bytes say the other order of bytes."""
    return {b"II": b"MM", b"MM": b"II"}[content[:2]] + content[2:]


def circle(content: bytes, rng: Generator) -> bytes:
    """The last page is followed by the first."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        order, big = file.byteorder, file.is_bigtiff
        first, last = file.pages.first.offset, file.pages[len(file.pages) - 1]
    size, entry, count = (8, 20, 8) if big else (4, 12, 2)
    tags = int.from_bytes(content[last.offset : last.offset + count], "little" if order == "<" else "big")
    link = last.offset + count + tags * entry
    return content[:link] + first.to_bytes(size, "little" if order == "<" else "big") + content[link + size :]


def enlarged(content: bytes, rng: Generator) -> bytes:
    """Width and height in the header are 500 times what they were."""
    changed = bytearray(content)
    if content[:4] == b"\x89PNG":
        places = [(16, 4, "big"), (20, 4, "big")]
    else:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            tags = [file.pages.first.tags[name] for name in ("ImageWidth", "ImageLength")]
            order = "little" if file.byteorder == "<" else "big"
        places = [(tag.valueoffset, 2 if tag.dtype == 3 else 4, order) for tag in tags]
    for at, size, order in places:
        value = int.from_bytes(changed[at : at + size], order)  # type: ignore[arg-type]
        changed[at : at + size] = min(value * 500, 2 ** (8 * size) - 1).to_bytes(size, order)  # type: ignore[arg-type]
    return bytes(changed)


def _flipped(content: bytes, start: int, stop: int, rng: Generator) -> bytes:
    changed = bytearray(content)
    for place in rng.choice(np.arange(start, max(stop, start + 3)), size=int(rng.integers(1, 4)), replace=False):
        if place < len(changed):
            changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


DAMAGES: tuple[Damage, ...] = (
    cut,
    cut,
    cut,
    flipped_header,
    flipped_header,
    flipped_data,
    zeros,
    empty,
    garbage,
    garbage_behind_the_signature,
)
"""Of any file; those that depend on a random place are there more often."""
TIFF_DAMAGES: tuple[Damage, ...] = (swapped, circle, enlarged)
CHECKED = {"png", "colour.png", "deep.png", "deflate.tif", "tiled_deflate.tif"}
"""Files whose pixels have a checksum, and of whose other bytes none lie among these."""
CHECKED_CHUNKS = {"gzip.zarr", "checked.zarr", "sharded.zarr"}
"""Stores whose chunks have one."""
PNG = {"png", "colour.png", "deep.png"}


def write_good(folder: Path, crops: Sequence[Pixels], count: int) -> dict[str, int]:
    """Writes so many good images, each crop in one way after another; number of the crop by name."""
    names = {}
    for number in range(count):
        ending = list(FORMATS)[number % len(FORMATS)]
        crop = number // len(FORMATS) % len(crops)
        name = f"good_{number:03d}.{ending}"
        FORMATS[ending](folder / name, crops[crop])
        names[name] = crop
    return names


def write_malformed(folder: Path, crops: Sequence[Pixels], count: int, seed: int) -> list[Malformed]:
    """Writes so many damaged images, of all formats and kinds of damage in turn."""
    rng = np.random.default_rng(seed)
    pairs = [(ending, damage) for ending in FORMATS for damage in _damages(ending)]
    order = [pairs[place] for place in rng.permutation(len(pairs))]
    written = []
    for number in range(count):
        ending, damage = order[number % len(order)]
        path = folder / f"bad_{number:03d}.{ending}"
        FORMATS[ending](path, crops[int(rng.integers(len(crops)))])
        target = _member(path, rng) if path.is_dir() else path
        target.write_bytes(damage(target.read_bytes(), rng))
        told = _told(ending, damage, target.name in ("zarr.json", ".zarray", ".zattrs", ".zgroup"))
        what = f"{target.relative_to(folder)}, {damage.__name__}"
        written.append(Malformed(path.name, what, told))
    return written


def _damages(ending: str) -> tuple[Damage, ...]:
    if ending in PNG:
        return (*DAMAGES, enlarged)
    return (*DAMAGES, *TIFF_DAMAGES) if ending.endswith("tif") else DAMAGES


def _member(store: Path, rng: Generator) -> Path:
    """A file of a store: as often a chunk as metadata."""
    files = sorted(path for path in store.rglob("*") if path.is_file())
    metadata = [path for path in files if path.name.startswith(".z") or path.name == "zarr.json"]
    chunks = [path for path in files if path not in metadata]
    kind = metadata if rng.random() < 0.4 else chunks
    return kind[int(rng.integers(len(kind)))]


def _told(ending: str, damage: Damage, metadata: bool) -> bool:
    """Whether a reader can tell this damage of a format."""
    if damage in (empty, cut, swapped, circle, enlarged):
        return True
    if damage is flipped_header:
        return ending in PNG
    if damage in (garbage, garbage_behind_the_signature):
        return metadata or damage is garbage or not ending.endswith("zarr")
    if metadata:
        return damage is zeros  # text with a hole is no JSON
    return ending in CHECKED | CHECKED_CHUNKS


def crops_of(images: Sequence[Path], count: int, seed: int) -> list[Pixels]:
    """Real pixels: pieces of 64 x 64 or 96 x 128 of images in turn."""
    rng = np.random.default_rng(seed)
    crops = []
    for number in range(count):
        pixels = imagecodecs.png_decode(images[number % len(images)].read_bytes())
        pixels = pixels[..., :3] if pixels.ndim == 3 else pixels
        if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]
        height, width = ((64, 64), (96, 128))[number % 2]
        top, left = (
            int(rng.integers(side - size + 1)) for side, size in zip(pixels.shape, (height, width), strict=False)
        )
        crops.append(np.ascontiguousarray(pixels[top : top + height, left : left + width]))
    return crops
