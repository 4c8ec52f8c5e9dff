"""TIFFs as multi-dimensional images: axes, channels, levels, windows, for each way in which software writes them."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import FileSource, open_file
from nucseg_batch.files.source import ChannelInfo

SIZES = {"T": 2, "Z": 3, "C": 4, "Y": 37, "X": 23}
RNG = np.random.default_rng(0)


def opened(path: Path) -> FileSource:
    return open_file(path, max_pixels=10**6)


def stack(axes: str, dtype: str = "uint16") -> np.ndarray:
    return RNG.integers(0, 200, [SIZES[axis] for axis in axes]).astype(dtype)


def whole(source: FileSource, t: int = 0, z: int = 0) -> np.ndarray:
    return source.read(t, z, slice(0, source.header.length("Y")), slice(0, source.header.length("X")))


def assert_reads(source: FileSource, pixels: np.ndarray, axes: str) -> None:
    """All planes of `source` are those of `pixels`, whose axes are `axes`."""
    header = source.header
    assert sorted(header.axes) == sorted(axes)
    assert {axis: header.length(axis) for axis in axes} == dict(zip(axes, pixels.shape, strict=True))
    for t in range(header.length("T")):
        for z in range(header.length("Z")):
            place = tuple({"T": t, "Z": z}.get(axis, slice(None)) for axis in axes)
            inner = [axis for axis in axes if axis not in "TZ"]
            plane = pixels[place].transpose([inner.index(axis) for axis in "CYXS" if axis in inner])
            found = whole(source, t, z)
            np.testing.assert_array_equal(found, plane)
            assert found.dtype == header.dtype
            rows, columns = slice(5, 30), slice(11, 18)
            expected = plane[rows, columns] if "S" in axes else plane[..., rows, columns]
            np.testing.assert_array_equal(source.read(t, z, rows, columns), expected)


STORAGE: dict[str, dict[str, Any]] = {
    "plain": {},
    "deflated": {"compression": "zlib", "predictor": 2, "rowsperstrip": 7},
    "one strip": {"compression": "lzw", "rowsperstrip": 37},
    "tiled": {"tile": (16, 16)},
    "tiled and compressed": {"tile": (16, 32), "compression": "zstd"},
    "big, of the other byte order": {"bigtiff": True, "byteorder": ">"},
}


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "CYX", "TZCYX", "TCZYX", "CTZYX", "ZCYX"])
@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("suffix", [".ome.tif", ".tif"])
def test_a_stack_reads_by_the_axes_that_it_names(tmp_path: Path, axes: str, storage: str, suffix: str) -> None:
    """Their order in the file is the software's; ours is always the same."""
    pixels = stack(axes)
    options = {"photometric": "minisblack", "metadata": {"axes": axes}, **STORAGE[storage]}
    tifffile.imwrite(tmp_path / f"a{suffix}", pixels, **options)
    assert_reads(opened(tmp_path / f"a{suffix}"), pixels, axes)


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "CYX", "TZCYX", "ZCYX"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_an_imagej_hyperstack_reads_by_its_description(tmp_path: Path, axes: str, compression: str | None) -> None:
    """Uncompressed ones have all planes behind one page, as those above 4 GB have."""
    pixels = stack(axes)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"axes": axes}, compression=compression)
    assert_reads(opened(tmp_path / "a.tif"), pixels, axes)


def test_an_imagej_stack_of_one_page_reads_all_its_planes(tmp_path: Path) -> None:
    """ImageJ writes stacks of more than 4 GB so: one page, and planes one after another."""
    pixels = stack("ZYX")
    path = tmp_path / "a.tif"
    description = "ImageJ=1.53t\nimages=3\nslices=3\n"
    tifffile.imwrite(path, pixels[0], description=description, metadata=None, byteorder=">")
    content = path.read_bytes()
    start = content.rindex(pixels[0].astype(">u2").tobytes())
    path.write_bytes(content[:start] + pixels.astype(">u2").tobytes())
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1
    assert_reads(opened(path), pixels, "ZYX")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ImageError):
        opened(path)


def write_stk(path: Path, pixels: np.ndarray) -> None:
    """A MetaMorph stack: one page, planes one after another, how many is the count of a private tag."""
    planes, height, width = pixels.shape
    size, start = height * width * 2, 512
    calibration = struct.pack("<IIII", 4, 400, 6, 408)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 2, 420), (277, 3, 1, 1), (278, 4, 1, height - 4), (279, 4, 2, 428)]
    tags += [(33628, 4, 2, 380), (33629, 5, planes, start + planes * size)]
    content = bytearray(start)
    content[:8] = b"II*\0" + struct.pack("<I", 8)
    content[8:10] = struct.pack("<H", len(tags))
    for number, tag in enumerate(tags):
        struct.pack_into("<HHII", content, 10 + 12 * number, *tag)
    content[380:396] = calibration
    content[400:408] = struct.pack("<II", 325, 1000)
    content[408:415] = struct.pack("<I", 3) + b"um\0"
    first = (height - 4) * width * 2
    content[420:436] = struct.pack("<IIII", start, start + first, first, size - first)
    places = b"".join(struct.pack("<6I", 2, 1, 2450000, number, 2450000, number) for number in range(planes))
    path.write_bytes(bytes(content) + pixels.astype("<u2").tobytes() + places)


def test_a_metamorph_stack_reads_all_its_planes(tmp_path: Path) -> None:
    """Other readers give the first plane, which is all that the standard's tags tell of."""
    pixels = stack("ZYX")
    write_stk(tmp_path / "a.stk", pixels)
    source = opened(tmp_path / "a.stk")
    assert_reads(source, pixels, "ZYX")
    assert source.header.pixel_size == pytest.approx(0.325)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float64", "bool"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_any_real_type_reads_alike_in_strips_and_tiles(
    tmp_path: Path, dtype: str, tile: tuple[int, int] | None
) -> None:
    """Bits become 0 and 255, floats become single precision, all else stays."""
    pixels = stack("ZYX", "int64") - (100 if dtype.startswith("int") else 0)
    stored = pixels > 100 if dtype == "bool" else pixels.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", tile=tile, metadata={"axes": "ZYX"})
    expected = stored * np.uint8(255) if dtype == "bool" else stored
    expected = expected.astype(np.float32) if "float" in dtype else expected
    assert_reads(opened(tmp_path / "a.tif"), expected, "ZYX")


@pytest.mark.parametrize("pages", [6, 9])
def test_pages_of_which_nothing_is_said_are_depths(tmp_path: Path, pages: int) -> None:
    """All are segmented, never the first alone."""
    pixels = RNG.integers(0, 9, (pages, 37, 23)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata=None, photometric="minisblack")
    assert_reads(opened(tmp_path / "a.tif"), pixels, "ZYX")


def test_axes_that_are_not_known_are_refused_by_name(tmp_path: Path) -> None:
    """Positions are no depths, and of two unknown axes neither is."""
    positions, unknown = RNG.integers(0, 9, (5, 37, 23)), RNG.integers(0, 9, (2, 5, 37, 23))
    grey = {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "r.tif", positions.astype(np.uint8), metadata={"axes": "RYX"}, **grey)
    tifffile.imwrite(tmp_path / "q.tif", unknown.astype(np.uint8), **grey)
    for name, axes in (("r.tif", "R"), ("q.tif", "QQYX")):
        with pytest.raises(ImageError, match=f"axes {axes}.*--axes"):
            opened(tmp_path / name)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_samples_that_are_no_colours_are_channels(tmp_path: Path, planar: str) -> None:
    """Some software stores channels as samples of one page."""
    pixels = stack("CYX")
    stored = np.moveaxis(pixels, 0, -1) if planar == "contig" else pixels
    for name, options in (("a.tif", {}), ("b.tif", {"tile": (16, 16), "compression": "zlib"}), ("c.ome.tif", {})):
        axes = {"metadata": {"axes": "YXC" if planar == "contig" else "CYX"}} if name.endswith("ome.tif") else {}
        tifffile.imwrite(tmp_path / name, stored, photometric="minisblack", planarconfig=planar, **options, **axes)
        source = opened(tmp_path / name)
        assert_reads(source, pixels, "CYX")
        assert len(source.header.channels) == 4


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_colour_stacks_keep_their_colours(tmp_path: Path, planar: str, name: str) -> None:
    """A stack of histology sections."""
    pixels = RNG.integers(0, 256, (5, 37, 23, 3)).astype(np.uint8)
    stored, axes = (pixels, "TYXS") if planar == "contig" else (np.moveaxis(pixels, 3, 1), "TSYX")
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": planar, "metadata": {"axes": axes}}
    tifffile.imwrite(tmp_path / name, stored, compression="zlib", **options)
    assert_reads(opened(tmp_path / name), pixels, "TYXS")


def test_colours_in_each_of_several_channels_are_refused(tmp_path: Path) -> None:
    """Nothing says which of three colours of four channels shows the nuclei."""
    pixels = RNG.integers(0, 256, (4, 37, 23, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="rgb", metadata={"axes": "CYXS"})
    with pytest.raises(ImageError, match="each of its channels has 3 samples"):
        opened(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_a_pyramid_is_its_full_resolution_with_levels(tmp_path: Path, name: str) -> None:
    """Smaller copies lie in pages below the pages, or behind them."""
    pixels = RNG.integers(0, 256, (2, 128, 96)).astype(np.uint8)
    options: dict[str, Any] = {"tile": (32, 32), "photometric": "minisblack"}
    with tifffile.TiffWriter(tmp_path / name) as writer:
        writer.write(pixels, subifds=2, metadata={"axes": "CYX"}, **options)
        for step in (2, 4):
            writer.write(pixels[:, ::step, ::step], subfiletype=1, **options)
    source = opened(tmp_path / name)
    assert_reads(source, pixels, "CYX")
    assert (source.header.levels, source.header.chunk) == (3, (32, 32))
    with tifffile.TiffWriter(tmp_path / "behind.tif") as writer:
        writer.write(pixels[0], metadata=None, **options)
        writer.write(pixels[0, ::2, ::2], subfiletype=1, metadata=None, **options)
    source = opened(tmp_path / "behind.tif")
    assert_reads(source, pixels[0], "YX")
    assert source.header.levels == 2


def test_a_slide_is_read_without_its_thumbnail_label_and_macro(shared: Path) -> None:
    """All four are pictures of their own in an SVS; a page of a slide must not be taken for one of the others."""
    header = opened(shared / "formats" / "libvips" / "CMU-1-Small-Region.svs").header
    assert (header.axes, header.shape, header.chunk) == ("YXS", (2967, 2220, 3), (240, 240))
    assert header.pixel_size == pytest.approx(0.499)


@pytest.mark.parametrize("first", ["image", "thumbnail"])
def test_a_thumbnail_that_does_not_say_so_is_known_by_its_shape(tmp_path: Path, first: str) -> None:
    """A page of the same proportions and at most a quarter as wide; camera software writes such."""
    pixels = RNG.integers(0, 256, (311, 237)).astype(np.uint8)
    thumbnail = np.zeros((52, 40), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in (pixels, thumbnail) if first == "image" else (thumbnail, pixels):
            writer.write(page, metadata=None)
    assert_reads(opened(tmp_path / "a.tif"), pixels, "YX")


def test_several_images_in_a_file_are_refused_and_counted(tmp_path: Path) -> None:
    """None of them is more the image than the others."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for side in (31, 37, 37):
            writer.write(np.zeros((side, 23), np.uint8), metadata=None)
    with pytest.raises(ImageError, match=r"2 separate images \(31 x 23, 2 x 37 x 23\)"):
        opened(tmp_path / "a.tif")


def test_a_larger_image_below_the_first_page_is_not_passed_over(tmp_path: Path) -> None:
    """Cameras store a thumbnail first and the picture below it."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(np.zeros((16, 16), np.uint8), subifds=1, metadata=None)
        writer.write(np.zeros((64, 64), np.uint8), metadata=None)
    with pytest.raises(ImageError, match="small copy"):
        opened(tmp_path / "a.tif")


def test_a_window_decodes_only_the_tiles_that_it_touches(tmp_path: Path) -> None:
    """The rest of a large plane may be anything: here, damaged tiles."""
    pixels = RNG.integers(0, 256, (96, 128)).astype(np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        starts = tiff.pages.first.dataoffsets
    content = bytearray(path.read_bytes())
    for number, start in enumerate(starts):
        if number not in (5, 6):
            content[start + 20 : start + 60] = bytes(40)
    path.write_bytes(content)
    source = opened(path)
    np.testing.assert_array_equal(source.read(0, 0, slice(33, 64), slice(32, 90)), pixels[33:64, 32:90])
    with pytest.raises(ImageError):
        whole(source)


@pytest.mark.parametrize("samples", [1, 3])
def test_a_narrow_window_of_wide_uncompressed_rows_is_read(tmp_path: Path, samples: int) -> None:
    """Row by row, since whole rows of a very wide plane would fill the memory."""
    pixels = RNG.integers(0, 60000, (17, 40000, samples)).astype(np.uint16)
    photometric = "rgb" if samples == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels.squeeze(), photometric=photometric, byteorder=">", rowsperstrip=5)
    source = open_file(tmp_path / "a.tif", max_pixels=10**6)
    for columns in (slice(39000, 40000), slice(3, 1000), slice(5, 39999)):
        found = source.read(0, 0, slice(3, 16), columns)
        np.testing.assert_array_equal(found, pixels.squeeze()[3:16, columns])


@pytest.mark.parametrize("options", [{}, {"tile": (32, 32), "compression": "jpeg"}, {"compression": "zlib"}])
def test_threads_may_read_one_file_at_once(tmp_path: Path, options: dict[str, Any]) -> None:
    """Regions of one large plane are read side by side."""
    pixels = RNG.integers(0, 256, (3, 160, 128)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", metadata={"axes": "ZYX"}, **options)
    source = opened(tmp_path / "a.tif")
    planes = [whole(opened(tmp_path / "a.tif"), 0, z) for z in range(3)]
    windows = [(z, slice(y, y + 50), slice(x, x + 40)) for z in range(3) for y in range(0, 110, 7) for x in (0, 31, 88)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda window: source.read(0, *window), windows))
    for (z, rows, columns), part in zip(windows, found, strict=True):
        np.testing.assert_array_equal(part, planes[z][rows, columns])


def test_a_file_that_changes_while_it_is_open_is_refused(tmp_path: Path) -> None:
    """Its offsets are no longer true."""
    tifffile.imwrite(tmp_path / "a.tif", stack("YX"))
    source = opened(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", stack("TCYX"), photometric="minisblack")
    with pytest.raises(ImageError, match="changed"):
        whole(source)


def test_imagej_labels_name_channels_only_where_they_do(tmp_path: Path) -> None:
    """Places in the stack are no names, and neither are labels that differ within a channel."""
    pixels = stack("CYX")
    for labels, expected in (
        (["DAPI", "GFP", "Cy3", "Cy5"], ["DAPI", "GFP", "Cy3", "Cy5"]),
        (["c:1/4 - a", "c:2/4 - a", "c:3/4 - a", "c:4/4 - a"], ["0", "1", "2", "3"]),
        (["a", "a", "b", "c"], ["0", "1", "2", "3"]),
    ):
        metadata = {"axes": "CYX", "Labels": labels}
        tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata=metadata)
        assert [channel.name for channel in opened(tmp_path / "a.tif").header.channels] == expected


def test_metaxpress_files_name_their_channel(shared: Path) -> None:
    """One channel a file, so the name is not that of an axis; its wavelength and pixel size are there too."""
    folder = shared / "formats" / "faim_hcs" / "ImageXpress_exported" / "9987_Plate_3434" / "TimePoint_1"
    header = opened(next(folder.rglob("9987_B02_s1_w1.TIF"))).header
    assert header.channels == (ChannelInfo("DAPI", 452.0),)
    assert (header.axes, header.pixel_size) == ("YX", pytest.approx(1.3672))
    thumbnail = next((folder.parents[2] / "ImageXpress").rglob("*_thumb*.tif"))
    assert opened(thumbnail).header.channels[0].name != "HTSThumbHTS"


def test_a_display_table_of_imagej_is_no_palette(tmp_path: Path) -> None:
    """Stacks are often stored in `Fire`, whose blue rises, falls and rises; their pixels are what was measured."""
    ramp = np.arange(256) / 255
    fire = np.stack([ramp, ramp**2, 0.3 * np.sin(3.14 * ramp * 1.2)]).clip(0, 1)
    colormap = (fire * 65535).astype(np.uint16)
    pixels = stack("ZYX", "uint8")
    options = {"photometric": "palette", "colormap": colormap}
    tifffile.imwrite(tmp_path / "plain.tif", pixels, metadata={"axes": "ZYX"}, **options)
    with pytest.raises(ImageError, match="palette colours"):
        opened(tmp_path / "plain.tif")
    described = {"metadata": None, "description": "ImageJ=1.53t\nimages=3\nslices=3\n"}
    with tifffile.TiffWriter(tmp_path / "ij.tif") as writer:
        for plane in pixels:
            writer.write(plane, contiguous=False, **described, **options)
            described = {"metadata": None}
    assert_reads(opened(tmp_path / "ij.tif"), pixels, "ZYX")


def test_pixels_that_are_not_finite_are_filled_alike_in_every_window(tmp_path: Path) -> None:
    """A window must show what the whole plane shows, though its own lowest value is another."""
    pixels = RNG.random((2, 96, 128)).astype(np.float32) + np.arange(128, dtype=np.float32)
    pixels[:, 40, 100], pixels[0, 41, 101] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(32, 32), photometric="minisblack", metadata={"axes": "CYX"})
    source = opened(tmp_path / "a.tif")
    plane = whole(source)
    assert [plane[0, 40, 100], plane[1, 40, 100], plane[0, 41, 101]] == [
        np.nanmin(pixels[0]),
        np.nanmin(pixels[1]),
        np.nanmin(pixels[0]),
    ]
    np.testing.assert_array_equal(source.read(0, 0, slice(33, 60), slice(90, 127)), plane[:, 33:60, 90:127])


def test_a_grey_that_is_white_at_zero_is_inverted_only_where_that_means_something(tmp_path: Path) -> None:
    """Of floats nobody knows which value is black."""
    pixels = stack("ZYX", "uint8")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite", tile=(16, 16), metadata={"axes": "ZYX"})
    assert_reads(opened(tmp_path / "a.tif"), 255 - pixels, "ZYX")
    tifffile.imwrite(tmp_path / "f.tif", pixels[0].astype(np.float32), photometric="miniswhite")
    with pytest.raises(ImageError, match="0 is white"):
        opened(tmp_path / "f.tif")


def test_max_pixels_is_of_what_must_be_decoded_at_once(tmp_path: Path) -> None:
    """A plane of tiles may be larger than any that is decoded whole."""
    pixels = np.zeros((640, 512), np.uint8)
    tifffile.imwrite(tmp_path / "tiled.tif", pixels, tile=(64, 64), compression="zlib")
    tifffile.imwrite(tmp_path / "rows.tif", pixels)
    tifffile.imwrite(tmp_path / "whole.tif", pixels, compression="zlib", rowsperstrip=640)
    for name in ("tiled.tif", "rows.tif"):
        assert open_file(tmp_path / name, max_pixels=64 * 64).read(0, 0, slice(9, 99), slice(7, 77)).shape == (90, 70)
    for name, limit in (("whole.tif", 640 * 512 - 1), ("tiled.tif", 64 * 64 - 1)):
        with pytest.raises(ImageError, match="--max-pixels"):
            open_file(tmp_path / name, max_pixels=limit)


@pytest.mark.parametrize(("value", "shown"), [(3, "rotated by 180 degrees"), (6, "rotated by 90 degrees clockwise")])
def test_pixels_are_read_as_stored_and_an_orientation_is_told(tmp_path: Path, value: int, shown: str) -> None:
    """As other programs for microscopy read them, so that masks fit; of a movie the header's page alone is asked."""
    for axes in ("YX", "TYX"):
        path, pixels = tmp_path / f"{axes}.tif", stack(axes)
        tags = [(274, "H", 1, value, True)]
        tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": axes}, extratags=tags)
        source = opened(path)
        assert_reads(source, pixels, axes)
        (assumed,) = source.header.assumptions
        assert (assumed.kind, assumed.doubtful) == ("axes", False)
        assert f"shown {shown}" in assumed.evidence


@pytest.mark.parametrize("tag", [(274, "H", 1, 1, True), (274, "H", 1, 0, True), (274, "H", 5, (6,) * 5, True)])
def test_an_orientation_that_says_nothing_is_not_told(tmp_path: Path, tag: tuple[Any, ...]) -> None:
    """1 is the order in which pixels are stored; 0 and lists have no meaning."""
    tifffile.imwrite(tmp_path / "a.tif", stack("YX"), extratags=[tag])
    assert opened(tmp_path / "a.tif").header.assumptions == ()
