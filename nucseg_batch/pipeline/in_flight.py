"""Units and planes on their way through the stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.files.run.records import PlaneFingerprint, PlaneResult
from nucseg_batch.pipeline.channels import NetworkInput
from nucseg_batch.pipeline.failures import failure_of
from nucseg_batch.pipeline.tasks import UnitTask, killer
from nucseg_batch.plan import Failure, Plane, Unit, bucket_shape


class Result(Protocol):
    """What the stream needs to know of an image's result."""

    @property
    def labels(self) -> NDArray[np.int32] | NDArray[np.uint16]:
        """(height, width): 0 is background, 1..n are nuclei."""
        ...

    @property
    def support(self) -> NDArray[np.uint8] | None:
        """(height, width): how far each pixel supports its nucleus, see `arrays.confidence`; None if unknown."""
        ...

    @property
    def scale(self) -> float:
        """By how much the image was enlarged for the network."""
        ...


@dataclass
class UnitInFlight:
    """A unit on its way through the stream."""

    task: UnitTask
    masks: dict[str, NDArray[np.uint32]] = field(default_factory=dict)
    pixels: NDArray[Any] | None = None
    results: dict[int, PlaneResult | Failure] = field(default_factory=dict)
    seen: dict[int, PlaneFingerprint | None] = field(default_factory=dict)
    rows: dict[int, str] = field(default_factory=dict)

    @property
    def unit(self) -> Unit:
        """The unit."""
        return self.task.unit

    def item(self, index: int) -> PlaneInFlight:
        """One of its planes before it is read; one on which processes died becomes a failure at once."""
        plane = self.unit.label_array.plane(self.unit.place(index))
        return PlaneInFlight(self, index, plane, failure=killer(plane) if index in self.task.history.guilty else None)


@dataclass(frozen=True)
class PlaneInFlight:
    """One plane on its way through the stream.

    After reading it has pixels and `limits`, the values of these that become 0 and 1, or the failure that stopped it.
    """

    work: UnitInFlight
    index: int
    plane: Plane
    shown: NetworkInput | None = None
    failure: Failure | None = None
    limits: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    pixels: NDArray[Any] | None = None
    seen: PlaneFingerprint | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.plane.image.height, self.plane.image.width

    @property
    def input(self) -> NDArray[Any]:
        """What the network is shown of it."""
        assert self.shown is not None
        return self.shown.pixels

    @property
    def kind(self) -> tuple[Any, ...]:
        """Shape and dtype of what the network is shown."""
        return self.input.shape, self.input.dtype.str

    @property
    def batch_key(self) -> tuple[Any, ...]:
        """Planes with one key may share a batch."""
        pixels = self.input
        shape = bucket_shape(*self.shape) if self.scale == 1 else self.shape
        return shape, self.scale, pixels.shape[2:], pixels.dtype.str

    def failed(self, stage: str, error: Exception) -> Failure:
        """Why this plane has no mask."""
        return failure_of(self.plane, stage, error)


Handed = tuple[PlaneInFlight, Result | Failure]
"""A plane with what became of it on the device."""


@dataclass(frozen=True)
class MeasuredPlane:
    """A plane that only has to be written."""

    item: PlaneInFlight
    """The plane."""
    result: PlaneResult | Failure
    """Its statistics, or why it has none."""
    labels: Mapping[str, NDArray[np.integer]] = field(default_factory=dict)
    """Its label images by name, (height, width) each; none where it failed."""
    rows: str = ""
    """Its rows of nuclei.csv."""
