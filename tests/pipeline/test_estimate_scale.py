from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from pictures import disks, fluorescence
from scipy import ndimage

from nucseg_batch.arrays.scale_search import ScaleTrial
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.header_scan import scan_headers
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.pipeline.estimate_scale import NUCLEUS_MICROMETRES, SAMPLE, choose_scales, is_mixed
from nucseg_batch.plan import Plan, Scales, make_plan
from nucseg_batch.settings import SegmentSettings


class Looker:
    """Finds bright nuclei whatever their size, and remembers where each look began and what it saw."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.shapes: list[tuple[int, ...]] = []

    def look(self, pixels: Any, begin: float) -> ScaleTrial:
        self.begun.append(begin)
        self.shapes.append(pixels.shape)
        plane = pixels if pixels.ndim == 2 else pixels.max(axis=2)
        return ScaleTrial(ndimage.label(plane > 100)[0].astype(np.int32), begin)


def nuclei(radius: int, seed: int = 0) -> np.ndarray:
    return fluorescence(disks((131, 137), [(40, 40), (90, 90)], radius), seed=seed)


def planned(folder: Path, settings: SegmentSettings | None = None) -> Plan:
    scanned = scan_headers(discover(str(folder)), settings or SegmentSettings(), lambda _: None)
    return make_plan(scanned.images, scanned.failures)


def chosen(folder: Path, **options: Any) -> tuple[Scales, Looker]:
    looker, settings = Looker(), SegmentSettings(**options)
    with ImageReader(folder, settings) as images:
        return choose_scales(planned(folder), images, looker.look, 26.0, settings, lambda _: None), looker


def test_images_that_agree_get_one_scale_and_a_sample_is_enough(tmp_path: Path) -> None:
    """A plate is treated alike, and a million images are not all looked at twice."""
    for i in range(30):
        (tmp_path / f"{i:02d}.png").write_bytes(imagecodecs.png_encode(nuclei(26, i)))
    scales, looker = chosen(tmp_path)
    assert len(looker.begun) == SAMPLE
    assert scales.grey == 0.5
    assert scales.adapt == "outliers"
    assert "51 to 52 pixels" in scales.reason or "52 to 52 pixels" in scales.reason


def test_grey_and_colour_images_have_scales_of_their_own(tmp_path: Path) -> None:
    """They are of different microscopes, and often in one folder."""
    colour = np.repeat(nuclei(26)[..., None], 3, axis=2)
    for i in range(6):
        (tmp_path / f"g{i}.png").write_bytes(imagecodecs.png_encode(nuclei(13, i)))
        (tmp_path / f"c{i}.png").write_bytes(imagecodecs.png_encode(colour))
    scales, _ = chosen(tmp_path)
    assert (scales.grey, scales.colour, scales.adapt) == (1.0, 0.5, "outliers")
    assert (scales.of(1), scales.of(3)) == (1.0, 0.5)


def test_a_mixture_of_microscopes_has_every_image_looked_at(tmp_path: Path) -> None:
    """No scale fits nuclei of 14 and of 52 pixels."""
    for i in range(12):
        (tmp_path / f"{i:02d}.png").write_bytes(imagecodecs.png_encode(nuclei((7, 26)[i % 2], i)))
    assert chosen(tmp_path)[0].adapt == "each"


def test_a_given_diameter_is_taken_at_its_word(tmp_path: Path) -> None:
    """Nothing is looked at, and all images are treated alike."""
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(nuclei(13)))
    scales, looker = chosen(tmp_path, diameter=65.0)
    assert (scales.grey, scales.colour, scales.adapt) == (0.4, 0.4, "no")
    assert not looker.begun
    assert chosen(tmp_path, diameter=26.5)[0].grey == 1.0, "so small a change is not worth rescaling"


def test_the_size_of_a_pixel_says_where_to_begin_to_look(tmp_path: Path) -> None:
    """From the option, else from the file itself."""
    metadata = {"axes": "YX", "PhysicalSizeX": NUCLEUS_MICROMETRES / 52, "PhysicalSizeXUnit": "µm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", nuclei(26), ome=True, metadata=metadata)
    assert chosen(tmp_path)[1].begun == [0.5]
    assert chosen(tmp_path, pixel_size=NUCLEUS_MICROMETRES / 13)[1].begun == [2.0]


def test_of_a_large_image_only_the_middle_is_looked_at(tmp_path: Path) -> None:
    """A slide would take minutes."""
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.tile(nuclei(13), (9, 17))))
    assert chosen(tmp_path)[1].shapes == [(1024, 1024)]


def test_empty_images_leave_the_scale_as_it_is(tmp_path: Path) -> None:
    """And say so."""
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.zeros((31, 37), np.uint8)))
    scales, _ = chosen(tmp_path)
    assert scales.grey == 1.0
    assert "no nuclei" in scales.reason


@pytest.mark.parametrize(
    ("widths", "mixed"),
    [
        ([], False),
        ([20.0], False),
        ([20.0, 40.0], True),
        ([5.0, 20.0, 21.0, 22.0, 23.0, 90.0], False),
        ([10.0, 10.0, 20.0, 21.0, 22.0, 22.0], True),
    ],
)
def test_one_odd_image_does_not_make_a_mixture(widths: list[float], mixed: bool) -> None:
    """Dust in one well must not slow down the plate."""
    assert is_mixed(widths) == mixed
