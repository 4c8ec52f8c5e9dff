"""Simulated movies with known tracks: nuclei that move, turn away from each other, leave, and divide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from skimage.measure import label, regionprops, regionprops_table

from nucseg_batch.arrays.label_overlaps import LabelRuns, Overlaps, overlaps
from nucseg_batch.arrays.tracks import tracks

RADIUS = 7.0
"""Mean radius of a nucleus in pixels."""


@dataclass
class _Cell:
    track: int
    place: NDArray[np.float64]
    speed: NDArray[np.float64]
    radius: float
    age: int
    division: int
    """The age at which it divides."""


@dataclass(frozen=True)
class Movie:
    """A movie with its truth."""

    tracks: NDArray[np.uint16]
    """(t, height, width): the track of each pixel; 0 outside nuclei."""
    parents: dict[int, int]
    """The mother of each track; 0 for none."""

    def spans(self) -> list[tuple[int, int, int, int]]:
        """Track, first frame, last frame and mother, of each track, as the Cell Tracking Challenge lists them."""
        present = [set(np.unique(frame).tolist()) - {0} for frame in self.tracks]
        frames = {track: [t for t, here in enumerate(present) if track in here] for track in set().union(*present)}
        return [(track, at[0], at[-1], self.parents[track]) for track, at in sorted(frames.items())]

    def labels(self) -> NDArray[np.uint32]:
        """(t, height, width): the same nuclei with labels 1 to n in each frame, in raster order as a run has them."""
        found = np.zeros(self.tracks.shape, np.uint32)
        for frame, own in zip(self.tracks, found, strict=True):
            values, first = np.unique(frame, return_index=True)
            order = [value for _, value in sorted(zip(first.tolist(), values.tolist(), strict=True)) if value]
            for number, value in enumerate(order, start=1):
                own[frame == value] = number
        return found


def movie(frames: int, shape: tuple[int, int], nuclei: int, *, speed: float = 2.0, seed: int = 1) -> Movie:
    """Nuclei at random places that move by some speed in pixels a frame, and divide about once in 40 frames.

    They push each other away, and have dark pixels between them where they touch.
    """
    rng = np.random.default_rng(seed)
    cells, parents = list[_Cell](), dict[int, int]()

    def add(place: NDArray[np.float64], radius: float, mother: int, age: int) -> None:
        parents[len(parents) + 1] = mother
        cells.append(_Cell(len(parents), place, rng.normal(0, speed, 2), radius, age, int(rng.integers(30, 50))))

    sides = np.array(shape, np.float64)
    for _ in range(nuclei):
        add(rng.uniform(RADIUS, sides - RADIUS), RADIUS * rng.uniform(0.85, 1.15), 0, int(rng.integers(0, 30)))
    _push(cells, 40)
    found = np.zeros((frames, *shape), np.uint16)
    for image in found:
        _paint(image, cells)
        for cell in list(cells):
            cell.age += 1
            cell.speed = 0.7 * cell.speed + 0.3 * rng.normal(0, 2 * speed, 2)
            cell.place = cell.place + cell.speed
            cell.radius += 0.05 * (RADIUS - cell.radius)
            inside = ((cell.place > 2 * RADIUS) & (cell.place < sides - 2 * RADIUS)).all()
            if cell.age >= cell.division and inside:
                cells.remove(cell)
                away = rng.normal(size=2)
                away *= 0.75 * cell.radius / np.linalg.norm(away)
                for side in (away, -away):
                    add(cell.place + side, 0.72 * cell.radius, cell.track, 0)
            elif not ((cell.place > 0) & (cell.place < sides)).all():
                cells.remove(cell)
        _push(cells, 4)
    present = set(np.unique(found).tolist())
    return Movie(found, {track: mother if mother in present else 0 for track, mother in parents.items()})


def _push(cells: list[_Cell], rounds: int) -> None:
    for _ in range(rounds):
        places = np.array([cell.place for cell in cells])
        radii = np.array([cell.radius for cell in cells])
        apart = places[:, None] - places[None]
        distance = np.linalg.norm(apart, axis=2) + np.eye(len(cells)) * 1e9
        room = np.maximum(radii[:, None] + radii[None] + 1 - distance, 0) * (distance < 1e8)
        moves = (apart / np.maximum(distance, 1e-3)[..., None] * room[..., None] / 2).sum(axis=1)
        for cell, move in zip(cells, moves, strict=True):
            cell.place = cell.place + move


def _paint(image: NDArray[np.uint16], cells: list[_Cell]) -> None:
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    nearest = np.full(image.shape, np.inf)
    for cell in cells:
        reach = int(cell.radius) + 2
        top, left = np.maximum(cell.place.astype(int) - reach, 0)
        window = slice(top, top + 2 * reach + 1), slice(left, left + 2 * reach + 1)
        away = np.hypot(rows[window[0]] - cell.place[0], columns[:, window[1]] - cell.place[1]) / cell.radius
        own = (away <= 1) & (away < nearest[window])
        nearest[window][own] = away[own]
        image[window][own] = cell.track
    for axis in (0, 1):  # nuclei that touch are parted by background
        other = np.roll(image, 1, axis)
        image[(image > 0) & (other > 0) & (image != other)] = 0
    _largest_parts(image)


def _largest_parts(image: NDArray[np.uint16]) -> None:
    best: dict[int, tuple[float, int]] = {}
    parts = label(image, connectivity=1)
    regions = regionprops(parts)
    for one in regions:
        track = int(image[tuple(one.coords[0])])
        best[track] = max(best.get(track, (0.0, 0)), (float(one.area), -one.label))
    kept = {-number for area, number in best.values() if area >= 20}
    image[~np.isin(parts, sorted(kept))] = 0


@dataclass(frozen=True)
class Tracks:
    """The tracks of a movie."""

    ids: list[NDArray[np.int64]]
    """For each frame (n,): the track of each of its labels 1..n."""
    parents: NDArray[np.int64]
    """(tracks + 1,): the track that each one comes from by division; 0 for none, and for place 0."""


def track(places: Sequence[NDArray[np.float64]], near: Sequence[Overlaps]) -> Tracks:
    """The tracks of nuclei (row, column, area) and of the pixels that successive frames share."""
    found = list(tracks(zip(places, [None, *near], strict=True)))
    parents = np.zeros(1 + max((int(one.ids.max(initial=0)) for one in found), default=0), np.int64)
    for one in found:
        parents[one.ids] = one.parents
    return Tracks([one.ids for one in found], parents)


def tracked(labels: NDArray[np.uint32]) -> Tracks:
    """The tracks that are found of the labels (t, height, width) of a movie."""
    return track(*measured(labels))


def measured(labels: NDArray[np.uint32]) -> tuple[list[NDArray[np.float64]], list[Overlaps]]:
    """What `track` takes, of the labels (t, height, width) of a movie."""
    places, near = list[NDArray[np.float64]](), list[Overlaps]()
    for t, frame in enumerate(labels):
        table = regionprops_table(frame, properties=("centroid", "area"))
        places.append(np.column_stack([table[name] for name in ("centroid-0", "centroid-1", "area")]))
        if t:
            near.append(overlaps(LabelRuns.of(labels[t - 1]), LabelRuns.of(frame)))
    return places, near


def with_errors(labels: NDArray[np.uint32], share: float, seed: int = 1) -> NDArray[np.uint32]:
    """The same with nuclei that are missing in a frame, cut in two, or merged with a neighbour, if one is near.

    share: of the nuclei of each frame, for each of these errors.
    """
    rng = np.random.default_rng(seed)
    found = np.zeros_like(labels)
    for frame, own in zip(labels, found, strict=True):
        image = frame.copy()
        for number, chance in enumerate(rng.random(int(frame.max())).tolist(), start=1):
            nucleus = image == number
            if chance < share:
                image[nucleus] = 0
            elif chance < 2 * share:
                around = np.unique(image[binary_dilation(nucleus, iterations=3)])
                others = around[(around > 0) & (around != number)]
                if others.size:
                    image[nucleus] = others[0]
            elif chance < 3 * share and nucleus.any():
                place = np.argwhere(nucleus)
                along = place[:, np.argmax(np.ptp(place, axis=0))]
                image[tuple(place[along > np.median(along)].T)] = image.max() + 1
        own[...] = np.unique(np.append(0, image), return_inverse=True)[1][1:].reshape(image.shape)
    return found


def true_tracks(truth: Movie, labels: NDArray[np.uint32]) -> Tracks:
    """The tracks of labels with errors by the truth: what linking can reach at best.

    A label has the track that most of its pixels have; of several labels with one track only the first has it.
    """
    ids, parents = list[NDArray[np.int64]](), [0] * (max(truth.parents) + 1)
    for frame, own in zip(truth.tracks, labels, strict=True):
        numbers = list[int]()
        for one in range(1, int(own.max()) + 1):
            pixels = np.bincount(frame[own == one])
            number = int(pixels.argmax())
            if number in numbers:
                number = len(parents)
                parents.append(0)
            numbers.append(number)
        ids.append(np.array(numbers, np.int64))
    present = set(np.concatenate(ids).tolist())
    for number, mother in truth.parents.items():
        parents[number] = mother if mother in present else 0
    return Tracks(ids, np.array(parents, np.int64))


def write_truth(folder: Path, truth: Movie) -> None:
    """Writes the truth in the layout of the Cell Tracking Challenge: the tracks in TRA, and an empty folder SEG."""
    (folder / "TRA").mkdir(parents=True)
    (folder / "SEG").mkdir()
    for t, frame in enumerate(truth.tracks):
        tifffile.imwrite(folder / "TRA" / f"man_track{t:03}.tif", frame)
    text = "".join(f"{track} {first} {last} {mother}\n" for track, first, last, mother in truth.spans())
    (folder / "TRA" / "man_track.txt").write_text(text)
