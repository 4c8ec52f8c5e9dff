"""Outlines along pixel edges: they cover exactly the pixels of their label, whatever its shape."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import MultiPolygon

from nucseg_batch.arrays.outlines import ring_area, trace


def shapely_of(polygons: list) -> MultiPolygon:
    return MultiPolygon([(polygon[0], polygon[1:]) for polygon in polygons])


@pytest.mark.parametrize("seed", range(40))
def test_polygons_of_any_mask_are_valid_and_have_the_area_of_their_label(seed: int) -> None:
    """Masks of noise have every kind of corner, hole and piece; a reader's area must be the pixel count, exactly."""
    random = np.random.default_rng(seed)
    mask = random.integers(0, random.integers(2, 5), (random.integers(1, 17), random.integers(1, 23))).astype(np.uint32)
    traced = trace(mask)
    assert traced.keys() == set(np.unique(mask).tolist()) - {0}
    for label, polygons in traced.items():
        shape = shapely_of(polygons)
        assert shape.is_valid
        assert shape.area == sum(ring_area(ring) for polygon in polygons for ring in polygon) == (mask == label).sum()
        rows, columns = np.nonzero(mask == label)
        assert shape.bounds == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_a_hole_is_a_ring_after_the_outer_one_and_has_a_negative_area() -> None:
    """Readers of GeoJSON and COCO take the first ring for the outside."""
    mask = np.zeros((7, 11), np.uint8)
    mask[1:6, 2:9] = 3
    mask[3, 4:7] = 0
    ((outer, hole),) = trace(mask)[3]
    assert ring_area(outer) == 35
    assert ring_area(hole) == -3
    assert sorted(map(tuple, outer.tolist())) == [(2, 1), (2, 6), (9, 1), (9, 6)]


def test_pixels_that_touch_at_a_corner_are_two_polygons() -> None:
    """One ring through the corner would touch itself, which JTS in QuPath takes for invalid."""
    polygons = trace(np.array([[5, 0], [0, 5]]))[5]
    assert [len(polygon) for polygon in polygons] == [1, 1]


def test_a_hole_that_touches_the_outside_at_a_corner_stays_a_hole() -> None:
    """The piece goes round it, so it is one polygon of two rings that meet in a point."""
    mask = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    (polygon,) = trace(mask)[1]
    assert sorted(map(ring_area, polygon)) == [-1, 12]
    assert shapely_of([polygon]).is_valid


def test_neighbours_share_their_border() -> None:
    """Nuclei that touch have one line between them, without gap or overlap."""
    mask = np.repeat(np.array([[4, 4, 9, 9, 9]], np.uint32), 3, axis=0)
    left, right = (shapely_of(polygons) for polygons in trace(mask).values())
    assert left.intersection(right).length == 3
    assert left.intersection(right).area == 0


def test_a_mask_without_nuclei_has_no_outlines() -> None:
    """Empty images are common."""
    assert trace(np.zeros((13, 7), np.uint32)) == {}
