"""Nuclei of successive frames become tracks: by overlap, by distance, over gaps, and with mothers."""

from __future__ import annotations

import numpy as np
import pytest
from movies import movie, tracked
from numpy.typing import NDArray

from nucseg_batch.arrays.label_overlaps import Overlaps
from nucseg_batch.arrays.tracks import Tracks, track

pytest.importorskip("laptrack")

NONE = Overlaps(*(np.zeros(0, np.int64) for _ in range(3)))
AREA = 150.0


def nuclei(*places: tuple[float, ...]) -> NDArray[np.float64]:
    """Row and column of each, and its area where it has another one than AREA."""
    return np.array([(*place, AREA)[:3] for place in places], np.float64).reshape(-1, 3)


def ids(tracks: Tracks) -> list[list[int]]:
    return [one.tolist() for one in tracks.ids]


def test_nuclei_that_overlap_nothing_are_linked_by_distance() -> None:
    """To the nearest one as a whole, whatever the order of labels."""
    frames = [nuclei((10, 10), (40, 45)), nuclei((44, 40), (15, 12)), nuclei((18, 14), (47, 38))]
    assert ids(track(frames, [NONE, NONE])) == [[1, 2], [2, 1], [1, 2]]


def test_overlap_decides_before_distance() -> None:
    """A label that shares most of its pixels is the same nucleus, though another centroid is nearer."""
    frames = [nuclei((10, 10), (10, 20)), nuclei((10, 14), (10, 11))]
    shared = Overlaps(np.array([1, 2]), np.array([1, 1]), np.array([110, 20]))
    assert ids(track(frames, [shared]))[1][0] == 1
    assert ids(track(frames, [NONE])) == [[1, 2], [2, 1]]


def test_a_nucleus_that_moves_farther_than_its_width_is_another_one() -> None:
    """Its radius is 6.9 pixels here."""
    near, far = (track([nuclei((10, 10)), nuclei((10, 10 + step))], [NONE]) for step in (13.0, 14.5))
    assert (ids(near), ids(far)) == ([[1], [1]], [[1], [2]])


@pytest.mark.parametrize(("frames", "last"), [(1, 1), (2, 2)])
def test_a_gap_of_one_frame_is_closed(frames: int, last: int) -> None:
    """A longer one is not."""
    movie = [nuclei((10, 10), (50, 50)), *[nuclei((50, 50))] * frames, nuclei((12, 10), (50, 50))]
    same = Overlaps(np.array([2]), np.array([1]), np.array([150]))
    one = Overlaps(np.array([1]), np.array([1]), np.array([150]))
    back = Overlaps(np.array([1]), np.array([2]), np.array([150]))
    found = ids(track(movie, [same, *[one] * (frames - 1), back]))
    assert found[-1] == [1 if last == 1 else 3, 2]


def test_daughters_have_tracks_of_their_own_and_their_mother() -> None:
    """The mother's ends. A nucleus as large as it that appears beside it is none."""
    frames = [nuclei((30, 30), (70, 30)), nuclei((30, 25, 80), (30, 35, 80), (70, 30), (70, 42))]
    found = track(frames, [Overlaps(np.array([2]), np.array([3]), np.array([150]))])
    assert ids(found) == [[1, 2], [3, 4, 2, 5]]
    assert found.parents.tolist() == [0, 0, 0, 1, 1, 0]


@pytest.mark.parametrize("empty", [(), (0,), (1,), (0, 1, 2)])
def test_frames_without_nuclei(empty: tuple[int, ...]) -> None:
    """Anywhere in the movie, and all of it."""
    frames = [nuclei() if t in empty else nuclei((10, 10)) for t in range(3)]
    found = track(frames, [NONE, NONE])
    assert ids(found) == [[] if t in empty else [1] for t in range(3)]


def test_a_movie_of_one_frame() -> None:
    """Each nucleus is a track."""
    assert ids(track([nuclei((10, 10), (30, 30))], [])) == [[1, 2]]


def test_a_nucleus_that_appears_beside_one_that_stays_as_large_is_no_daughter() -> None:
    """Though it is smaller: both together would be much larger than the mother."""
    frames = [nuclei((30, 30)), nuclei((30, 31), (30, 42, 100))]
    found = track(frames, [NONE])
    assert ids(found) == [[1], [1, 2]]
    assert found.parents.tolist() == [0, 0, 0]


def test_a_simulated_movie_has_its_true_tracks() -> None:
    """Divisions included, while nuclei move a pixel or two from frame to frame."""
    truth = movie(23, (151, 167), 18, speed=1.0, seed=3)
    labels = truth.labels()
    found = tracked(labels)
    own = [
        [int(frame[labels[t] == label][0]) for label in range(1, labels[t].max() + 1)]
        for t, frame in enumerate(truth.tracks)
    ]
    pairs = {(a, b) for t, one in enumerate(found.ids) for a, b in zip(own[t], one.tolist(), strict=True)}
    assert len(pairs) == len(found.parents) - 1 == len({a for a, _ in pairs})
    number = dict(pairs)
    mothers = {number[child]: number.get(mother, 0) for child, mother in truth.parents.items() if child in number}
    assert len(set(mothers.values())) > 5
    assert found.parents.tolist()[1:] == [mothers[one] for one in sorted(mothers)]
