"""What tests have dask workers load before anything else: a quick segmenter, and ways to die; not part of the program.

Told by NUCSEG_TEST_WORKER, JSON: `quick` puts a threshold in the place of the network; `deadly` is the largest value of
images on which the process dies; `once` a file, of which the first process that begins a unit dies and takes it away;
`hold` has batches wait until their process is told to end, for which it then has all the time that it needs.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucseg_batch.arrays.looks import Segmented
from nucseg_batch.executors import in_hand, local
from nucseg_batch.plan import Unit

TOLD = json.loads(os.environ.get("NUCSEG_TEST_WORKER", "{}"))


class ThresholdPredictor:
    """Finds bright things, in whole planes."""

    precision, device, diameter = "float32", "cpu:0", 22.0

    def __init__(self, deadly: int | None = None, held: Callable[[], bool] = lambda: False) -> None:
        self._deadly, self._held = deadly, held

    def machine(self) -> dict[str, str]:
        return {"precision": self.precision}

    def batch_size(self, shape: tuple[int, int], scale: float = 1.0) -> int:
        return 4

    def shrink(self, shape: tuple[int, int], scale: float, size: int) -> bool:
        return False

    def look(self, pixels: NDArray[Any], begin: float) -> Segmented:
        return self._segmented(pixels)

    def predict_batch(
        self, images: Sequence[NDArray[Any]], scale: float = 1.0, *, adapt: str = "no"
    ) -> list[Segmented]:
        if self._deadly in [int(image.max()) for image in images]:
            os.kill(os.getpid(), signal.SIGKILL)
        while self._held():
            time.sleep(0.01)
        return [self._segmented(image) for image in images]

    def _segmented(self, pixels: NDArray[Any]) -> Segmented:
        labels, _ = ndimage.label(pixels > 100)
        return Segmented(labels.astype(np.int32), 1.0)


class MortalHands(in_hand.InHand):
    """Of the first unit that anybody begins its process dies."""

    def begin(self, unit: Unit) -> None:
        super().begin(unit)
        with suppress(FileNotFoundError):
            os.unlink(TOLD["once"])
            os.kill(os.getpid(), signal.SIGKILL)


def dask_setup(worker: Any) -> None:
    """Called by dask in each new process."""
    from nucseg_batch.executors import worker as workers

    def held() -> bool:
        return bool(TOLD.get("hold")) and not workers._leaving.is_set()

    if TOLD.get("hold"):
        workers.LEAVING_SECONDS = 200.0
    if TOLD.get("quick"):
        local.load_predictor = lambda job, units: ThresholdPredictor(TOLD.get("deadly"), held)  # type: ignore
    if "once" in TOLD:
        workers.InHand = MortalHands  # type: ignore
