"""What the host costs beside the device: each stage alone, and the stream with a device that answers at once.

    python tests/benchmarks/host.py SOURCE [--side 256 1024] [--source-kind png tiff] [--images 256] [--repeat 5]

The images are the grey ones of SOURCE that have --tile pixels a side; for other sides, mosaics of them. Their nuclei
are what Otsu's threshold finds, so no network is needed and labels cover about as much as real ones.

A stage is timed alone, called from one thread, on the planes of one unit. `ms`: processor time a megapixel, the least
of --repeat. `lock`: how long Python's lock is held, which no other thread can use then. `sum` is without the rows in
brackets, which a run needs only for some images or models.

`stream` is a run as `segment` does it, with a predictor that does all that the real one does on the host and knows the
labels already: megapixels a second, and by processor time of all threads, one run after another in one process.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import inputs
import numpy as np
from lock_share import LockWatch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

sys.path.insert(0, str(Path(__file__).parents[1]))
from doubles import Threshold

from nucseg_batch.arrays.exposure import Exposure
from nucseg_batch.arrays.geometry import ResampleGeometry, padded_batch
from nucseg_batch.arrays.measure import measure
from nucseg_batch.arrays.ranges import intensity_range
from nucseg_batch.arrays.scale import numbered
from nucseg_batch.arrays.scale_search import ScaleTrial
from nucseg_batch.executors import job, local
from nucseg_batch.files.masks.store import MaskWriter, create_store
from nucseg_batch.files.opened import ImageReader, pixels_digest
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.pipeline.measuring import measured_nuclei
from nucseg_batch.plan import Plane, Unit
from nucseg_batch.settings import SegmentSettings

SMALLEST = 20
"""Pixels of the smallest nucleus."""
SUPPORT = 200
"""How far every pixel supports its nucleus."""


class Silent:
    """Progress that nobody hears of."""

    def headers(self, done: int, total: int) -> None: ...

    def start(self, count: int, pixels: int, what: str) -> None: ...

    def plane(self, pixels: int, nuclei: int, failed: bool) -> None: ...

    def note(self, line: str) -> None: ...

    def detail(self, line: str) -> None: ...


class Known(Threshold):
    """A predictor with the work of the real one on the host, and with labels that are known beforehand."""

    intensities = "nuclei"

    def __init__(self, pictures: Sequence[NDArray[Any]]) -> None:
        super().__init__(size=batch_of(pictures[0]))
        self._answers = {_key(picture): labels_of(picture) for picture in pictures}

    def range_of(self, pixels: NDArray[Any]) -> tuple[float, float]:
        """As the real one."""
        return intensity_range(pixels, self.intensities)

    def predict_batch(self, images: Sequence[NDArray[Any]], scale: float = 1.0, **_: Any) -> list[ScaleTrial]:
        """Padding, a copy of labels and support as they come from the device, and the width."""
        found = []
        padded_batch(images, ResampleGeometry.of(images[0].shape, scale).native_bucket, self._size)
        for image in images:
            labels, support = self._answers[_key(image)]
            one = ScaleTrial(labels.copy(), scale, support=support.copy())
            assert one.width is None or one.width > 0
            found.append(one)
        return found


def batch_of(picture: NDArray[Any]) -> int:
    """How many such images go to the device at once, as on a GPU."""
    return max(1, 2**22 // picture.size)


def _key(picture: NDArray[Any]) -> bytes:
    return picture[::11, ::13].tobytes()


def labels_of(picture: NDArray[Any]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Labels of what is brighter than Otsu's threshold, without specks, and the support of their pixels.

    In two bytes, as they leave a device for images of up to 1024x1024 pixels.
    """
    labels = ndimage.label(picture > threshold_otsu(picture))[0]
    labels[np.bincount(labels.ravel())[labels] < SMALLEST] = 0
    labels = numbered(labels.astype(np.uint16))
    return labels, np.where(labels > 0, SUPPORT, 0).astype(np.uint8)


def measured_one(
    labels: NDArray[np.integer], pixels: NDArray[Any], support: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    """What is measured of the nuclei of one plane."""
    return measured_nuclei(labels, pixels, {}, support)


def stages(planes: list[Plane], unit: Unit, images: ImageReader, writer: MaskWriter) -> dict[str, Callable[[], object]]:
    """Each stage of the stream, as a function of no arguments that does it for all planes."""
    with images:  # nothing that was read here is kept for the first round
        pixels = [images.read(plane) for plane in planes]
    known = {_key(one): labels_of(one) for one in pixels}
    labels, support = (list(each) for each in zip(*(known[_key(one)] for one in pixels), strict=True))
    measures = [measured_one(*each) for each in zip(labels, pixels, support, strict=True)]
    table, masks = NucleiTable(), np.zeros((len(planes), *unit.shape[-2:]), np.uint32)
    none: list[dict[str, NDArray[Any]]] = [{}] * len(planes)
    bucket = ResampleGeometry.of(pixels[0].shape, 1.0).native_bucket

    def each(do: Callable[..., object], *given: Sequence[Any]) -> Callable[[], object]:
        return lambda: [do(*one) for one in zip(*given, strict=True)]

    def read() -> None:
        with images:  # which lets go of what it kept, so that the next round decodes it again
            for plane in planes:
                images.read(plane)

    def copied() -> None:
        for place, one in zip(masks, labels, strict=True):
            place[...] = one

    copied()
    whole = masks.reshape(unit.shape)
    return {
        "read": read,
        "sha256": each(pixels_digest, pixels),
        "range": each(intensity_range, pixels),
        "(range by percentiles)": each(lambda one: intensity_range(one, "percentiles"), pixels),
        "pad, copy down": lambda: (
            padded_batch(pixels, bucket, len(pixels)),
            *(each(np.copy, x)() for x in (labels, support)),
        ),
        "areas, width": each(lambda one: ScaleTrial(one, 1.0).width, labels),
        "(numbered)": each(numbered, labels),
        "measure, confidence": each(measure, labels, pixels, none, support),
        "exposure": each(Exposure.of, pixels),
        "CSV text": each(lambda plane, one: table.text(plane, one, None), planes, measures),
        "copy into the unit": copied,
        "write the shard": lambda: writer.write(unit, whole),
    }


def costs(functions: dict[str, Callable[[], object]], megapixels: float, repeat: int) -> list[dict[str, Any]]:
    """Milliseconds a megapixel of each function, of processors and with the lock, the least of rounds; and sums."""
    watch = LockWatch()
    spent: dict[str, list[tuple[float, float, float]]] = {name: [] for name in functions}
    for _ in range(repeat):
        for name, do in functions.items():
            began = time.process_time(), time.perf_counter()
            do()
            ended = time.process_time(), time.perf_counter()
            spent[name].append((ended[0] - began[0], ended[1] - began[1], watch.share(do)))
    figures = {}
    for name, rounds in spent.items():
        processors, seconds, shares = zip(*rounds, strict=True)
        figures[name] = 1000 / megapixels * np.array([min(processors), min(seconds) * np.median(shares)])
    figures["sum"] = np.sum([each for name, each in figures.items() if not name.startswith("(")], axis=0)
    return [
        {"stage": name, "ms": round(float(ms), 2), "lock": round(float(lock), 2)}
        for name, (ms, lock) in figures.items()
    ]


@contextmanager
def prepared(folder: Path, store: Path) -> Iterator[job.Job]:
    """The job of a folder, as `segment --diameter 26` has it."""
    yield job.prepare(folder, store, None, SegmentSettings(diameter=26.0), Silent())
    common.remove_output(store)


def stage_table(folder: Path, store: Path, most: int, repeat: int) -> list[dict[str, Any]]:
    """The costs of all stages for the first unit of a folder."""
    with prepared(folder, store) as made:
        create_store(store, made.plan, mirror=made.mirror)
        unit = next(iter(made.units()))
        planes = [unit.label_array.plane(unit.place(i)) for i in range(unit.plane_count)]
        with ImageReader(made.begun.root, made.settings) as images:
            functions = stages(planes, unit, images, MaskWriter(store))
            return costs(functions, sum(plane.image.height * plane.image.width for plane in planes) / 1e6, repeat)


def stream(folder: Path, store: Path, pictures: Sequence[NDArray[Any]], repeat: int) -> dict[str, Any]:
    """Speed of whole runs of a folder; the fastest."""
    predictor: Any = Known(pictures)
    runs = []
    for _ in range(repeat):
        with prepared(folder, store) as made:
            cpu = time.process_time()
            summary = local.run(made, Silent(), predictor=predictor)
            spent = time.process_time() - cpu
            if summary.failures:
                sys.exit(f"{summary.failures[0].image}: {summary.failures[0].message}")
            runs.append((summary.new_pixels / 1e6 / summary.stream_seconds, summary.new_pixels / 1e6 / spent))
    speed, by_core = (max(each) for each in zip(*runs, strict=True))
    return {"Mpx/s": round(speed, 1), "Mpx per CPU second": round(by_core, 1)}


def main() -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__ or "", repeat=5)
    parser.add_argument("--side", type=int, nargs="+", default=[256, 1024], help="of the images (256 and 1024)")
    parser.add_argument("--tile", type=int, default=256, help="side of the images of SOURCE that are used (256)")
    parser.add_argument("--images", type=int, default=256, help="of 256x256 pixels; fewer of others (256)")
    parser.add_argument("--units", type=int, default=4, help="the stream gets so many times the images (4)")
    parser.add_argument(
        "--source-kind", nargs="+", choices=inputs.SOURCE_KINDS, default=["png", "tiff"], help="what IN is (PNG, TIFF)"
    )
    parser.add_argument("--only", choices=("stages", "stream"), help="one of both")
    arguments = parser.parse_args()
    tables, streams = {}, []
    with common.scratch(arguments) as place:
        for side in arguments.side:
            pictures = made_pictures(arguments, side)
            pixels = [picture.pixels for picture in pictures]
            count = max(1, arguments.images * 256**2 // side**2)
            for kind in arguments.source_kind:
                name = f"{side}x{side} {kind}"
                store = place / "out.zarr"
                if arguments.only != "stream":
                    folder = inputs.write_images(pictures, place / f"{kind}{side}", count, kind)
                    tables[name] = stage_table(folder, store, count, arguments.repeat)
                    print(f"\n{name}, ms a Mpx")
                    common.print_table(tables[name])
                if arguments.only != "stages":
                    folder = inputs.write_images(pictures, place / f"{kind}{side}s", count * arguments.units, kind)
                    streams.append({"images": name, **stream(folder, store, pixels, arguments.repeat)})
                    common.print_table(streams[-1:])
    common.tell(arguments, streams or next(iter(tables.values())), {"stages": tables, "streams": streams})


def made_pictures(arguments: argparse.Namespace, side: int) -> list[inputs.Picture]:
    """Pictures of a side: those of the source, or mosaics of them."""
    pictures = inputs.grey_pictures(arguments.source, arguments.tile)
    if side == arguments.tile:
        return pictures
    return [inputs.Picture(Path("mosaic"), inputs.mosaic(pictures, side, seed)) for seed in range(4)]


if __name__ == "__main__":
    main()
