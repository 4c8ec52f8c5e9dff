"""Images for the benchmarks: those of a folder, repeated, cut up or put together, as PNG, TIFF and OME-Zarr.

Needs no more than NumPy, Pillow and tifffile, and zarr where a store is made, so that a benchmark of another program
can use it in that program's own environment.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[Any]
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
TIFF = {".tif", ".tiff"}
SOURCE_KINDS = ("png", "tiff", "zarr")
FOLDER_FILES = 1000
"""Small images in one folder."""


@dataclass(frozen=True)
class Picture:
    """An image of the source folder."""

    path: Path
    """Where it is."""
    pixels: Pixels
    """(height, width), uint8 or uint16."""


def grey_pictures(source: Path, side: int | None = None) -> list[Picture]:
    """The grey images of a folder, those of side x side pixels if it is given, all of the first one's type."""
    found: list[Picture] = []
    for path in sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES):
        pixels = tifffile.imread(path) if path.suffix.lower() in TIFF else np.asarray(Image.open(path))
        wanted = pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16)
        if wanted and (side is None or pixels.shape == (side, side)):
            found.append(Picture(path, pixels))
    if not found:
        sys.exit(f"no grey image{f' of {side}x{side} pixels' if side else ''} in {source}")
    return [picture for picture in found if picture.pixels.dtype == found[0].pixels.dtype]


def write_images(pictures: Sequence[Picture], place: Path, count: int, kind: str) -> Path:
    """`count` images in a new folder, or planes of a new store, that repeat the pictures; returns what IN is.

    png: copies of the files that are PNG, others encoded; tiff: not compressed; zarr: one OME-Zarr 0.5 image with axes
    t, y and x, a chunk a plane.
    """
    if kind == "zarr":
        planes = [pictures[i % len(pictures)].pixels for i in range(count)]
        return write_zarr(place.with_suffix(".zarr"), planes, "tyx", (1, *planes[0].shape))
    place.mkdir(parents=True)
    for i in range(count):
        picture = pictures[i % len(pictures)]
        target = place / f"{i:06d}.{'tif' if kind == 'tiff' else 'png'}"
        if kind == "tiff":
            tifffile.imwrite(target, picture.pixels)
        elif picture.path.suffix.lower() == ".png":
            shutil.copyfile(picture.path, target)
        else:
            Image.fromarray(picture.pixels).save(target)
    return place


def write_zarr(path: Path, planes: Sequence[Pixels], axes: str, chunks: tuple[int, ...]) -> Path:
    """An OME-Zarr 0.5 image of one level; with axes yx of one plane."""
    import zarr

    shape = planes[0].shape if axes == "yx" else (len(planes), *planes[0].shape)
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}]}]
    names = [{"name": axis, "type": "time" if axis == "t" else "space"} for axis in axes]
    image: Any = {"version": "0.5", "multiscales": [{"axes": names, "datasets": datasets}]}
    group = zarr.open_group(path, mode="w", zarr_format=3, attributes={"ome": image})
    array = group.create_array("0", shape=shape, chunks=chunks, dtype=planes[0].dtype, dimension_names=list(axes))
    if axes == "yx":
        array[...] = planes[0]
    else:
        for i, plane in enumerate(planes):
            array[i] = plane
    return path


def mosaic(pictures: Sequence[Picture], side: int, seed: int = 0) -> Pixels:
    """One plane of side x side pixels, tiled with pictures that are chosen, turned and mirrored at random."""
    rng = np.random.default_rng(seed)
    tile = pictures[0].pixels.shape[0]
    plane = np.empty((side, side), pictures[0].pixels.dtype)
    for y in range(0, side, tile):
        for x in range(0, side, tile):
            part = plane[y : y + tile, x : x + tile]
            picture: Pixels = np.rot90(pictures[int(rng.integers(len(pictures)))].pixels, int(rng.integers(4)))
            picture = picture[:, ::-1] if rng.random() < 0.5 else picture
            part[...] = picture[: part.shape[0], : part.shape[1]]
    return plane


def write_crops(pictures: Sequence[Picture], folder: Path, count: int, side: int, seed: int = 0) -> Path:
    """`count` PNG of side x side pixels cut out at random, in subfolders of a thousand."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        pixels = pictures[int(rng.integers(len(pictures)))].pixels
        y, x = (rng.integers(length - side + 1) for length in pixels.shape)
        place = folder / f"{i // FOLDER_FILES:04d}"
        if i % FOLDER_FILES == 0:
            place.mkdir(parents=True)
        Image.fromarray(pixels[y : y + side, x : x + side]).save(place / f"{i:07d}.png", compress_level=1)
    return folder
