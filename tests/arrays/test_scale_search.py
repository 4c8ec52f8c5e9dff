from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pictures import disks

from nucseg_batch.arrays.scale_search import ScaleTrial, another_scale, fitting_scale, larger_scale, paying_diameter


def look(scale: float, radius: int, count: int = 4) -> ScaleTrial:
    """What a look at some scale found: disks of a radius."""
    places = [(30, 30), (30, 90), (90, 30), (90, 90)][:count]
    return ScaleTrial(disks((121, 127), places, radius), scale)


def test_the_width_is_that_of_the_nuclei_and_of_the_pieces_of_a_plain_mask() -> None:
    """A semantic model has one label; its width is not that of all nuclei together."""
    found = look(1.0, 13)
    assert found.width == pytest.approx(26, rel=0.03)
    assert ScaleTrial((found.labels > 0).astype(np.int32), 1.0).width == pytest.approx(26, rel=0.03)
    assert ScaleTrial(np.zeros((5, 7), np.int32), 1.0).width is None


@pytest.mark.parametrize(("radius", "scale"), [(13, None), (15, None), (26, 0.5), (7, 2.0)])
def test_an_image_is_looked_at_again_only_where_its_nuclei_do_not_fit(radius: int, scale: float | None) -> None:
    """Another look costs time; a quarter more or less does not matter."""
    assert another_scale(look(1.0, radius), 26.0) == scale


@pytest.mark.parametrize(("width", "wanted"), [(5.0, 26 / 2**0.5), (24.0, 24.0), (26.0, 26.0), (90.0, 26.0)])
def test_grey_images_are_enlarged_only_as_far_as_it_pays(width: float, wanted: float) -> None:
    """Nuclei are never made smaller than they are for it, and tissue is shown as large as the model knows it."""
    assert paying_diameter(width, 26.0, grey=True) == pytest.approx(wanted)
    assert paying_diameter(width, 26.0, grey=False) == 26.0


def test_an_empty_image_is_not_looked_at_again() -> None:
    """There is nothing that could fit better."""
    assert another_scale(ScaleTrial(np.zeros((5, 7), np.int32), 1.0), 26.0) is None


def test_the_scale_that_fits_is_that_at_which_nuclei_are_as_wide_as_the_model_knows_them() -> None:
    """At full scale large nuclei fall into pieces, at a quarter the look finds them whole."""
    pieces = ScaleTrial(disks((121, 127), [(y, x) for y in range(20, 110, 20) for x in range(20, 110, 20)], 6), 1.0)
    assert fitting_scale([pieces, look(0.5, 24), look(0.25, 26)], 26.0) == 0.5


def test_a_look_that_found_next_to_nothing_does_not_decide() -> None:
    """One speck of the right width is no evidence against a field of nuclei."""
    speck = ScaleTrial(disks((121, 127), [(60, 60)], 3), 4.0)
    assert fitting_scale([look(1.0, 18), speck], 26.0) == pytest.approx(0.5**0.5)


def test_cells_that_look_like_nuclei_from_afar_do_not_decide() -> None:
    """Their size is right and they cover much more; the network is only less certain of them."""
    nuclei = ScaleTrial(disks((121, 127), [(30, 30), (90, 90)], 9), 1.0, certainty=0.94)
    cells = ScaleTrial(disks((121, 127), [(30, 30), (90, 90)], 50), 0.25, certainty=0.87)
    assert fitting_scale([nuclei, cells], 26.0) == pytest.approx(2**0.5)
    assert fitting_scale([nuclei, replace(cells, certainty=0.94)], 26.0) == 0.25


def test_small_nuclei_ask_for_a_look_from_nearer() -> None:
    """Only where no look was as near already."""
    assert larger_scale([look(1.0, 6), look(0.5, 8)], 26.0) == 2.0
    assert larger_scale([look(1.0, 13), look(0.5, 14)], 26.0) is None
    assert larger_scale([ScaleTrial(np.zeros((5, 7), np.int32), 1.0)], 26.0) is None


def test_where_no_look_finds_anything_the_first_scale_stays() -> None:
    """An empty well is not an error."""
    blank = np.zeros((5, 7), np.int32)
    assert fitting_scale([ScaleTrial(blank, 2.0), ScaleTrial(blank, 1.0)], 26.0) == 2.0
