"""How many pixels a batch should have: as few as keep the device busy, since more only take memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from nucseg_batch.arrays.geometry import ResampleGeometry, padded_batch
from nucseg_batch.arrays.normalize import as_gain
from nucseg_batch.network.labelling import Separation
from nucseg_batch.plan import BATCH_PIXELS

CALL_PIXELS = 4_400_000
"""Pixels that the network sees in one call for a large image, where the host's memory sets no limit."""
GAIN = 1.05
"""A batch twice as large must be this much faster to be worth its memory."""
MOST = 2**26
"""Pixels of the largest batch that is tried."""
TRIED_SIDE = 256
"""Side in pixels of the images on which batches are tried."""
TRIED_SECONDS = 0.5
"""How long a size of batches is tried at least."""


@dataclass(frozen=True)
class BatchTrial:
    """A size of batches, and what came of it."""

    pixels: int
    """Pixels in a batch."""
    speed: float | None
    """Megapixels a second; None where the device had no room for it."""


class HalvedSizes:
    """Sizes of batches that did not fit into memory, and so are halved from then on; threads may share it."""

    def __init__(self) -> None:
        self._most: dict[tuple[int, int], int] = {}
        self._halving = threading.Lock()

    def limited(self, bucket: tuple[int, int], size: int) -> int:
        """A size for images of this padded shape, or what is left of it."""
        return min(size, self._most.get(bucket, size))

    def halve(self, bucket: tuple[int, int], size: int) -> None:
        """Notes that a batch of `size` did not fit; where several threads meet the same size, it is halved once."""
        with self._halving:
            self._most[bucket] = min(self._most.get(bucket, size), max(1, size // 2))


def grown(speed: Callable[[int], float], first: int = BATCH_PIXELS, most: int = MOST) -> tuple[int, list[BatchTrial]]:
    """Doubles batches until that gains nothing or memory runs out; the best size, and all that were tried.

    speed: measures batches of so many pixels, in megapixels a second; raises MemoryError where they do not fit. Raises
    this where not even the first does.
    """
    tried: list[BatchTrial] = []
    best: BatchTrial | None = None
    pixels, since_gain = first, 0
    while pixels <= most and since_gain < 2:  # one size without gain may be noise
        try:
            one = BatchTrial(pixels, speed(pixels))
        except MemoryError:
            if best is None:
                raise
            tried.append(BatchTrial(pixels, None))
            break
        tried.append(one)
        assert one.speed is not None
        if best is None or one.speed > GAIN * (best.speed or 0):
            best, since_gain = one, 0
        else:
            since_gain += 1
        pixels *= 2
    assert best is not None
    return best.pixels, tried


def measured_speed(labelling: Separation, pixels: int) -> float:
    """Speed from raw grey pixels to labels, in megapixels per second.

    pixels: of a batch, which holds images of TRIED_SIDE.

    Noise takes the network as long as nuclei do. The first batch, which is compiled, does not count. Raises MemoryError
    where a batch does not fit.
    """
    count = max(1, pixels // TRIED_SIDE**2)
    noise = np.random.default_rng(1).integers(0, 256, (count, TRIED_SIDE, TRIED_SIDE, 1), np.uint8)
    low, gain = as_gain([(0.0, 255.0)] * count)
    side = np.full(count, TRIED_SIDE, np.int32)
    done, seconds = -1, 0.0
    while done < 2 or seconds < TRIED_SECONDS:
        began = time.perf_counter()
        labelling.batch(noise, low, gain, (side, side), None, count)
        seconds += time.perf_counter() - began if done >= 0 else 0.0
        done += 1
    return done * noise.size / seconds / 1e6


def stage_calls(
    labelling: Separation,
    frame: ResampleGeometry,
    images: Sequence[NDArray[Any]],
    limits: Sequence[tuple[float, float]],
) -> tuple[Callable[[], object], Callable[[], object]]:
    """The network alone on images of one shape, as one batch, and the separation of its answers.

    Only to be timed. Answers stay on the device, and labels stay on the network's grid. Images must be so small that
    they are not done in tiles. limits: the values that become 0 and 1 of each image.
    """
    program, count = labelling.program, len(images)
    pixels = padded_batch(images, frame.native_bucket, count)
    low, gain = as_gain(limits)
    heights, widths = np.array([frame.scaled] * count, np.int32).T

    def answer() -> Any:
        if frame.is_native:
            return program.call(program.heads, pixels, low, gain)
        return program.call(program.heads_rescaled, pixels, low, gain, *frame.there())

    def network() -> None:
        ops.convert_to_numpy(answer()[:1, :1, :1])  # waits until all of it is there, and fetches next to nothing

    heads = answer()
    return network, lambda: labelling.separated(heads, (heights, widths))


def power_of_two(count: int) -> int:
    """The smallest that is not below a count."""
    return int(2 ** (count - 1).bit_length())
