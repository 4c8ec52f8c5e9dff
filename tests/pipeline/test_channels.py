"""What the network is shown of colour pictures: one rule for every way in which pixels are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from pictures import disks, fluorescence

from nucseg_batch.executors.colours import colour_assumptions
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.header_scan import scan_headers
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.pipeline.channels import (
    MOST_WINDOWS,
    network_channel_count,
    resolve_channel,
    resolve_channel_of_pixels,
    select_channels,
)
from nucseg_batch.plan import ImageInfo, Plan, Plane, Scales, make_plan
from nucseg_batch.settings import SegmentSettings

SHAPE = (97, 131)
NUCLEI = fluorescence(disks(SHAPE, [(25, 30), (70, 90)], 9), seed=1)
OTHER = fluorescence(disks(SHAPE, [(60, 30), (20, 110)], 9), seed=2)
NOTHING = np.zeros_like(NUCLEI)
BLUE = np.stack([NOTHING, NOTHING, NUCLEI], -1)
BOTH = np.stack([NOTHING, OTHER, NUCLEI], -1)
COLOUR = ImageInfo("a.png", 1, 1, *SHAPE, 3, "uint8")


def planned(folder: Path, **options: int) -> Plan:
    settings = SegmentSettings(**options)  # type: ignore[arg-type]
    scanned = scan_headers(discover(str(folder)), settings, lambda _: None)
    return make_plan(scanned.images, scanned.failures, region=settings.region)


def test_the_only_colour_is_shown_and_measured_as_a_grey_picture_would_be() -> None:
    channel = resolve_channel_of_pixels(BLUE, COLOUR, "auto")
    shown = select_channels(BLUE, COLOUR, channel)
    assert channel == "blue"
    assert shown.pixels.flags.c_contiguous
    np.testing.assert_array_equal(shown.pixels, NUCLEI)
    np.testing.assert_array_equal(shown.intensity, NUCLEI)


def test_pictures_of_several_colours_and_those_of_which_a_channel_was_chosen_are_not_judged() -> None:
    assert resolve_channel_of_pixels(BOTH, COLOUR, "auto") == "rgb"
    np.testing.assert_array_equal(select_channels(BOTH, COLOUR, "rgb").pixels, BOTH)
    np.testing.assert_array_equal(
        select_channels(BLUE, COLOUR, resolve_channel_of_pixels(BLUE, COLOUR, "rgb")).pixels, BLUE
    )
    assert resolve_channel_of_pixels(BLUE, COLOUR, "green") == "green"
    assert resolve_channel_of_pixels(BLUE, COLOUR, "each") == "blue"


@pytest.mark.parametrize(("channel", "place"), [("red", 0), ("Green", 1), ("BLUE", 2)])
def test_the_case_of_a_colour_does_not_matter(channel: str, place: int) -> None:
    np.testing.assert_array_equal(select_channels(BOTH, COLOUR, channel).pixels, BOTH[..., place])


@pytest.mark.parametrize("channel", ["red", "green", "blue", "grey", "Grey"])
def test_the_scale_is_that_of_what_the_network_is_shown(channel: str) -> None:
    scales = Scales(grey=0.5, colour=2.0)
    assert scales.of(network_channel_count(COLOUR, channel)) == 0.5
    assert scales.of(network_channel_count(COLOUR, resolve_channel_of_pixels(BLUE, COLOUR, "auto"))) == 0.5
    assert scales.of(network_channel_count(COLOUR, resolve_channel_of_pixels(BOTH, COLOUR, "auto"))) == 2.0
    assert select_channels(BOTH, COLOUR, channel).pixels.ndim == 2


def test_a_large_plane_is_judged_as_a_whole_and_a_small_one_by_all_its_pixels(tmp_path: Path) -> None:
    """The second stain is in one corner: no window elsewhere has it."""
    corner = np.zeros((384, 448, 3), np.uint8)
    corner[: SHAPE[0], : SHAPE[1]] = BOTH
    corner[200 : 200 + SHAPE[0], 300 : 300 + SHAPE[1]] = BLUE
    alone = corner.copy()
    alone[..., :2] = 0
    for name, pixels in (("corner", corner), ("alone", alone)):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="rgb", tile=(64, 64))
    for region in (64, 512):
        settings = SegmentSettings(region=region)
        images = {image.key: image for stack in planned(tmp_path, region=region).label_arrays for image in stack.images}
        with ImageReader(tmp_path, settings) as opened:
            assert resolve_channel(opened, Plane(images["corner.tif"]), settings) == "rgb"
            assert resolve_channel(opened, Plane(images["alone.tif"]), settings) == "blue"


def test_of_a_very_large_plane_a_bounded_number_of_windows_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.zeros((2304, 2560, 3), np.uint8)
    pixels[..., 2] = np.arange(2560, dtype=np.uint16)[None] % 251
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(256, 256), compression="zlib")
    settings = SegmentSettings(region=256)
    (info,) = (image for stack in planned(tmp_path, region=256).label_arrays for image in stack.images)
    read: list[tuple[slice, slice]] = []
    whole = ImageReader.read

    def noted(self: ImageReader, plane: Plane, rows: slice, columns: slice) -> Any:
        read.append((rows, columns))
        return whole(self, plane, rows, columns)

    monkeypatch.setattr(ImageReader, "read", noted)
    with ImageReader(tmp_path, settings) as images:
        assert resolve_channel(images, Plane(info), settings) == "blue"
    assert len({(rows.start, columns.start) for rows, columns in read}) == len(read) == MOST_WINDOWS


def test_what_is_assumed_of_colours_is_reported_with_the_option_against_it(tmp_path: Path) -> None:
    for name, pixels in (("a", BLUE), ("b", BLUE), ("c", BOTH), ("d", NUCLEI)):
        (tmp_path / f"{name}.png").write_bytes(imagecodecs.png_encode(pixels))
    (one,) = colour_assumptions(planned(tmp_path), str(tmp_path), SegmentSettings())
    assert (one.kind, one.images, one.example, one.doubtful) == ("colour", 2, "a.png", False)
    assert "blue is the image" in one.what
    assert "2 of 3 colour pictures" in one.evidence
    assert "--channel rgb" in one.option
    assert colour_assumptions(planned(tmp_path), str(tmp_path), SegmentSettings(channel="grey")) == ()


def test_white_marks_and_noise_leave_doubt(tmp_path: Path) -> None:
    marked = BLUE.copy()
    marked[90:92, 100:120] = 255
    noisy = np.clip(BLUE + np.random.default_rng(0).normal(3, 2, BLUE.shape), 0, 255).astype(np.uint8)
    for name, pixels in (("marked", marked), ("noisy", noisy)):
        (tmp_path / f"{name}.png").write_bytes(imagecodecs.png_encode(pixels))
    found = colour_assumptions(planned(tmp_path), str(tmp_path), SegmentSettings())
    assert [one.doubtful for one in found] == [True, True]
    assert {"white marks" in one.evidence for one in found} == {True, False}
