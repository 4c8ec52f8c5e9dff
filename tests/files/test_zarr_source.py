from __future__ import annotations

import itertools
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr_examples import Version, numbers, write_array, write_group, write_image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr import guarded_array
from nucseg_batch.files.zarr import source as zarr_source
from nucseg_batch.files.zarr.source import ZarrSource, open_zarr

VERSIONS: tuple[Version, ...] = ("0.4", "0.5")
LENGTHS = {"t": 2, "c": 3, "z": 5, "y": 23, "x": 29}


def whole(source: ZarrSource, t: int = 0, z: int = 0) -> NDArray[Any]:
    return source.read(t, z, slice(0, source.header.length("Y")), slice(0, source.header.length("X")))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("axes", ["yx", "xy", "zyx", "yxz", "cyx", "yxc", "xyzct", "tczyx", "tzcyx", "ctxzy"])
def test_windows_are_the_same_whatever_the_order_of_axes(tmp_path: Path, axes: str, version: Version) -> None:
    """What is read along a wrong axis looks like an image all the same."""
    pixels = numbers(*(LENGTHS[axis] for axis in axes))
    source = open_zarr(write_image(tmp_path / "a.zarr", pixels, axes, version=version))
    ordered = [axis for axis in "tzcyx" if axis in axes]
    expected = pixels.transpose([axes.index(axis) for axis in ordered])
    expected = expected[(None,) * (2 - len(set(axes) & set("tz")))]
    if "z" in axes and "t" not in axes:
        assert source.header.axes.startswith(("Z", "CZ"))
    if "t" in axes and "z" not in axes:
        expected = np.moveaxis(expected, 0, 1)
    assert source.header.axes == "".join(axis for axis in "TCZYX" if axis.lower() in axes)
    for t, z in itertools.product(range(source.header.length("T")), range(source.header.length("Z"))):
        plane = source.read(t, z, slice(3, 19), slice(7, 29))
        np.testing.assert_array_equal(plane, expected[t, z, ..., 3:19, 7:29])
        assert plane.flags.c_contiguous
        assert plane.dtype == np.uint16


def test_axes_of_one_place_that_are_no_axes_of_images_are_left_out(tmp_path: Path) -> None:
    pixels = numbers(1, 23, 1, 29)
    write_array(tmp_path / "0", pixels)
    axes = [{"name": name} for name in ("angle", "y", "tile", "x")]
    write_group(tmp_path, {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]})
    source = open_zarr(tmp_path)
    assert (source.header.axes, source.header.shape) == ("YX", (23, 29))
    np.testing.assert_array_equal(whole(source), pixels[0, :, 0])


def test_axes_of_space_with_other_names_are_taken_in_their_order(tmp_path: Path) -> None:
    pixels = numbers(5, 23, 29)
    write_array(tmp_path / "0", pixels)
    axes = [{"name": name, "type": "space"} for name in ("anterior", "dorsal", "left")]
    write_group(tmp_path, {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]})
    source = open_zarr(tmp_path)
    assert source.header.axes == "ZYX"
    np.testing.assert_array_equal(whole(source, z=4), pixels[4])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("chunks", [(1, 1, 8, 8), (2, 5, 8, 8), (1, 5, 64, 64), (2, 3, 23, 29)])
def test_chunks_of_any_shape_give_the_same_planes(
    tmp_path: Path, version: Version, chunks: tuple[int, int, int, int]
) -> None:
    pixels = numbers(2, 5, 23, 29)
    source = open_zarr(write_image(tmp_path / "a.zarr", pixels, "tzyx", version=version, chunks=chunks))
    for t, z in itertools.product(range(2), range(5)):
        np.testing.assert_array_equal(whole(source, t, z), pixels[t, z])


def test_chunks_of_many_planes_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the chunks gone after the first plane, the others can only come from what was kept."""
    monkeypatch.setattr(zarr_source, "AHEAD_BYTES", 0)
    pixels = numbers(5, 23, 29)
    root = write_image(tmp_path / "a.zarr", pixels, "zyx", chunks=(3, 13, 13))
    source = open_zarr(root)
    np.testing.assert_array_equal(whole(source, z=1), pixels[1])
    shutil.rmtree(root / "0" / "c")
    np.testing.assert_array_equal(whole(source, z=2), pixels[2])
    assert not whole(source, z=3).any()


@pytest.mark.parametrize("options", [{}, {"shards": (26, 26)}], ids=str)
def test_large_chunks_are_read_one_by_one_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(guarded_array, "LARGE_CHUNK", 100)
    pixels = numbers(61, 67)
    write_array(tmp_path / "a.zarr", pixels, **options)
    source = open_zarr(tmp_path / "a.zarr")
    with ThreadPoolExecutor(3) as pool:
        for plane in pool.map(lambda _: whole(source), range(6)):
            np.testing.assert_array_equal(plane, pixels)


@pytest.mark.parametrize(
    "options",
    [
        {"shards": (26, 26)},
        {"shards": {"shape": (26, 26), "index_location": "start"}},
        {"compressors": None},
        {"compressors": None, "shards": (26, 26)},
        {"serializer": {"name": "bytes", "configuration": {"endian": "big"}}},
        {"compressors": [{"name": "gzip", "configuration": {"level": 1}}]},
        {"compressors": [{"name": "blosc", "configuration": {"cname": "lz4"}}]},
        {"compressors": [{"name": "zstd", "configuration": {"level": 1, "checksum": True}}, {"name": "crc32c"}]},
        {"filters": [{"name": "transpose", "configuration": {"order": [1, 0]}}]},
        {"chunk_key_encoding": {"name": "default", "separator": "."}},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    ],
    ids=str,
)
def test_ways_to_store_arrays_of_format_3_are_read(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = numbers(61, 67)
    write_array(tmp_path / "a.zarr", pixels, **options)
    source = open_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(whole(source), pixels)
    np.testing.assert_array_equal(source.read(0, 0, slice(25, 27), slice(1, 66)), pixels[25:27, 1:66])


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": None},
        {"order": "F"},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        *({"compressors": {"id": name}} for name in ("zlib", "gzip", "bz2", "lzma", "lz4", "blosc", "zstd")),
        {"filters": [numcodecs.Delta("<u2")], "compressors": {"id": "zlib"}},
        {"filters": [numcodecs.Shuffle(2)], "compressors": None},
    ],
    ids=str,
)
def test_ways_to_store_arrays_of_format_2_are_read(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = numbers(61, 67)
    write_array(tmp_path / "a.zarr", pixels, version="0.4", **options)
    np.testing.assert_array_equal(whole(open_zarr(tmp_path / "a.zarr")), pixels)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("uint8", "uint8"),
        ("int8", "int8"),
        (">u2", "uint16"),
        ("int16", "int16"),
        ("uint32", "uint32"),
        (">i4", "int32"),
        ("float16", "float32"),
        (">f4", "float32"),
        ("float64", "float32"),
    ],
)
def test_numbers_keep_their_values_in_native_byte_order(
    tmp_path: Path, version: Version, stored: str, read: str
) -> None:
    pixels = (numbers(23, 29) % 127).astype(stored)
    write_array(tmp_path / "a.zarr", pixels, version=version)
    source = open_zarr(tmp_path / "a.zarr")
    plane = whole(source)
    assert source.header.dtype == read
    assert plane.dtype == np.dtype(read)
    np.testing.assert_array_equal(plane, pixels)


def test_bool_is_read_as_0_and_255(tmp_path: Path) -> None:
    pixels = numbers(23, 29) % 3 == 0
    write_array(tmp_path / "a.zarr", pixels)
    plane = whole(open_zarr(tmp_path / "a.zarr"))
    assert plane.dtype == np.uint8
    np.testing.assert_array_equal(plane, np.where(pixels, 255, 0))


def test_types_that_pixels_do_not_have_are_refused(tmp_path: Path) -> None:
    write_array(tmp_path / "a.zarr", np.ones((23, 29), np.complex64))
    with pytest.raises(ImageError, match="complex64"):
        open_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_whole_numbers_of_64_bits_are_read_as_they_are(tmp_path: Path, dtype: str, zarr_format: Any) -> None:
    """As those of a TIFF are: NumPy makes them by default."""
    pixels = np.arange(23 * 29).reshape(23, 29).astype(dtype)
    zarr.create_array(tmp_path / "a.zarr", data=pixels, chunks=(10, 10), zarr_format=zarr_format)
    plane = whole(open_zarr(tmp_path / "a.zarr"))
    assert plane.dtype == dtype
    np.testing.assert_array_equal(plane, pixels)


@pytest.mark.parametrize(("fill", "expected"), [(None, 0), (7.0, 7), (np.nan, 0), (np.inf, 0)])
def test_what_is_not_finite_takes_the_fill_value_in_every_window(
    tmp_path: Path, fill: float | None, expected: float
) -> None:
    """The lowest value of a window would depend on the window, and the nuclei at a seam with it."""
    pixels = numbers(23, 29, dtype="float32") + 100
    pixels[3:5, 4:20], pixels[7, 7] = np.nan, -np.inf
    write_array(tmp_path / "a.zarr", pixels, fill_value=fill)
    source = open_zarr(tmp_path / "a.zarr")
    plane = whole(source)
    np.testing.assert_array_equal(plane, np.where(np.isfinite(pixels), pixels, np.float32(expected)))
    np.testing.assert_array_equal(source.read(0, 0, slice(3, 5), slice(4, 9)), plane[3:5, 4:9])


def test_a_plane_without_any_finite_pixel_is_refused_when_it_is_read_whole(tmp_path: Path) -> None:
    write_array(tmp_path / "a.zarr", np.full((23, 29), np.nan, np.float32))
    source = open_zarr(tmp_path / "a.zarr")
    assert not source.read(0, 0, slice(0, 5), slice(0, 29)).any()
    with pytest.raises(ImageError, match="finite"):
        whole(source)


def test_floats_beyond_single_precision_are_refused(tmp_path: Path) -> None:
    write_array(tmp_path / "a.zarr", np.full((23, 29), 1e300))
    with pytest.raises(ImageError, match="single precision"):
        whole(open_zarr(tmp_path / "a.zarr"))


@pytest.mark.parametrize("names", [("Red", "Green", "Blue"), ("R", "G", "B", "A"), ("red", "green", "blue", "alpha")])
def test_channels_named_as_colours_are_a_colour_picture(tmp_path: Path, names: tuple[str, ...]) -> None:
    pixels = numbers(len(names), 23, 29)
    source = open_zarr(write_image(tmp_path / "a.zarr", pixels, "cyx", channels=names))
    assert (source.header.axes, source.header.shape, source.header.channels) == ("YXS", (23, 29, 3), ())
    np.testing.assert_array_equal(whole(source), np.moveaxis(pixels[:3], 0, -1))
    window = source.read(0, 0, slice(2, 5), slice(7, 11))
    np.testing.assert_array_equal(window, np.moveaxis(pixels[:3, 2:5, 7:11], 0, -1))


@pytest.mark.parametrize("names", [("DAPI", "GFP", "RFP"), ("Blue", "Green", "Red"), None])
def test_three_channels_with_other_names_stay_channels(tmp_path: Path, names: tuple[str, ...] | None) -> None:
    """What a viewer paints red, green and blue are stains, and DAPI is most often the blue one."""
    pixels = numbers(3, 23, 29)
    source = open_zarr(write_image(tmp_path / "a.zarr", pixels, "cyx", channels=names))
    assert source.header.axes == "CYX"
    np.testing.assert_array_equal(whole(source), pixels)


def test_an_axis_of_samples_is_a_colour(tmp_path: Path) -> None:
    pixels = numbers(2, 23, 29, 4)
    write_array(tmp_path / "a.zarr", pixels, dimension_names=["T", "Y", "X", "S"])
    source = open_zarr(tmp_path / "a.zarr")
    assert (source.header.axes, source.header.shape) == ("TYXS", (2, 23, 29, 3))
    np.testing.assert_array_equal(whole(source, t=1), pixels[1, ..., :3])


def test_threads_read_at_once_and_get_their_own_windows(tmp_path: Path) -> None:
    pixels = numbers(4, 61, 67, dtype="uint32")
    write_array(tmp_path / "a.zarr", pixels, chunks=(2, 16, 16), dimension_names=["z", "y", "x"])
    source = open_zarr(tmp_path / "a.zarr")
    chance = random.Random(1)
    wanted = [(chance.randrange(4), chance.randrange(50), chance.randrange(50)) for _ in range(60)]
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda at: source.read(0, at[0], slice(at[1], at[1] + 9), slice(at[2], at[2] + 7)), wanted)
        )
    for (z, y, x), window in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(window, pixels[z, y : y + 9, x : x + 7])


@pytest.mark.parametrize(
    ("t", "z", "rows", "columns"),
    [
        (1, 0, slice(0, 5), slice(0, 5)),
        (0, -1, slice(0, 5), slice(0, 5)),
        (0, 0, slice(0, 24), slice(0, 5)),
        (0, 0, slice(0, 5), slice(-5, 5)),
        (0, 0, slice(0, 5, 2), slice(0, 5)),
        (0, 0, slice(3, 3), slice(0, 5)),
        (0, 0, slice(None), slice(0, 5)),
    ],
)
def test_a_window_outside_of_the_image_is_a_mistake_of_the_caller(
    tmp_path: Path, t: int, z: int, rows: slice, columns: slice
) -> None:
    """Arrays would return a smaller window without a word."""
    write_array(tmp_path / "a.zarr", numbers(23, 29))
    with pytest.raises(ValueError, match="outside"):
        open_zarr(tmp_path / "a.zarr").read(t, z, rows, columns)


def test_an_array_of_any_size_is_opened_and_read_by_windows(tmp_path: Path) -> None:
    import zarr

    side = 2**40
    array = zarr.create_array(tmp_path / "a.zarr", shape=(side, side), chunks=(16, 16), dtype="uint16", fill_value=3)
    array[side - 5 :, side - 7 :] = 9
    source = open_zarr(tmp_path / "a.zarr")
    assert source.header.shape == (side, side)
    assert source.header.bytes == 2 * side**2
    window = source.read(0, 0, slice(side - 6, side), slice(side - 8, side))
    assert (window[1:, 1:] == 9).all()
    assert (window[0] == 3).all()


def test_closing_lets_go_and_the_header_stays(tmp_path: Path) -> None:
    source = open_zarr(write_image(tmp_path / "a.zarr", numbers(5, 23, 29), "zyx", chunks=(5, 23, 29)))
    whole(source)
    source.close()
    assert source.header.axes == "ZYX"


def test_an_image_below_a_folder_of_stores_has_the_same_header(tmp_path: Path) -> None:
    """A run over a folder opens `plate.zarr/A/1/0` below it, and compares the header with that of the plan."""
    write_image(tmp_path / "x" / "a.zarr" / "B" / "2", numbers(23, 29), "yx")
    assert open_zarr(tmp_path, "x/a.zarr/B/2").header == open_zarr(tmp_path / "x" / "a.zarr", "B/2").header


@pytest.mark.parametrize("path", ["nothing", "A"])
def test_a_path_without_an_image_is_refused(tmp_path: Path, path: str) -> None:
    write_group(tmp_path / "A")
    with pytest.raises(ImageError):
        open_zarr(tmp_path, path)


def test_a_missing_chunk_is_empty_unless_zarr_is_told_that_every_chunk_was_written(tmp_path: Path) -> None:
    root = write_array(tmp_path / "a.zarr", numbers(61, 47) + 1, chunks=(10, 10))
    (root / "c" / "0" / "0").unlink()
    assert not open_zarr(root).read(0, 0, slice(0, 10), slice(0, 10)).any()
    if "read_missing_chunks" not in zarr.config.get("array"):
        pytest.skip("needs zarr 3.2")
    with zarr.config.set({"array.read_missing_chunks": False}):
        source = open_zarr(root)
        assert source.read(0, 0, slice(10, 20), slice(10, 20)).all()
        with pytest.raises(ImageError, match=r"\A[^\n]*ChunkNotFoundError[^\n]*\Z"):
            source.read(0, 0, slice(0, 20), slice(0, 20))
