"""Every TIFF, PNG and JPEG of the shared sample files, held against what tifffile reads of them."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import FileSource, open_file
from nucseg_batch.files.kinds import IMAGE_SUFFIXES

MAX_PIXELS = 10**8
LARGE = 3 * 10**7
"""Pixels above which an image is compared with the manifest only."""
REFUSED = {
    "child_ifd_jpeg.tiff": "small copy of an image",  # one pixel, and an image of 20 x 20 below it
    "compression.tif": "2 separate images",
    "hopper.Lab.tif": "CIELAB",
    "lab-green.tif": "CIELAB",
    "lab-red.tif": "CIELAB",
    "lab.tif": "CIELAB",
    "libtiff_segfault.tif": "1 of its 23 tiles",
    "multipage-mmap.tiff": "2 separate images",
    "multipage.tiff": "2 separate images",
    "multipage_multiple_frame_loop.tiff": "circle",
    "multipage_out_of_order.tiff": "2 separate images",
    "multipage_single_frame_loop.tiff": "circle",
    "no_rows_per_strip.tif": "3 separate images",  # of three types
    "separate_planar_extra_samples.tiff": "missing tiles or strips",
    "tiff_overflow_rows_per_strip.tif": "39 tiles or strips",  # tifffile fails on it too
    "tiff_strip_cmyk_16l_jpeg.tif": "SEPARATED",
    "tiff_strip_cmyk_jpeg.tif": "SEPARATED",
    "tiff_tiled_cmyk_jpeg.tif": "SEPARATED",
    "zero_gi.tif": "no pixels",
}
"""Files that are refused although tifffile can read them, or does not fail cleanly, and a word of the reason."""
OME = {f"multifile-Z{z}.ome.tiff": ("ZYX", (5, 24, 18)) for z in range(1, 6)}
"""Files whose OME-XML says more than the manifest, which knows the single files."""
OTHER_AXES = {"small_la.tiff": "CYX"}
"""A second sample of which nothing says that it is alpha is a channel."""


def planes(source: FileSource) -> Iterator[np.ndarray]:
    header = source.header
    for t in range(header.length("T")):
        for z in range(header.length("Z")):
            yield source.read(t, z, slice(0, header.length("Y")), slice(0, header.length("X")))


def as_read(source: FileSource) -> np.ndarray:
    """All pixels with axes (t, z, [c], y, x, [s])."""
    header = source.header
    every = list(planes(source))
    found = np.stack(every) if len(every) > 1 else every[0][None]
    return found.reshape(header.length("T"), header.length("Z"), *found.shape[1:])


def expected_axes(row: dict[str, str]) -> str:
    return row["axes"].replace("I", "Z").replace("Q", "Z")


def by_tifffile(path: Path, axes: str) -> np.ndarray:
    """The same by tifffile alone, with the rules for alpha, palettes, one bit and inverted grey applied here."""
    with tifffile.TiffFile(path) as tiff:
        series = next(series for series in tiff.series if series.name not in ("Thumbnail", "Label", "Macro"))
        pixels, letters, page = series.asarray(level=0), series.axes.replace("I", "Z"), series.keyframe
        table = page.colormap
    if axes == "CYX" and "S" in letters:
        letters = letters.replace("S", "C")
    for letter in "TZ":
        if letter not in letters:
            pixels, letters = pixels[None], letter + letters
    order = [letters.index(letter) for letter in "TZCYXS" if letter in letters]
    pixels = pixels.transpose(order)
    if page.photometric == 3 and page.imagej_description is None and (np.diff(table.astype(int)) < 0).any():
        numbers = pixels[..., 0] if "S" in letters else pixels
        return np.moveaxis(table[:, numbers.astype(int)], 0, -1)
    if "S" in letters:
        pixels = pixels[..., :3]
    if page.photometric == 0 and 262 in page.tags and pixels.dtype.kind == "u":
        pixels = (2**page.bitspersample - 1 - pixels.astype(np.int64)).astype(pixels.dtype)
    if pixels.dtype == bool:
        return pixels * np.uint8(255)
    return pixels.astype(np.float32) if pixels.dtype.kind == "f" else pixels


def check(path: Path, row: dict[str, str]) -> None:
    source = open_file(path, max_pixels=MAX_PIXELS)
    header = source.header
    name = path.name
    if name in OME:
        assert (header.axes, header.shape) == OME[name]
        assert len(source.parts) == 5
        return
    assert header.size == path.stat().st_size
    axes = OTHER_AXES.get(name, expected_axes(row))
    sizes = dict(zip(axes, map(int, re.findall(r"\d+", row["shape"])), strict=True)) if name not in OTHER_AXES else {}
    for axis in "TZCYX":
        assert header.length(axis) == sizes.get(axis, header.length(axis)), name
    pixels = as_read(source)
    assert pixels.dtype == header.dtype
    if "ImageXpress" not in str(path) and "CV8000" not in str(path):
        if pixels.size < LARGE:
            np.testing.assert_array_equal(pixels, by_tifffile(path, axes), err_msg=name)
        sides = (header.length("Y"), header.length("X"))
        window = tuple(slice(side // 3, side // 3 + max(1, side // 2)) for side in sides)
        part = pixels[0, 0][window] if "S" in header.axes else pixels[0, 0][(..., *window)]
        np.testing.assert_array_equal(source.read(0, 0, *window), part, err_msg=name)
    same = str(pixels.dtype) == row["dtype"] and pixels.size == np.prod(
        list(map(int, re.findall(r"\d+", row["shape"])))
    )
    if same and row["photometric"] in ("MINISBLACK", "RGB", "YCBCR"):
        assert (float(pixels.min()), float(pixels.max())) == pytest.approx((float(row["min"]), float(row["max"]))), name


def manifest(shared: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of the manifest by the folder they are in, two levels deep."""
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    with open(shared / "formats" / "tiff_manifest.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            groups[row["path"].split("/")[0]].append(row)
    return groups


def outcome(path: Path, row: dict[str, str]) -> str | None:
    """None where the file reads as it should, else the words with which it is refused."""
    try:
        check(path, row)
    except ImageError as error:
        return str(error)
    return None


@pytest.mark.parametrize("group", ["faim_hcs", "large_image", "libvips", "pillow_tiff", "piximi", "viv"])
def test_every_sample_reads_as_the_manifest_says_or_is_refused_in_one_line(shared: Path, group: str) -> None:
    """Real files of microscopes, slides and image libraries, and files that crashed other readers."""
    rows = manifest(shared)[group]
    read = 0
    for row in rows:
        path = shared / "formats" / row["path"]
        reason = outcome(path, row)
        readable = row["read_with_tifffile"] == "ok" and path.name not in REFUSED
        assert (reason is None) == readable, f"{path}: {reason}"
        read += readable
        if reason is not None:
            assert "\n" not in reason, path
            assert REFUSED.get(path.name, "") in reason, path
    assert read >= {"pillow_tiff": 80, "large_image": 15}.get(group, len(rows))


def test_no_sample_picture_is_missing_from_the_manifest_or_crashes(shared: Path) -> None:
    """PNGs, and TIFFs that the manifest may have passed over."""
    folder = shared / "formats"
    known = {row["path"] for rows in manifest(shared).values() for row in rows}
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    others = [path for path in paths if path.relative_to(folder).as_posix() not in known]
    assert len(paths) > 500
    assert {path.suffix for path in others} <= {".png", ".jpg", ".jpeg"}
    for path in others:
        source = open_file(path, max_pixels=MAX_PIXELS)
        assert as_read(source).shape[2:4] == (source.header.length("Y"), source.header.length("X"))
