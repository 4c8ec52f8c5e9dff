"""Measures this machine: each stage of a run alone, and a whole run, on given or simulated images.

Stages are timed one after the other, each as the stream calls it, in one thread but for what the device's library does;
the whole is a run like any other, of a share of the images, into a folder that is deleted afterwards. All speeds are in
pixels of the images as they are read, whatever scale the network sees them at.
"""

from __future__ import annotations

import itertools
import math
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.measure import measure
from nucseg_batch.errors import ImageError, NothingToDoError, NucsegError, OutputError, StorageError
from nucseg_batch.executors import batches, local
from nucseg_batch.executors.bench_records import Bench, EndToEndSpeed, Estimate, StageSpeed
from nucseg_batch.executors.job import Job, prepare
from nucseg_batch.executors.progress import Progress
from nucseg_batch.files.masks.store import MaskWriter, create_store
from nucseg_batch.files.opened import ImageReader, pixels_digest
from nucseg_batch.files.run.timings import read_timings
from nucseg_batch.files.sample import write_fields
from nucseg_batch.machine.cores import available_cores
from nucseg_batch.machine.device_use import compilations
from nucseg_batch.machine.gpus import driver_version
from nucseg_batch.pipeline.channels import NetworkInput, resolve_channel, resolve_channel_of_pixels, select_channels
from nucseg_batch.plan import Plane, Scales, Unit
from nucseg_batch.settings import RunSettings, SegmentSettings

if TYPE_CHECKING:
    from nucseg_batch.arrays.scale_search import ScaleTrial
    from nucseg_batch.network.predictor import Predictor

SECONDS = 0.7
"""How long a stage is repeated at least."""
ROUNDS = 3
"""How often at least."""
MOST_TRIED = 256
"""Planes that are read at most to find a batch of one kind."""
WINDOW = 1024
"""Of larger planes, windows with sides of so many pixels are what stages are timed on."""
SIMULATED_SIDE, SIMULATED_DIAMETER = 256, 26
"""Height and width of simulated images, and the width of their nuclei, which the default model sees as they are."""
CPU_MEGAPIXELS, GPU_MEGAPIXELS = 100, 4000
"""Megapixels of the whole run, unless the user says otherwise."""


def bench(
    place: str | None,
    model: Path | None,
    settings: SegmentSettings,
    progress: Progress,
    *,
    images: int | None = None,
    megapixels: float | None = None,
    scratch: Path | None = None,
    pattern: str | None = None,
) -> Bench:
    """Measures this machine on images at `place`, or simulated ones.

    images: for how many the estimate is; None for those at `place`. megapixels: how much the whole run is given, in
    units as a run has them. scratch: where simulated images and results are written meanwhile; None for the system's
    temporary folder.

    Raises what `prepare` and `local.run` raise, and NothingToDoError where none of the images can be read.
    """
    with _folder(scratch) as folder:
        try:
            return _measured(place, model, settings, progress, images, megapixels, folder, pattern)
        except StorageError as error:
            raise _no_room(scratch, error.__cause__ or error) from error
        except NucsegError:
            raise
        except OSError as error:
            raise _no_room(scratch, error) from error


def _no_room(scratch: Path | None, error: BaseException) -> StorageError:
    reason = getattr(error, "strerror", None) or str(error)
    return StorageError(
        f"--scratch {scratch or tempfile.gettempdir()}: writing failed ({reason}); nothing is kept. Give a folder on a "
        "disk with more room."
    )


def _measured(
    place: str | None,
    model: Path | None,
    settings: SegmentSettings,
    progress: Progress,
    images: int | None,
    megapixels: float | None,
    folder: Path,
    pattern: str | None,
) -> Bench:
    if place is None:
        progress.note("no IN: simulating images, which are easier to read and separate than real ones")
        count = max(1, round((megapixels or CPU_MEGAPIXELS) * 1e6 / SIMULATED_SIDE**2))
        place = str(write_fields(folder / "in", count, SIMULATED_SIDE, SIMULATED_DIAMETER))
    job = prepare(place, folder / "plan.zarr", model, settings, progress, pattern=pattern)
    began = time.monotonic()
    predictor = local.load_predictor(job, list(job.units()), choosing=False)
    loading = time.monotonic() - began
    if line := local.unused_gpu_line(settings, predictor):
        progress.note(line)
    from nucseg_batch.network import backend

    on_gpu = not predictor.device.startswith("cpu")
    planes, shown = _sample(job, predictor, settings)
    inputs = [one.pixels for one in shown]
    shape = (inputs[0].shape[0], inputs[0].shape[1])
    fixed = settings.batch_size is not None
    known = batches.remembered(predictor)
    predictor.batch_pixels = known if known is not None and not fixed else predictor.batch_pixels
    tried = batches.measure(predictor) if on_gpu and not fixed else []
    for scale in {1.0, 1.0 if settings.diameter is None else predictor.diameter / settings.diameter}:
        predictor.predict_batch(inputs, scale)  # compiles, which a long run does not notice
    wanted = megapixels or (GPU_MEGAPIXELS if on_gpu else CPU_MEGAPIXELS)
    shares = max(1, min(round(job.plan.pixel_count / 1e6 / wanted), sum(1 for _ in job.units())))
    share = shares // 2  # the first and the last are of the rarest shapes
    options = RunSettings(share=share) if shares > 1 else RunSettings()
    job = replace(job, store=folder / "out.zarr", begun=replace(job.begun, shares=shares), options=options)
    whole = _whole(job, predictor, loading, progress, shown[0].pixels.ndim)
    if not on_gpu and not fixed:  # after the run, whose memory it would add to
        tried = batches.measure(predictor)
    progress.note("timing the stages one by one")
    stages = tuple(_stages(job, predictor, settings, planes, shown, whole.scale or 1.0, folder))
    programs, compile_s = compilations.total()
    recorded = read_timings(job.store)
    return Bench(
        device="gpu" if on_gpu else "cpu",
        hardware=predictor.hardware(),
        cores=available_cores(),
        versions=backend.versions(),
        model=job.model.name,
        precision=predictor.precision,
        precision_reason=backend.precision_reason(settings.precision, predictor.device),
        batch=predictor.batch_size(shape, whole.scale or 1.0),
        batch_shape=shape,
        batch_tried=tuple({"pixels": one.pixels, "mpx_per_s": one.speed} for one in tried),
        stages=stages,
        whole=whole,
        estimate=_estimate(job, whole, images),
        driver=driver_version() if on_gpu else "",
        device_busy=None if recorded is None else recorded.device.share,
        programs=programs,
        compile_s=compile_s,
    )


@contextmanager
def _folder(scratch: Path | None) -> Iterator[Path]:
    """A temporary folder, gone afterwards."""
    try:
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="nucseg-bench-", dir=scratch)
    except OSError as error:
        raise OutputError(f"--scratch {scratch}: no folder can be made there ({error.strerror}).") from error
    with folder as name:
        yield Path(name)


def _sample(job: Job, predictor: Predictor, settings: SegmentSettings) -> tuple[list[Plane], list[NetworkInput]]:
    """A batch of planes, or windows of them, as the network sees them: of the shape of which there are most pixels."""
    label_array = max(job.plan.label_arrays, key=lambda one: len(one.images) * one.height * one.width)
    units = (unit for unit in job.units() if unit.label_array == label_array)
    planes: list[Plane] = []
    shown: list[NetworkInput] = []
    reason: Exception | None = None
    tried = (unit.label_array.plane(unit.place(i)) for unit in units for i in range(unit.plane_count))
    with ImageReader(job.begun.root, settings) as images:
        for plane in itertools.islice(tried, MOST_TRIED):
            try:
                one = select_channels(
                    images.read(plane, *_window(plane)), plane.image, resolve_channel(images, plane, settings)
                )
            except ImageError as error:
                reason = error
                continue
            if shown and (one.pixels.shape, one.pixels.dtype) != (shown[0].pixels.shape, shown[0].pixels.dtype):
                continue
            planes.append(plane)
            shown.append(one)
            height, width = one.pixels.shape[:2]
            if len(shown) == predictor.batch_size((height, width)):
                break
    if not shown:
        raise NothingToDoError(f"{job.begun.root}: none of the first images can be read ({reason}).")
    return planes, shown


def _window(plane: Plane) -> tuple[slice, slice]:
    rows, columns = (
        slice((side - length) // 2, (side + length) // 2)
        for side, length in ((side, min(side, WINDOW)) for side in (plane.image.height, plane.image.width))
    )
    return rows, columns


def _stages(
    job: Job,
    predictor: Predictor,
    settings: SegmentSettings,
    planes: list[Plane],
    shown: list[NetworkInput],
    scale: float,
    folder: Path,
) -> Iterator[StageSpeed]:
    """Each stage alone, on the same planes, which the network sees at a scale."""
    inputs = [one.pixels for one in shown]
    pixels = sum(one.intensity.size for one in shown)
    with ImageReader(job.begun.root, settings) as images:

        def read() -> None:
            for plane in planes:
                whole = images.read(plane, *_window(plane))
                select_channels(whole, plane.image, resolve_channel_of_pixels(whole, plane.image, settings.channel))
                pixels_digest(whole)

        yield _stage("read", read, pixels)
    inputs = inputs[: predictor.batch_size((inputs[0].shape[0], inputs[0].shape[1]), scale)]
    network, separate = predictor.stages(inputs, scale)
    seen = pixels * len(inputs) // len(shown)
    found = _found(predictor, [one.pixels for one in shown], len(inputs), scale)
    labels = [one.labels for one in found]
    nuclei = sum(int(one.max(initial=0)) for one in labels)
    yield _stage("network", network, seen)
    yield _stage("separate", separate, seen, nuclei * len(inputs) // len(shown))

    def measured() -> None:
        for one, label in zip(shown, labels, strict=True):
            measure(label, one.intensity, one.channels)

    yield _stage("measure", measured, pixels, nuclei)
    store = folder / "write.zarr"
    create_store(store, job.plan, with_images=False, mirror=job.mirror)
    writer, unit = MaskWriter(store), next(iter(job.units()))
    masks = _filled(unit, labels)
    yield _stage("write", lambda: writer.write(unit, masks), masks.size, round(nuclei * masks.size / pixels))


def _found(predictor: Predictor, inputs: list[NDArray[Any]], size: int, scale: float) -> list[ScaleTrial]:
    """Labels of images, in batches of a size."""
    parts = (inputs[start : start + size] for start in range(0, len(inputs), size))
    return [one for part in parts for one in predictor.predict_batch(part, scale)]


def _filled(unit: Unit, labels: Sequence[NDArray[np.integer]]) -> NDArray[np.uint32]:
    """Masks of a unit with real labels wherever they fit."""
    masks = np.zeros(unit.shape, np.uint32)
    planes = masks.reshape(-1, *masks.shape[-2:])
    for i, plane in enumerate(planes):
        label = labels[i % len(labels)]
        times = [-(-side // length) for side, length in zip(plane.shape, label.shape, strict=True)]
        plane[...] = np.tile(label, times)[: plane.shape[0], : plane.shape[1]]
    return masks


def _stage(name: str, work: Callable[[], object], pixels: int, nuclei: int | None = None) -> StageSpeed:
    """Repeats a stage; its speed is that of the median round."""
    work()
    walls: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    while len(walls) < ROUNDS or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        work()
        walls.append(time.perf_counter() - start)
    seconds, cores = float(np.median(walls)), (time.process_time() - cpu) / len(walls)
    return StageSpeed(
        name,
        pixels / seconds / 1e6,
        pixels / max(cores, 1e-9) / 1e6,
        None if nuclei is None else nuclei / seconds,
    )


def _whole(job: Job, predictor: Predictor, loading: float, progress: Progress, dimensions: int) -> EndToEndSpeed:
    """The job, done as `segment` does it.

    loading: seconds that the predictor took to load. dimensions: of the images whose scale is told, 2 of grey and 3 of
    colour. Raises NothingToDoError where none of its images could be segmented.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak, which is that of trying batches
    summary = local.run(job, progress, predictor=predictor)
    if not summary.new_planes:
        failure = summary.failures[0]
        raise NothingToDoError(f"{job.begun.root}: no image can be segmented; {failure.image}: {failure.message}")
    scales = job.journal.scales() or Scales()
    seconds = max(summary.stream_seconds, 1e-9)
    megapixels = summary.new_pixels / 1e6
    return EndToEndSpeed(
        planes=summary.new_planes,
        failed=len(summary.failures),
        scale=None if scales.adapt in ("each", "sized") else scales.of(1 if dimensions == 2 else 3),
        megapixels=megapixels,
        nuclei=summary.new_nuclei,
        startup_s=loading + summary.seconds - summary.stream_seconds,
        stream_s=seconds,
        mpx_per_s=megapixels / seconds,
        nuclei_per_s=summary.new_nuclei / seconds,
        busy={name: summary.gauge.share(name) for name in ("read", "size", "segment", "measure", "write")},
        peak_mb=_peak_kb() / 1024,
    )


def _peak_kb() -> int:
    """Largest resident memory since it was last forgotten."""
    with suppress(OSError, ValueError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line.split()[1] for line in status if line.startswith("VmHWM")))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _estimate(job: Job, whole: EndToEndSpeed, images: int | None) -> Estimate:
    """What all images take at the speed of the whole run."""
    count = images or job.plan.image_count
    megapixels = job.plan.pixel_count / 1e6 * count / job.plan.image_count
    return Estimate(
        images=count,
        megapixels=megapixels,
        seconds=whole.startup_s + megapixels / whole.mpx_per_s,
        cpus=available_cores(),
        memory_gb=math.ceil(1.25 * whole.peak_mb / 1024),
    )
