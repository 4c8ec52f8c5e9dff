"""What tests have dask workers load before anything else: a quick segmenter, and ways to die; not part of the program.

`told` gives the environment of a program whose workers do as it says. In NUCSEG_TEST_WORKER, JSON: `quick` puts a
threshold in the place of the network, which says that it is on a GPU with `gpu`; `deadly` is the largest value of
images on which the process dies; `once` a file, of which the first process that begins a unit dies and takes it away;
`hold_begun` a file for whose end every process waits that has begun a unit; `variables` a folder in which each process
leaves those that were set for it; `hold` has batches wait until their process was told to end, for which it then has
all the time that it needs.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from doubles import Threshold
from numpy.typing import NDArray

from nucseg_batch.executors import local, worker_state
from nucseg_batch.plan import Unit

HERE = Path(__file__)
TOLD = json.loads(os.environ.get("NUCSEG_TEST_WORKER", "{}"))


def told(**what: Any) -> dict[str, str]:
    """The environment of a program whose workers are told something."""
    return {
        **os.environ,
        "DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(HERE)]),
        "NUCSEG_TEST_WORKER": json.dumps(what),
        "PYTHONPATH": os.pathsep.join(map(str, HERE.parents[1:3])),
    }


class QuickPredictor(Threshold):
    """Finds bright things, in whole planes; may die of an image, or be held."""

    def __init__(self, deadly: int | None = None, held: Callable[[], bool] = lambda: False) -> None:
        super().__init__(diameter=22.0)
        self._deadly, self._held = deadly, held

    def called(self, images: Sequence[NDArray[Any]]) -> None:
        if self._deadly in [int(image.max()) for image in images]:
            os.kill(os.getpid(), signal.SIGKILL)
        while self._held():
            time.sleep(0.01)


class Hands(worker_state.AttemptsInFlight):
    """Of the first unit that anybody begins its process dies, or it waits, where that is asked for."""

    def begin(self, unit: Unit) -> None:
        super().begin(unit)
        with suppress(FileNotFoundError, KeyError):
            os.unlink(TOLD["once"])
            os.kill(os.getpid(), signal.SIGKILL)
        while os.path.exists(TOLD.get("hold_begun", "")):
            time.sleep(0.01)


def dask_setup(worker: Any) -> None:
    """Called by dask in each new process."""
    from nucseg_batch.executors import worker as workers

    def held() -> bool:
        return bool(TOLD.get("hold")) and not workers._leaving.is_set()

    if TOLD.get("hold"):
        workers.LEAVING_SECONDS = 200.0
    if TOLD.get("quick"):
        QuickPredictor.device = "gpu:0" if TOLD.get("gpu") else "cpu:0"
        local.load_predictor = lambda job, units: QuickPredictor(TOLD.get("deadly"), held)  # type: ignore
    if folder := TOLD.get("variables"):
        names = ("CUDA_VISIBLE_DEVICES", "NUCSEG_GPU_MEMORY", "OMP_NUM_THREADS")
        Path(folder, f"{worker.name}.json").write_text(json.dumps({name: os.environ.get(name) for name in names}))
    workers.AttemptsInFlight = Hands  # type: ignore
