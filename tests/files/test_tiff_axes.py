"""TIFFs that do not say their axes: what is refused, what is assumed, and what `--axes` makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nucseg_batch.errors import ImageError, UsageError
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.header_scan import HeaderScan, scan_headers
from nucseg_batch.files.images import FileSource, open_file
from nucseg_batch.settings import SegmentSettings

SIZES = {"T": 3, "Z": 5, "C": 2, "Y": 41, "X": 53, "S": 3}
GREY: dict[str, Any] = {"photometric": "minisblack"}
WRITERS: dict[str, dict[str, Any]] = {
    "tifffile": {},
    "other software": {"metadata": None},
    "compressed": {"compression": "zlib"},
}


def array(axes: str) -> np.ndarray:
    rng = np.random.default_rng(len(axes))
    return rng.integers(0, 5000, [SIZES[axis] for axis in axes]).astype(np.uint16)


def written(folder: Path, pixels: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(folder / "a.tif", pixels, **GREY | options)
    return folder / "a.tif"


def opened(path: Path, axes: str | None = None) -> FileSource:
    return open_file(path, max_pixels=10**6, axes=axes)


def scanned(folder: Path, axes: str | None = None, channel: str = "auto") -> HeaderScan:
    return scan_headers(discover(str(folder), axes=axes), SegmentSettings(axes=axes, channel=channel), lambda _: None)


def assert_reads(source: FileSource, pixels: np.ndarray, axes: str) -> None:
    """Every plane and a window of it are those of `pixels`."""
    header = source.header
    assert sorted(header.axes) == sorted(axes)
    assert {axis: header.length(axis) for axis in axes} == dict(zip(axes, pixels.shape, strict=True))
    order = [axes.index(axis) for axis in "TZCYXS" if axis in axes]
    full = pixels.transpose(order)
    for axis in "ZT":
        full = full if axis in axes else np.expand_dims(full, 0 if axis == "T" or "T" not in axes else 1)
    rows, columns = slice(3, 20), slice(40, 53)
    for t in range(header.length("T")):
        for z in range(header.length("Z")):
            plane = full[t, z]
            whole = source.read(t, z, slice(0, SIZES["Y"]), slice(0, SIZES["X"]))
            np.testing.assert_array_equal(whole, plane)
            expected = plane[rows, columns] if "S" in axes else plane[..., rows, columns]
            np.testing.assert_array_equal(source.read(t, z, rows, columns), expected)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    "axes", ["YXC", "YCX", "CYX", "ZYX", "ZCYX", "CZYX", "ZYXC", "YXZC", "TZCYX", "TZYXC", "SYX", "ZSYX", "XYC"]
)
def test_a_stack_reads_by_the_axes_that_are_given(tmp_path: Path, axes: str, writer: str) -> None:
    if writer == "other software" and len(axes) > 3:
        pytest.skip("pages alone have one axis")
    pixels = array(axes)
    path = written(tmp_path, pixels, **WRITERS[writer])
    assert_reads(opened(path, axes), pixels, axes)
    assert_reads(opened(path, axes.lower()), pixels, axes)


def test_axes_of_one_place_may_be_left_out_or_named(tmp_path: Path) -> None:
    pixels = array("CYX")
    path = written(tmp_path, pixels[None])
    for given in ("CYX", "ZCYX"):
        assert_reads(opened(path, given), pixels, "CYX")


def test_white_as_zero_is_inverted_whatever_the_axes(tmp_path: Path) -> None:
    pixels = array("YXC")
    path = written(tmp_path, pixels, photometric="miniswhite")
    assert_reads(opened(path, "YXC"), 65535 - pixels, "YXC")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("axes", "options"), [("YXC", "--axes: YXC"), ("YCX", "--axes: YCX")])
def test_channels_in_another_place_are_refused_with_the_option_to_give(
    tmp_path: Path, axes: str, options: str, writer: str
) -> None:
    path = written(tmp_path, array(axes), **WRITERS[writer])
    with pytest.raises(ImageError, match=options) as caught:
        opened(path)
    assert "ZYX" in str(caught.value)


def test_as_many_planes_as_they_are_high_and_half_as_wide_are_refused(tmp_path: Path) -> None:
    """Twenty slices in the last axis of a square image look like as many narrow planes as it has rows."""
    for place, shape in enumerate([(64, 64, 20), (64, 20, 64), (64, 64, 32)]):
        (tmp_path / str(place)).mkdir()
        with pytest.raises(ImageError, match="not plausible"):
            opened(written(tmp_path / str(place), np.zeros(shape, np.uint16)))
    (tmp_path / "wide").mkdir()
    assert opened(written(tmp_path / "wide", np.zeros((64, 64, 40), np.uint16))).header.length("Z") == 64


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("writer", [*WRITERS, "ImageJ without axes"])
def test_few_pages_may_be_channels_or_slices_and_are_refused(tmp_path: Path, count: int, writer: str) -> None:
    pixels = np.resize(array("CYX"), (count, 41, 53))
    if writer == "ImageJ without axes":
        path = written(tmp_path, pixels, metadata=None, description=f"ImageJ=1.53t\nimages={count}\n")
    else:
        path = written(tmp_path, pixels, **WRITERS[writer])
    with pytest.raises(ImageError, match="--axes CYX or --axes ZYX"):
        opened(path)
    assert opened(path, "CYX").header.length("C") == count
    assert opened(path, "ZYX").header.length("Z") == count


def test_scanned_pages_and_colour_pages_are_no_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "bits.tif", array("CYX") > 2500, metadata=None, photometric="minisblack")
    tifffile.imwrite(tmp_path / "rgb.tif", array("CYXS").astype(np.uint8), metadata=None, photometric="rgb")
    for name in ("bits.tif", "rgb.tif"):
        assert opened(tmp_path / name).header.length("Z") == 2


def test_many_pages_are_slices_and_that_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, np.resize(array("ZYX"), (7, 41, 53)))
    (assumed,) = opened(path).header.assumptions
    assert (assumed.kind, assumed.doubtful) == ("axes", False)
    assert "7 pages are z-slices" in assumed.what
    assert "--axes TYX" in assumed.option
    (one,) = scanned(tmp_path).found.assumptions
    assert one.example == "a.tif"
    assert opened(path, "TYX").header.assumptions == ()


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_an_implausible_claim_of_a_description_leaves_doubt_and_can_be_overruled(tmp_path: Path, kind: str) -> None:
    """Whoever writes (y, x, c) as ImageJ or OME-TIFF without saying so gets a description of something else."""
    pixels = array("YXC")
    path = written(tmp_path, pixels, **{kind: True})
    (assumed,) = opened(path).header.assumptions
    assert assumed.doubtful
    assert "--axes YXC" in assumed.option
    assert_reads(opened(path, "YXC"), pixels, "YXC")
    assert opened(path, "YXC").header.assumptions == ()


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {}])
def test_axes_that_a_file_says_are_not_overruled(tmp_path: Path, options: dict[str, Any]) -> None:
    written(tmp_path, array("ZYX"), metadata={"axes": "ZYX"}, **options)
    found = scanned(tmp_path, "CYX")
    assert opened(tmp_path / "a.tif", "CYX").header.axes == "ZYX"
    assert any("--axes CYX is not used for 1 image" in note for note in found.found.notes)
    assert scanned(tmp_path, "ZYX").found.notes == ()


def test_axes_that_a_file_names_in_any_order_are_read(tmp_path: Path) -> None:
    pixels = array("YXC")
    assert_reads(opened(written(tmp_path, pixels, metadata={"axes": "YXC"})), pixels, "YXC")


@pytest.mark.parametrize(
    ("given", "message"),
    [("ZCYX", "names 4 axes, but it has 3"), ("SYX", "2 samples"), ("YX", "names 2 axes, but it has 3")],
)
def test_axes_that_do_not_fit_are_refused(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        opened(written(tmp_path, array("CYX")), given)


@pytest.mark.parametrize("axes", ["cyy", "yc", "zyxq", "cyxs", ""])
def test_letters_that_are_no_axes_are_refused(axes: str) -> None:
    with pytest.raises(UsageError, match="axes must be"):
        SegmentSettings(axes=axes)


def test_channels_in_the_last_axis_are_planned_as_one_plane(tmp_path: Path) -> None:
    written(tmp_path, array("YXC"))
    (image,) = scanned(tmp_path, "yxc", "1").images
    assert (image.height, image.width, image.names, image.nuclei, image.plane_count) == (41, 53, ("0", "1"), 1, 1)


def test_a_cut_file_is_refused_whatever_its_axes(tmp_path: Path) -> None:
    path = written(tmp_path, array("YXC"))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageError, match=r"cut|truncated|ended"):
        opened(path, "YXC").read(0, 0, slice(0, 41), slice(0, 53))
