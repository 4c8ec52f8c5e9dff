"""What of a run's units is still to be done by this process: missing, damaged, failed, or made from other pixels.

Nothing is written but markers whose images were only touched. A unit whose masks somebody changed by hand is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from nucseg_batch.errors import ImageError, MismatchError
from nucseg_batch.executors.job import Job
from nucseg_batch.files.masks.store import masks_changed_ns, shard_bytes
from nucseg_batch.files.names import counted
from nucseg_batch.files.opened import ImageReader, State, pixels_digest, state_of, windows_sha256
from nucseg_batch.files.retry import TRANSIENT
from nucseg_batch.files.run.attempts import Attempts, History
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import Marker, PlaneFingerprint
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Failure, ImageInfo, LargePlane, Unit

STAT_THREADS = 16
"""Images whose size and time are asked for at once; network file systems take their time."""
STATS_TOGETHER = 16
"""Images that a thread asks for before it looks for more: handing over each would cost more than asking."""

PlaneId = tuple[int, tuple[int, ...]]
"""Which large plane: the identity of its label array, and its place in it."""


@dataclass
class InputChanges:
    """What was noticed of the images of a run, by key."""

    states: dict[str, State] = field(default_factory=dict)
    """Images that are not as they were planned, as they are now."""
    redone: set[str] = field(default_factory=set)
    """Images that were done, and of which planes have other pixels now."""
    touched: set[str] = field(default_factory=set)
    """Images that are newer than when they were done, and of which planes have the same pixels."""
    gone: set[str] = field(default_factory=set)
    """Images that are not there any more."""
    present: bool = False
    """Whether any image was found where it should be."""

    def lines(self) -> list[str]:
        """What the user should know of it."""
        told = (
            (self.redone, "changed after they were segmented, and are done again"),
            (self.touched - self.redone, "newer than the masks, but with the same pixels; kept"),
            (self.gone, "not there any more; what was made of them is kept"),
        )
        return [f"{counted(keys)}: {what}" for keys, what in told if keys]


def find_tasks(units: Iterable[Unit], job: Job, attempts: Attempts) -> tuple[list[UnitTask], InputChanges]:
    """What is to be done of some units of a job, which nobody else may be at, and what was noticed of their images.

    Raises MismatchError where masks were changed after they were written: to do them again would lose that.
    """
    finder = _Finder(job, attempts)
    found = [(unit, finder.task(unit)) for unit in units]
    tasks, uneven = [], finder.uneven()
    for unit, task in found:
        if task is None and unit.name in finder.older and _plane_of(unit) in uneven:
            job.journal.retract(unit)  # at once, so that a kill cannot leave regions of two states side by side
            task = UnitTask(unit)
        if task is not None:
            tasks.append(task)
    return tasks, finder.changes


def _plane_of(unit: Unit) -> PlaneId:
    """Which large plane a region is of."""
    return id(unit.label_array), unit.block[:-2]


def planes_to_merge(planes: Iterable[LargePlane], store: Path, journal: Journal) -> list[LargePlane]:
    """Large planes that can be joined, because all their regions are done, and that are not.

    Or whose masks are not all there any more; raises as above.
    """
    apart = []
    for large in planes:
        joined = journal.plane(large)
        sizes = zip(large.units, joined.shard_bytes, strict=True) if joined is not None else ()
        changed = [unit for unit, size in sizes if size != shard_bytes(store, unit)]
        for unit in changed:
            _check_unchanged(store, unit, journal, journal.plane_committed_ns(large))
        if (joined is None or changed) and regions_done(large, journal):
            apart.append(large)
    return apart


def regions_done(large: LargePlane, journal: Journal) -> bool:
    """Whether all regions of a large plane are done, and none failed, so that they can be joined."""
    markers = map(journal.marker, large.units)
    return all(marker is not None and not marker.failures for marker in markers)


def pixels_sha256(seen: PlaneFingerprint, unit: Unit, index: int, images: ImageReader) -> str:
    """The hash of a plane's pixels as they are now, over what was read when `seen` was noted; raises ImageError."""
    plane = unit.label_array.plane(unit.place(index))
    if not seen.windows:
        return pixels_digest(images.read(plane)).hex()
    windows = ((slice(top, bottom), slice(left, right)) for top, bottom, left, right in seen.windows)
    return windows_sha256(pixels_digest(images.read(plane, *window)) for window in windows)


class _Finder:
    """Looks at one unit after the other."""

    def __init__(self, job: Job, attempts: Attempts) -> None:
        self.changes = InputChanges()
        self.older: set[str] = set()
        self._begun, self._store, self._journal, self._attempts = job.begun, job.store, job.journal, attempts
        self._options = job.options
        self._asked: dict[str, State | None] = {}
        self._known: Mapping[str, State | None] = self._asked if job.known is None else job.known
        self._complete = job.known is not None
        self._tried = attempts.begun()
        self._undone: set[PlaneId] = set()
        self._newer: set[PlaneId] = set()
        self._changed: set[PlaneId] = set()

    def uneven(self) -> set[PlaneId]:
        """Large planes of which some regions were done from an image that is another one now.

        Every region depends on the range and scale of its whole plane, so all of these are done again.
        """
        return self._changed | (self._newer & self._undone)

    def task(self, unit: Unit) -> UnitTask | None:
        """What is to be done of a unit; None where it is done."""
        marker = self._journal.marker(unit)
        if unit.label_array.regional and (marker is None or marker.failures):
            self._undone.add(_plane_of(unit))
        history = self._attempts.history(unit) if unit.name in self._tried else History()
        if marker is None or (unit.label_array.regional and not self._journal.has_region(unit) and not marker.failures):
            self._accept(unit)
            return UnitTask(unit, history=history)
        if not unit.label_array.regional and marker.shard_bytes != shard_bytes(self._store, unit):
            _check_unchanged(self._store, unit, self._journal, self._journal.committed_ns(unit))
            self._accept(unit)
            return UnitTask(unit, history=history)
        again = self._again(unit, marker)
        if not again:
            if history.deaths:
                self._attempts.end(unit)  # it was committed just before the end came
            return None
        if unit.label_array.regional or self._begun.settings.with_images:
            return UnitTask(unit, history=history)
        return UnitTask(unit, marker, frozenset(again), history)

    def _accept(self, unit: Unit) -> None:
        """Takes the images of a unit that is not done as they are now."""
        self._ask(unit)
        for image in {id(plane.image): plane.image for plane in unit.planes}.values():
            self._note_state(image, self._state(image))

    def _again(self, unit: Unit, marker: Marker) -> set[int]:
        """Planes of a finished unit that are to be done again."""
        again, now = set(), list(marker.seen)
        verifying = self._options.verify_inputs != "none"
        if verifying or marker.failures:
            self._ask(unit)
        for index, (plane, outcome, seen) in enumerate(zip(unit.planes, marker.planes, marker.seen, strict=True)):
            if isinstance(outcome, Failure):
                if self._retries(plane.image, outcome, seen):
                    again.add(index)
            elif verifying and seen is not None:
                verified = self._verified(unit, index, plane.image, seen)
                if verified is None:
                    again.add(index)
                else:
                    now[index] = verified
        if tuple(now) != marker.seen:
            self._journal.note_seen(unit, replace(marker, seen=tuple(now)))
        return again

    def _retries(self, image: ImageInfo, failure: Failure, seen: PlaneFingerprint | None) -> bool:
        """Whether a plane that failed is done again."""
        state = self._state(image)
        changed = state is not None and (seen is None or state != (seen.size, seen.mtime_ns))
        retries = self._options.retry_failed or changed or failure.error in TRANSIENT
        if retries:
            self._note_state(image, state)
        return retries

    def _verified(self, unit: Unit, index: int, image: ImageInfo, seen: PlaneFingerprint) -> PlaneFingerprint | None:
        """What is to be noted of the input of a finished plane from now on; None where its pixels have changed."""
        state, regional = self._state(image), unit.label_array.regional
        if state is None:
            self.changes.gone.add(image.key)
            return seen
        same = state == (seen.size, seen.mtime_ns)
        if regional and not same:
            self._newer.add(_plane_of(unit))
        self._note_state(image, state)
        if same and self._options.verify_inputs == "quick":
            return seen
        if not self._has_same_pixels(unit, index, seen):
            self.changes.redone.add(image.key)
            self._changed.add(_plane_of(unit))
            return None
        if same:
            return seen
        self.changes.touched.add(image.key)
        if regional:
            self.older.add(unit.name)  # its marker stays as it is until the whole plane is known
            return seen
        return replace(seen, size=state[0], mtime_ns=state[1])

    def _note_state(self, image: ImageInfo, state: State | None) -> None:
        """Keeps the state of an image that is not as it was planned."""
        if state is not None and state != (image.size, image.mtime_ns):
            self.changes.states[image.key] = state

    def _has_same_pixels(self, unit: Unit, index: int, seen: PlaneFingerprint) -> bool:
        try:
            with ImageReader(self._begun.root, self._begun.settings, self.changes.states) as images:
                return pixels_sha256(seen, unit, index, images) == seen.sha256
        except ImageError:
            return False

    def _ask(self, unit: Unit) -> None:
        """Asks for the states of a unit's images, many at once, where they are not known."""
        if self._complete:
            return
        missing = {plane.image.key: plane.image for plane in unit.planes if plane.image.key not in self._known}
        images = list(missing.values())
        if len(images) < STAT_THREADS:
            self._asked.update(zip(missing, map(self._state_now, images), strict=True))
            return
        step = max(1, min(STATS_TOGETHER, len(images) // STAT_THREADS))
        batches = [images[first : first + step] for first in range(0, len(images), step)]
        with ThreadPoolExecutor(STAT_THREADS) as pool:
            states = pool.map(lambda batch: list(map(self._state_now, batch)), batches)
            self._asked.update(zip(missing, itertools.chain.from_iterable(states), strict=True))

    def _state(self, image: ImageInfo) -> State | None:
        """State of an image; None where it is gone."""
        state = self._known.get(image.key)
        self.changes.present |= state is not None
        return state

    def _state_now(self, image: ImageInfo) -> State | None:
        try:
            return state_of(self._begun.root, image, self._begun.settings)
        except ImageError:
            return None


def _check_unchanged(store: Path, unit: Unit, journal: Journal, committed_ns: int) -> None:
    if masks_changed_ns(store, unit) > committed_ns:
        raise MismatchError(
            f"{store}: the masks of {unit.label_array.name or 'its image'} were changed after they were written. "
            f"To keep the changes, delete {journal.folder.name}. To replace them, run `nucseg-batch verify --redo` "
            "first, or start over with --overwrite."
        )
