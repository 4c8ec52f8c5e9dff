"""What `bench` finds out, as plain records."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class StageSpeed:
    """How fast one stage is alone."""

    name: str
    """`read`, `network`, `separate`, `measure` or `write`."""
    mpx_per_s: float
    """Megapixels a second."""
    mpx_per_core_s: float
    """Megapixels for each second that a core was busy with it; what a GPU does is not counted."""
    nuclei_per_s: float | None = None
    """Nuclei a second, where there are any yet."""


@dataclass(frozen=True)
class EndToEndSpeed:
    """A run from files to masks and tables."""

    planes: int
    """Planes, or regions of large ones, that were segmented."""
    failed: int
    """Those that failed."""
    scale: float | None
    """By how much the images were enlarged for the network; None where each had a scale of its own."""
    megapixels: float
    """Their pixels."""
    nuclei: int
    """Nuclei found."""
    startup_s: float
    """Seconds from the finished plan to the first image read: library, model, and the look at how wide nuclei are."""
    stream_s: float
    """Seconds from there to the last unit written."""
    mpx_per_s: float
    """Megapixels a second, without the start."""
    nuclei_per_s: float
    """Nuclei a second, without the start."""
    busy: dict[str, float]
    """Part of that time in which each stage was at work, 0 to 1: `read`, `segment`, `measure` and `write`."""
    peak_mb: float
    """Largest resident memory of the process, in megabytes."""

    @property
    def bound(self) -> str:
        """The stage that was at work most of the time."""
        return max(self.busy, key=lambda name: self.busy[name], default="segment")


@dataclass(frozen=True)
class Estimate:
    """What all images take on this machine, and what to ask a scheduler for."""

    images: int
    """How many."""
    megapixels: float
    """Their pixels, as large as those measured where there are more than IN holds."""
    seconds: float
    """Of one process."""
    cpus: int
    """Cores of the process that was measured."""
    memory_gb: int
    """Memory to ask for: a quarter more than was used."""


@dataclass(frozen=True)
class Bench:
    """All that was measured."""

    device: str
    """`cpu` or `gpu`."""
    hardware: str
    """Its name."""
    cores: int
    """Processor cores that this process may use."""
    versions: dict[str, str]
    """Of the libraries that compute."""
    model: str
    """File name of the model."""
    precision: str
    """Arithmetic of the network."""
    precision_reason: str
    """Why that one."""
    batch: int
    """Images of the measured shape in a batch."""
    batch_shape: tuple[int, int]
    """Height and width of these images."""
    batch_tried: tuple[dict[str, float | None], ...]
    """`pixels` of each size that was tried and its `mpx_per_s`, None where it did not fit; on images of 256x256."""
    stages: tuple[StageSpeed, ...]
    """Stages alone, on images at the scale of the whole run, or at 1 where there was none for all."""
    whole: EndToEndSpeed
    """All of them together."""
    estimate: Estimate
    """What follows from it."""
    driver: str = ""
    """Version of the driver of a GPU."""
    device_busy: float | None = None
    """Part of the time of the whole run in which the GPU was at work, as its driver says; None where it does not."""
    programs: int = 0
    """Programs that were compiled for the device, for all that was measured; 0 where nothing is compiled."""
    compile_s: float = 0.0
    """Seconds of their first calls, in which they are compiled, over all threads."""

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "whole": {**asdict(self.whole), "bound": self.whole.bound}}
