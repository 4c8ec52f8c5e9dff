from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pictures import disks

from nucseg_batch.arrays.seams import MergedIds, RegionSeams, grown, join, spans

SHAPE = (97, 131)
CORES = [(slice(a, b), slice(c, d)) for a, b in ((0, 41), (41, 97)) for c, d in ((0, 67), (67, 131))]
CENTRES = [(20, 30), (41, 66), (60, 20), (15, 100), (70, 67), (80, 110), (39, 10)]
"""The second lies on the corner of all four parts, the fifth and the seventh on one seam each."""


def view(
    labels: np.ndarray, core: tuple[slice, slice], roots: dict[int, tuple[int, int]]
) -> tuple[RegionSeams, np.ndarray]:
    """What a part says that sees `labels` of the plane, with a root for each; and its labels with their rim."""
    wide = labels[grown(core, SHAPE)]
    y, x = (slice(c.start - g.start, c.stop - g.start) for c, g in zip(core, grown(core, SHAPE), strict=True))
    owned = {
        k for k, (a, b) in roots.items() if core[0].start <= a < core[0].stop and core[1].start <= b < core[1].stop
    }
    seen = sorted(owned | set(np.unique(wide[y, x]).tolist()) - {0}, key=lambda k: roots[k])
    table = np.zeros(labels.max() + 1, np.int64)
    table[seen] = np.arange(1, len(seen) + 1)
    wide = table[wide]
    inside = np.bincount(wide[y, x].ravel(), minlength=len(seen) + 1)[1:]
    part = RegionSeams(
        core,
        np.array([roots[k][0] * 1000 + roots[k][1] for k in seen], np.int64),
        np.array([k in owned for k in seen], bool),
        inside,
        np.array([(labels == k).sum() for k in seen], np.int64),
        spans(wide, core, SHAPE, len(seen)),
    )
    return part, wide


def views(
    labels: np.ndarray, roots: list[dict[int, tuple[int, int]]], seen: list[np.ndarray] | None = None
) -> list[tuple[RegionSeams, np.ndarray]]:
    """The views of all parts, each with roots, and if given labels, of its own."""
    return [view(labels if seen is None else seen[i], core, roots[i]) for i, core in enumerate(CORES)]


def plane_of(found: list[tuple[RegionSeams, np.ndarray]], joined: MergedIds) -> np.ndarray:
    plane = np.zeros(SHAPE, np.int64)
    for (part, labels), ids in zip(found, joined.ids, strict=True):
        whole = grown(part.core, SHAPE)
        inner = tuple(slice(c.start - g.start, c.stop - g.start) for c, g in zip(part.core, whole, strict=True))
        plane[part.core] = ids[labels[inner]]
    return plane


def joined_views(found: list[tuple[RegionSeams, np.ndarray]]) -> tuple[MergedIds, np.ndarray]:
    joined = join([part for part, _ in found], lambda i: found[i][1], SHAPE)
    return joined, plane_of(found, joined)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


@pytest.fixture
def labels() -> np.ndarray:
    return disks(SHAPE, CENTRES, 9)


@pytest.fixture
def roots() -> dict[int, tuple[int, int]]:
    return dict(enumerate(CENTRES, start=1))


def test_a_nucleus_on_a_corner_of_four_parts_gets_one_id(labels: np.ndarray, roots: dict) -> None:
    """And no part has to be asked for its pixels: roots say it all."""
    found = views(labels, [roots] * 4)
    joined = join([part for part, _ in found], lambda i: pytest.fail(f"labels of {i} are read"), SHAPE)
    plane = plane_of(found, joined)
    assert same_partition(plane, labels)
    assert len(np.unique(plane[39:43, 65:69])) == 1
    assert sorted(np.unique(plane).tolist()) == list(range(8))
    assert joined.lost == joined.lost_pixels == 0
    np.testing.assert_array_equal(joined.pixels, np.bincount(plane.ravel())[1:])


def test_ids_follow_the_parts_and_then_the_roots(labels: np.ndarray, roots: dict) -> None:
    """So that rows of parts, one after the other, are already sorted by label."""
    joined, plane = joined_views(views(labels, [roots] * 4))
    order = [plane[roots[k]] for k in (1, 7, 4, 3, 2, 5, 6)]
    assert order != sorted(order)  # 2 lies at (41, 66), in the third part, before 3
    assert [plane[roots[k]] for k in (1, 7, 4, 2, 3, 5, 6)] == [1, 2, 3, 4, 5, 6, 7]
    assert (np.diff(joined.part) >= 0).all()
    assert [joined.of(i)[1].tolist() for i in range(4)] == [[1, 2], [3], [4, 5], [6, 7]]
    for i in range(4):
        label, new = joined.of(i)
        np.testing.assert_array_equal(joined.ids[i][label], new)


@pytest.mark.parametrize("other", range(4))
def test_a_root_that_one_part_sees_elsewhere_changes_nothing(labels: np.ndarray, roots: dict, other: int) -> None:
    """A pixel aside, over a seam even: so that two parts own it, or none. The shared pixels decide."""
    for shift in ((0, 1), (1, 0), (-1, -1), (0, -1), (2, 2)):
        moved = {k: (y + shift[0], x + shift[1]) for k, (y, x) in roots.items()}
        joined, plane = joined_views(views(labels, [moved if i == other else roots for i in range(4)]))
        assert same_partition(plane, labels), shift
        assert joined.lost == 0
        assert sorted(np.unique(plane).tolist()) == list(range(8))
        assert joined.keys.size == 7


def test_pixels_that_parts_see_differently_stay_with_their_nucleus(labels: np.ndarray, roots: dict) -> None:
    """Outlines that differ by a pixel on the two sides of a seam are still one nucleus."""
    wider = disks(SHAPE, CENTRES, 10)
    moved = {k: (y, x + 1) for k, (y, x) in roots.items()}
    joined, plane = joined_views(views(labels, [roots, moved, roots, moved], [labels, wider, labels, wider]))
    assert joined.keys.size == 7
    assert same_partition(np.where(labels > 0, plane, 0), labels)


def test_what_only_one_part_believes_in_is_kept_where_it_lies_and_else_counted(labels: np.ndarray, roots: dict) -> None:
    """A nucleus whose owner does not see it: most of it here, it is kept; a sliver of it here, it is lost, and said."""
    fifth = np.where(labels == 5, 0, labels)  # at (70, 67): columns 58 to 76, the seam at 67, its root right of it
    without = {k: v for k, v in roots.items() if k != 5}
    joined, plane = joined_views(views(labels, [roots, roots, roots, without], [labels, labels, labels, fifth]))
    left = np.count_nonzero(labels[:, :67] == 5)
    assert joined.keys.size == 6
    assert (joined.lost, joined.lost_pixels) == (1, left)
    assert (plane[labels == 5] == 0).all()

    centres = [*CENTRES[:4], (70, 63), *CENTRES[5:]]
    labels = disks(SHAPE, centres, 9)
    seen = np.where(labels == 5, 0, labels)
    far = {**roots, 5: (70, 68)}
    joined, plane = joined_views(views(labels, [far, far, far, without], [labels, labels, labels, seen]))
    assert joined.keys.size == 7
    assert joined.lost == 0
    left = labels == 5
    left[:, 67:] = False
    assert len(np.unique(plane[left])) == 1
    assert plane[left].min() > 0


def test_a_nucleus_whose_pixels_all_fall_away_has_no_id(labels: np.ndarray, roots: dict) -> None:
    """Ids are dense in the mask: each occurs."""
    part, wide = view(labels, CORES[0], roots)
    ghost = replace(
        part,
        keys=np.append(part.keys, 12_012),
        owned=np.append(part.owned, True),
        pixels=np.append(part.pixels, 0),
        areas=np.append(part.areas, 30),
        spans=np.append(part.spans, 0),
    )
    found = views(labels, [roots] * 4)
    joined, plane = joined_views([(ghost, wide), *found[1:]])
    assert joined.keys.size == 7
    assert sorted(np.unique(plane).tolist()) == list(range(8))


def test_parts_can_be_joined_in_two_steps(labels: np.ndarray, roots: dict) -> None:
    """As tiles to regions and regions to a plane: nuclei that belong further away keep their roots meanwhile."""
    found = views(labels, [roots] * 4)

    def below(keys: np.ndarray) -> np.ndarray:
        return keys // 1000 >= 41

    upper = join([part for part, _ in found[:2]], lambda i: found[i][1], SHAPE, beyond=below)
    assert [divmod(int(key), 1000) for key in upper.keys] == [(15, 100), (20, 30), (39, 10), (41, 66)]
    assert upper.owned.tolist() == [True, True, True, False]
    whole = (labels[:41] == 2).sum()
    assert upper.pixels[3] == whole


def test_no_parts_or_no_nuclei_give_no_ids(labels: np.ndarray) -> None:
    """An empty plane is not an error."""
    empty = [view(np.zeros_like(labels), core, {}) for core in CORES]
    joined, plane = joined_views(empty)
    assert joined.keys.size == 0
    assert not plane.any()
    assert [ids.tolist() for ids in joined.ids] == [[0]] * 4
