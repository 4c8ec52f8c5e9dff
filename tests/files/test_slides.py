"""Files of single makers that are TIFFs inside: Hamamatsu's NDPI and Opera's FLEX."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import open_file

ROWS, COLUMNS = np.mgrid[:192, :320]
SLIDE = np.stack([COLUMNS // 3, ROWS // 2, (ROWS + COLUMNS) // 5], -1).astype(np.uint8)
MACRO = np.full((100, 300, 3), 200, np.uint8)


def jpeg(pixels: NDArray[np.uint8]) -> tuple[bytes, list[int]]:
    """A picture with restart markers, and where each of its pieces begins."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0, restart_marker_blocks=8)
    data = buffer.getvalue()
    scan = data.index(b"\xff\xda")
    starts = [scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")]
    place = starts[0]
    while data[place + 1] != 0xD9:
        place = data.find(b"\xff", place + 1)
        if 0xD0 <= data[place + 1] < 0xD8:
            starts.append(place + 2)
    return data, starts


def write_ndpi(path: Path, *pictures: tuple[NDArray[np.uint8], float]) -> Path:
    """A slide as the scanner writes it: pages linked by 64 bits, one JPEG each, and what lens each was taken with."""
    blob = bytearray(b"II*\0" + bytes(8))
    link = 4
    for pixels, lens in pictures:
        data, starts = jpeg(pixels)
        places = []
        for part in (data, struct.pack(f"<{len(starts)}I", *starts), b"Hamamatsu\0", struct.pack("<3H", 8, 8, 8)):
            places.append(len(blob))
            blob += part
        height, width = pixels.shape[:2]
        (power,) = struct.unpack("<I", struct.pack("<f", lens))
        tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, places[3]), (259, 3, 1, 7), (262, 3, 1, 6)]
        tags += [(271, 2, 10, places[2]), (273, 4, 1, places[0]), (277, 3, 1, 3), (278, 4, 1, height)]
        tags += [(279, 4, 1, len(data)), (284, 3, 1, 1), (530, 3, 2, 1 | 1 << 16), (65420, 4, 1, 1)]
        tags += [(65421, 11, 1, power), (65426, 4, len(starts), places[1])]
        blob += bytes(len(blob) % 2)
        struct.pack_into("<Q", blob, link, len(blob))
        blob += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        link = len(blob)
        blob += bytes(8 + 4 * len(tags))  # the link to the next page, and the high bits of all values
    path.write_bytes(blob)
    return path


@pytest.mark.parametrize("name", ["a.ndpi", "renamed.tif"])
def test_a_slide_of_hamamatsu_is_its_full_resolution(tmp_path: Path, name: str) -> None:
    """By its content, whatever it is called; the smaller copy and the picture of the glass are not the image."""
    path = write_ndpi(tmp_path / name, (SLIDE, 20.0), (np.ascontiguousarray(SLIDE[::4, ::4]), 5.0), (MACRO, -1.0))
    source = open_file(path, max_pixels=10**6)
    assert (source.header.axes, source.header.shape, source.header.levels) == ("YXS", (192, 320, 3), 2)
    whole = source.read(0, 0, slice(0, 192), slice(0, 320))
    assert np.abs(whole.astype(int) - SLIDE).max() <= 4
    np.testing.assert_array_equal(source.read(0, 0, slice(33, 71), slice(100, 211)), whole[33:71, 100:211])


def test_an_ordinary_tiff_that_is_called_a_slide_is_read(tmp_path: Path) -> None:
    """Readers that go by the suffix look for pages where there are none."""
    tifffile.imwrite(tmp_path / "a.ndpi", SLIDE[..., 0])
    source = open_file(tmp_path / "a.ndpi", max_pixels=10**6)
    np.testing.assert_array_equal(source.read(0, 0, slice(0, 192), slice(0, 320)), SLIDE[..., 0])


def test_a_flex_file_of_one_page_is_read_and_one_of_many_is_refused(tmp_path: Path) -> None:
    """Its pages are fields and channels, which would be taken for depths."""
    for pages in (1, 2):
        tifffile.imwrite(
            tmp_path / f"{pages}.flex",
            np.zeros((pages, 23, 37), np.uint16),
            photometric="minisblack",
            metadata=None,
            extratags=[(65200, "s", 0, "<FLEX/>", True)],
        )
    assert open_file(tmp_path / "1.flex", max_pixels=10**6).header.shape == (23, 37)
    with pytest.raises(ImageError, match="fields and channels"):
        open_file(tmp_path / "2.flex", max_pixels=10**6)
