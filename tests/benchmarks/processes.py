"""How much several processes gain over one where the device costs nothing: the host's part of a run, with a stub.

    python tests/benchmarks/processes.py SOURCE [--sides 256 1024] [--processes 1 2] [--pixels 200e6] [--kind tiff]

The stub in the network's place finds the nuclei of each different image once, by a threshold, and answers at once when
it sees the image again, so that what is measured is reading, measuring and writing. `by first` is the speed against
that of the first number of processes in the same round; on a machine with other work only this and `CPU ms a Mpx` say
something. `steady` is the speed between the first and the last unit that were done, without the start of processes.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import common
import inputs
import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).parents[1])]
from doubles import Threshold  # noqa: E402

from nucseg_batch.arrays.scale_search import ScaleTrial  # noqa: E402

BATCH_PIXELS = 2**22
"""Pixels in a batch of the stub."""


class Stub(Threshold):
    """Finds the nuclei of each image once."""

    def __init__(self) -> None:
        super().__init__(diameter=26.0)
        self._known: dict[tuple[Any, ...], ScaleTrial] = {}

    def batch_size(self, shape: tuple[int, int], scale: float = 1.0) -> int:
        """As many as a device would take."""
        return max(1, BATCH_PIXELS // (shape[0] * shape[1]))

    def predict_batch(self, images: Any, scale: float = 1.0, **_: Any) -> list[ScaleTrial]:
        """What is known of them."""
        return [self.found(image, scale) for image in images]

    def found(self, image: NDArray[Any], scale: float) -> ScaleTrial:
        """Labels of an image, from its first look."""
        key = (image.shape, image[::7, ::5].tobytes())
        if key not in self._known:
            self._known[key] = super().found(image, scale)
        return self._known[key]

    def bright(self, plane: NDArray[Any]) -> NDArray[np.bool_]:
        """Where an image is brighter than halfway between its mean and its brightest."""
        return np.asarray(plane > (plane.mean() + np.percentile(plane, 99.5)) / 2)


def use_stub() -> None:
    """Puts the stub in the network's place in this process."""
    from nucseg_batch.executors import local
    from nucseg_batch.machine.memory import keep_arenas_few

    keep_arenas_few()  # as with the network
    local.load_predictor = lambda *_, **__: Stub()  # type: ignore[assignment]


def dask_setup(worker: object) -> None:
    """Called by dask in each process, which loads this file first."""
    use_stub()


def main() -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__ or "", repeat=3)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024], help="of the images (256 1024)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="how many (1 2)")
    parser.add_argument("--pixels", type=float, default=200e6, help="of a run (200e6)")
    parser.add_argument("--kind", choices=inputs.SOURCE_KINDS, default="tiff", help="what IN is (tiff)")
    arguments = parser.parse_args()
    small = inputs.grey_pictures(arguments.source, 256)
    environment = {
        "DASK_DISTRIBUTED__WORKER__PRELOAD": f'["{Path(__file__).absolute()}"]',
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    rows: list[dict[str, Any]] = []
    with common.scratch(arguments) as place:
        for side in arguments.sides:
            pictures = [
                inputs.Picture(Path("made.tif"), inputs.mosaic(small, side, seed)) for seed in range(min(len(small), 8))
            ]
            count = max(1, round(arguments.pixels / side**2))
            images = inputs.write_images(pictures, place / str(side), count, arguments.kind)
            runs: dict[int, list[dict[str, float]]] = {number: [] for number in arguments.processes}
            for _ in range(arguments.repeat):
                for number in runs:
                    runs[number].append(_run(images, place / "out.zarr", count * side**2, number, environment))
            first = runs[arguments.processes[0]]
            for number, these in runs.items():
                ratios = [one["steady"] / other["steady"] for one, other in zip(these, first, strict=True)]
                by_first = round(statistics.median(ratios), 3)
                rows.append({"side": side, "processes": number, **common.medians(these), "by first": by_first})
            shutil.rmtree(images)
    common.tell(arguments, rows, {"runs": rows})


def _run(images: Path, store: Path, pixels: int, processes: int, environment: dict[str, str]) -> dict[str, float]:
    """One run with the stub."""
    program = "import processes; processes.use_stub(); from nucseg_batch.cli.main import main; main()"
    words = ["segment", images, store, "--diameter", 26, "--device", "cpu", "--processes", processes]
    done = common.finished([sys.executable, "-c", program, *words], environment)
    found = common.figures(done, pixels)
    times = [path.stat().st_mtime for path in (store.with_suffix(".run") / "units").glob("*.json")]
    steady = common.steady(times, pixels) or found["Mpx/s"]
    common.remove_output(store)
    costs = round(found["CPU seconds"] / pixels * 1e9, 2)
    row = {"steady": steady, "Mpx/s": found["Mpx/s"], "seconds": found["seconds"], "CPU ms a Mpx": costs}
    print(f"{images.name}, {processes} processes: {row}", flush=True)
    return row


if __name__ == "__main__":
    main()
