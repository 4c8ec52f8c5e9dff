"""Nuclei of successive frames become tracks: by overlap, by distance, over gaps, and with mothers."""

from __future__ import annotations

import numpy as np
import pytest
from movies import Tracks, movie, track, tracked, with_errors
from numpy.typing import NDArray

from nucseg_batch.arrays.label_overlaps import Overlaps
from nucseg_batch.arrays.tracks import MERGED

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


def squares(*frames: dict[int, tuple[int, int, int, int]]) -> NDArray[np.uint32]:
    """Labels (t, 41, 47) of rectangles, given by first row, first column, height and width."""
    found = np.zeros((len(frames), 41, 47), np.uint32)
    for image, boxes in zip(found, frames, strict=True):
        for label, (row, column, height, width) in boxes.items():
            image[row : row + height, column : column + width] = label
    return found


def test_a_nucleus_that_is_cut_in_one_frame_keeps_its_track() -> None:
    """The largest part has it. The other one is no daughter, and in the frame after nothing is missing."""
    whole, cut = (
        {1: (10, 10, 12, 12), 2: (10, 30, 12, 12)},
        {1: (10, 10, 5, 12), 2: (15, 10, 7, 12), 3: (10, 30, 12, 12)},
    )
    found = tracked(squares(whole, cut, whole, whole))
    assert ids(found) == [[1, 2], [3, 1, 2], [1, 2], [1, 2]]
    assert not found.parents.any()


def test_a_nucleus_that_is_cut_until_the_end_has_daughters() -> None:
    """Only the frame after tells a cut from a division."""
    whole, cut = {1: (10, 10, 12, 12)}, {1: (10, 10, 6, 12), 2: (16, 10, 6, 12)}
    found = tracked(squares(whole, cut, cut))
    assert ids(found) == [[1], [2, 3], [2, 3]]
    assert found.parents.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("frames", [1, 3, 9])
@pytest.mark.parametrize("step", [0, 3])
def test_nuclei_that_are_merged_for_some_frames_keep_their_tracks(frames: int, step: int) -> None:
    """Also while the merged label moves. What leaves it is no daughter."""

    def at(t: int) -> int:
        return 5 + step * t // 3

    movie = [{1: (at(t), 10, 12, 12), 2: (at(t), 22, 12, 12)} for t in range(frames + 4)]
    movie[2 : 2 + frames] = [{1: (at(t), 10, 12, 24)} for t in range(2, 2 + frames)]
    found = tracked(squares(*movie))
    assert ids(found) == [[1, 2], [1, 2], *[[1]] * frames, [1, 2], [1, 2]]
    assert not found.parents.any()


def test_nuclei_that_are_merged_for_longer_are_new_afterwards() -> None:
    """Who left the label by then is not known."""
    apart, merged = {1: (5, 10, 12, 12), 2: (5, 22, 12, 12)}, {1: (5, 10, 12, 24)}
    found = tracked(squares(apart, *[merged] * MERGED, apart, apart))
    assert ids(found)[-1] == [2 + 1, 2 + 2]
    assert found.parents.tolist() == [0, 0, 0, 1, 1]


def test_a_nucleus_that_leaves_while_another_takes_its_place_is_not_in_a_merged_label() -> None:
    """Such a label is not larger. What comes from it later are daughters."""
    alone, halves = {1: (10, 14, 12, 12)}, {1: (10, 14, 12, 6), 2: (10, 20, 12, 6)}
    found = tracked(squares({1: (10, 10, 12, 12), 2: (10, 22, 12, 5)}, alone, alone, halves))
    assert ids(found) == [[1, 2], [1], [1], [3, 4]]
    assert found.parents.tolist() == [0, 0, 0, 1, 1]


def test_the_start_of_a_movie_has_the_same_tracks_however_long_it_is() -> None:
    """But for its last frame, of which only the next one tells whether nuclei are cut."""
    labels = with_errors(movie(19, (97, 103), 11, speed=2.0, seed=4).labels(), 0.05)
    whole = tracked(labels)
    for frames in (5, 12):
        part = tracked(labels[:frames])
        assert ids(part)[:-1] == ids(whole)[: frames - 1]


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
