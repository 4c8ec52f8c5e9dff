from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nucseg_batch.errors import ImageError
from nucseg_batch.files.bioio_source import BIOIO_SUFFIXES, open_bioio

INSTALLED = importlib.util.find_spec("bioio") is not None
with_bioio = pytest.mark.skipif(not INSTALLED, reason="needs bioio and bioio-ome-tiff")
ignore_warnings = pytest.mark.filterwarnings("ignore")  # plug-ins and what they are built on have many


@pytest.mark.skipif(INSTALLED, reason="needs an environment without bioio")
def test_without_bioio_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")
    with pytest.raises(ImageError, match=r"pip install 'nucseg-batch\[bioio\]'") as caught:
        open_bioio(tmp_path / "a.czi")
    assert "\n" not in str(caught.value)


def test_formats_of_three_makers_are_taken_for_images() -> None:
    assert {".czi", ".nd2", ".lif"} <= BIOIO_SUFFIXES


def test_what_is_no_file_is_refused_before_bioio_sees_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nd2")
    with pytest.raises(ImageError, match="regular file"):
        open_bioio(tmp_path / "a.nd2")
    with pytest.raises(ImageError, match="no longer there"):
        open_bioio(tmp_path / "b.nd2")


@with_bioio
@ignore_warnings
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_plane_and_channel_comes_as_it_was_written(tmp_path: Path, dtype: str) -> None:
    pixels = np.arange(2 * 3 * 5 * 31 * 37).reshape(2, 3, 5, 31, 37).astype(dtype)
    metadata = {
        "axes": "TZCYX",
        "Channel": {"Name": ["DAPI", "b", "c", "d", "e"]},
        **{f"PhysicalSize{axis}": 0.25 for axis in "XY"},
        **{f"PhysicalSize{axis}Unit": "µm" for axis in "XY"},
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, ome=True, metadata=metadata)
    source = open_bioio(tmp_path / "a.ome.tif")
    header = source.header
    assert (header.axes, header.shape, header.dtype) == ("TCZYX", (2, 5, 3, 31, 37), dtype)
    assert [channel.name for channel in header.channels] == ["DAPI", "b", "c", "d", "e"]
    assert header.pixel_size == pytest.approx(0.25)
    assert header.size == (tmp_path / "a.ome.tif").stat().st_size
    for t in range(2):
        for z in range(3):
            window = source.read(t, z, slice(3, 30), slice(5, 37))
            assert window.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(window, pixels[t, z, :, 3:30, 5:37])
    with pytest.raises(ValueError, match="outside"):
        source.read(0, 3, slice(0, 31), slice(0, 37))
    source.close()


@with_bioio
@ignore_warnings
def test_axes_of_one_place_are_left_out_but_for_channels(tmp_path: Path) -> None:
    pixels = np.arange(31 * 37, dtype=np.uint16).reshape(31, 37)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, ome=True, metadata={"axes": "YX"})
    source = open_bioio(tmp_path / "a.ome.tif")
    assert (source.header.axes, source.header.shape) == ("CYX", (1, 31, 37))
    assert source.header.pixel_size is None
    np.testing.assert_array_equal(source.read(0, 0, slice(0, 31), slice(0, 37)), pixels[None])


@with_bioio
@ignore_warnings
def test_samples_are_a_colour(tmp_path: Path) -> None:
    pixels = np.arange(31 * 37 * 3, dtype=np.uint8).reshape(31, 37, 3)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, ome=True, photometric="rgb", metadata={"axes": "YXS"})
    source = open_bioio(tmp_path / "a.ome.tif")
    assert (source.header.axes, source.header.shape, source.header.channels) == ("YXS", (31, 37, 3), ())
    np.testing.assert_array_equal(source.read(0, 0, slice(2, 9), slice(0, 37)), pixels[2:9])


@with_bioio
@ignore_warnings
def test_of_several_scenes_one_must_be_named(tmp_path: Path) -> None:
    """The first of twelve wells, taken in silence, is a result that looks complete."""
    pixels = np.arange(2 * 31 * 37, dtype=np.uint16).reshape(2, 31, 37)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for scene in pixels:
            file.write(scene, metadata={"axes": "YX"})
    with pytest.raises(ImageError, match="2 scenes"):
        open_bioio(tmp_path / "a.ome.tif")
    with pytest.raises(ImageError, match="no scene 2"):
        open_bioio(tmp_path / "a.ome.tif", scene=2)
    second = open_bioio(tmp_path / "a.ome.tif", scene=1)
    np.testing.assert_array_equal(second.read(0, 0, slice(0, 31), slice(0, 37)), pixels[1:])


@with_bioio
@ignore_warnings
@pytest.mark.parametrize("name", ["a.czi", "a.nd2", "a.lif", "a.dv", "a.ome.tif"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", bytes(4096)], ids=["empty", "text", "zeros"])
def test_a_damaged_file_is_an_error_of_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=r"\A[^\n]+\Z"):
        open_bioio(tmp_path / name)
    assert capfd.readouterr().err == ""


@with_bioio
@ignore_warnings
def test_types_that_pixels_do_not_have_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((31, 37), np.int64))
    with pytest.raises(ImageError, match="int64"):
        open_bioio(tmp_path / "a.tif")
