"""What keeps the tasks apart that one process of a cluster has in flight at the same time."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.records import PlaneResult, RegionOutcome
from nucseg_batch.pipeline.stream import IN_FLIGHT
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Failure, Plane, Unit

if TYPE_CHECKING:
    from nucseg_batch.network.predictor import Predictor

KEPT_LOOKS = 8
"""Windows of large planes of which it is kept how wide their nuclei are."""


class Gate:
    """Lets tasks in together, or one alone, for which the others are kept waiting."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._wanting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Inside together with others."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside >= 0 and not self._wanting)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside alone."""
        with self._changed:
            self._wanting += 1
            self._changed.wait_for(lambda: self._inside == 0)
            self._wanting -= 1
            self._inside = -1
        try:
            yield
        finally:
            with self._changed:
                self._inside = 0
                self._changed.notify_all()


class AttemptsInFlight(Attempts):
    """The tries at the units of a run, of which this process can forget its own at once."""

    def __init__(self, run_folder: Path) -> None:
        super().__init__(run_folder)
        self._lock = threading.Lock()
        self._units: dict[str, Unit] = {}
        self._forgotten = False

    def begin(self, unit: Unit) -> None:
        """Notes that a unit is begun."""
        with self._lock:
            if not self._forgotten:
                self._units[unit.name] = unit
                super().begin(unit)

    def begin_plane(self, unit: Unit, index: int) -> None:
        """Notes that a plane of a unit is begun."""
        with self._lock:
            if not self._forgotten:
                super().begin_plane(unit, index)

    def end(self, unit: Unit) -> None:
        """Forgets tries at a unit."""
        with self._lock:
            self._units.pop(unit.name, None)
            super().end(unit)

    def forget(self) -> None:
        """Forgets tries at all units in flight, and notes no more."""
        with self._lock:
            self._forgotten = True
            for unit in self._units.values():
                super().end(unit)


class WorkerProgress:
    """Counts planes and regions in a worker, as `ProgressCounter` does where one process does all."""

    def __init__(self, lines: list[str], outcomes: list[tuple[int, int, int | Failure]]) -> None:
        self._lines, self._outcomes = lines, outcomes
        self._planes: dict[tuple[str, int | None, int | None], tuple[int, int]] = {}
        self._regions: dict[str, int] = {}

    @property
    def progress(self) -> WorkerProgress:
        """Itself: who hears of lines."""
        return self

    def expect(self, order: int, task: UnitTask) -> None:
        """Planes of this task belong to the order of this number."""
        unit = task.unit
        if unit.label_array.regional:
            self._regions[unit.name] = order
            return
        for index in range(unit.plane_count):
            plane = unit.label_array.plane(unit.place(index))
            self._planes[plane.image.key, plane.t, plane.z] = order, index

    def tell(self, line: str) -> None:
        """A line for the user."""
        self._lines.append(line)

    def note(self, line: str) -> None:
        """A line for the user."""
        self._lines.append(line)

    def advance(self, plane: Plane, result: PlaneResult | Failure) -> None:
        """A plane is finished, well or not."""
        order, index = self._planes[plane.image.key, plane.t, plane.z]
        self._outcomes.append((order, index, result if isinstance(result, Failure) else result.nuclei))

    def advance_region(self, unit: Unit, outcome: RegionOutcome | Failure) -> None:
        """A region is finished, well or not."""
        result = outcome if isinstance(outcome, Failure) else outcome.nuclei
        self._outcomes.append((self._regions[unit.name], 0, result))


class SharedPredictor:
    """A predictor for the streams of several tasks: together they have no more in flight than one has alone.

    What is not limited here is the predictor's own.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._batches = threading.BoundedSemaphore(IN_FLIGHT)
        self._lock = threading.Lock()
        self._looks: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def predict_batch(self, images: Sequence[Any], scale: float = 1.0, **options: Any) -> Any:
        """See Predictor."""
        with self._batches:
            return self._predictor.predict_batch(images, scale, **options)

    def label_tile(self, tile: Any, pixels: Any, limits: tuple[float, float]) -> Any:
        """See Predictor."""
        with self._lock:
            return self._predictor.label_tile(tile, pixels, limits)

    def look(self, pixels: Any, begin: float) -> Any:
        """See Predictor; the same windows of a large plane are looked at for each of its tasks, and found here."""
        pixels = np.ascontiguousarray(pixels)
        key = (hashlib.sha256(pixels.data).digest(), pixels.shape, pixels.dtype.str, begin)
        with self._lock:
            if key not in self._looks:
                self._looks[key] = self._predictor.look(pixels, begin)
                while len(self._looks) > KEPT_LOOKS:
                    self._looks.popitem(last=False)
            return self._looks[key]
