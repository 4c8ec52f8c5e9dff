"""Computes a job's units in this process, and holds what is the same for every process that computes.

Keras is imported only when there is an image to segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucseg_batch.errors import UsageError
from nucseg_batch.executors.batches import cache_folder, choose, described
from nucseg_batch.executors.device_watch import watched
from nucseg_batch.executors.executor import NeverStopping, Stopping
from nucseg_batch.executors.flat_fields import flat_fields, freeze_flat_fields
from nucseg_batch.executors.garbage import unsearched
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.progress import Progress, ProgressCounter
from nucseg_batch.executors.run_job import RunSummary, run_job
from nucseg_batch.executors.surroundings import machine
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.files.opened import ImageReader, State
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.timings import DeviceTotal, add_timings, now
from nucseg_batch.machine.cores import available_cores
from nucseg_batch.machine.device_use import compilations
from nucseg_batch.machine.gpus import usable_gpus, visible_gpus
from nucseg_batch.machine.memory import keep_arenas_few, return_large_blocks
from nucseg_batch.pipeline.estimate_scale import choose_scales
from nucseg_batch.pipeline.kernels_ahead import KernelsAhead, load_ahead
from nucseg_batch.pipeline.region_stream import RegionStream
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.stream import process_units
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Plan, Plane, Scales, Unit
from nucseg_batch.settings import SegmentSettings

if TYPE_CHECKING:
    from nucseg_batch.network.predictor import Predictor

COMPILING = "compiling loops for this processor, which takes about half a minute; later runs find them in a cache"
"""Message for a run that finds no compiled loops in Numba's cache."""


def run(
    job: Job, progress: Progress, stop: Stopping | None = None, *, predictor: Predictor | None = None
) -> RunSummary:
    """Does what a job still misses in this process, see `run_job`. predictor: the job's model, where it is loaded."""
    done = ProgressCounter(progress, job.journal, job.options)
    return run_job(job, LocalExecutor(job, done, predictor), done, stop or NeverStopping())


class LocalExecutor:
    """This process with its device; told: whether the user knows already why a GPU is not used."""

    def __init__(
        self, job: Job, done: ProgressCounter, predictor: Predictor | None = None, *, told: bool = False
    ) -> None:
        self._told = told
        self._job = job
        self._done = done
        self._predictor = predictor
        self._scales = Scales()
        self._kernels: KernelsAhead | None = None
        self._compiling = False

    @property
    def predictor(self) -> Predictor | None:
        """The model, where it is loaded."""
        return self._predictor

    def load_model(self, units: Sequence[Unit]) -> str:
        """See Executor."""
        if self._predictor is None:
            self._kernels = load_ahead(self._job.plan, self._job.settings, self._job.model)
            try:
                self._predictor = load_predictor(self._job, units)
            except BaseException:
                self._kernels.stop()
                raise
            if not self._told and (line := unused_gpu_line(self._job.settings, self._predictor)):
                self._done.progress.note(line)
        return describe_compute(self._predictor)

    def freeze_parameters(self, states: Mapping[str, State]) -> None:
        """See Executor."""
        assert self._predictor is not None
        with self._compilation_told(), ImageReader(self._job.begun.root, self._job.settings, states) as images:
            self._scales = freeze_run_parameters(self._job, images, self._predictor, self._done)

    def process(
        self, tasks: Sequence[UnitTask], states: Mapping[str, State], stopped: Callable[[], bool]
    ) -> StageTimer:
        """See Executor."""
        assert self._predictor is not None
        job, predictor, attempts = self._job, self._predictor, Attempts(self._job.journal.folder)
        gpus = [gpu.name for gpu in visible_gpus()[:1]] if on_gpu(predictor) else []
        began = now()
        reader = ImageReader(job.begun.root, job.settings, states, flat_fields(job))
        with self._compilation_told(), watched(gpus) as seen, reader as images:
            gauge = process(job, tasks, images, predictor, self._scales, attempts, self._done, stopped)
        note_watched(job, began, seen)
        for line in (*described(predictor, tasks, self._scales, job.settings.channel), *gauge.lines()):
            self._done.progress.detail(line)
        return gauge

    @contextmanager
    def _compilation_told(self) -> Iterator[None]:
        """Tells the user once if loops over pixels must be compiled in the block."""
        from nucseg_batch.arrays.kernels.compiled import compilation_told

        def tell() -> None:
            if not self._compiling:
                self._compiling = True
                self._done.progress.note(COMPILING)

        if self._kernels is not None and self._kernels.compiling:
            tell()
        with compilation_told(tell):
            yield


def process(
    job: Job,
    tasks: Sequence[UnitTask],
    images: ImageReader,
    predictor: Predictor,
    scales: Scales,
    attempts: Attempts,
    done: ProgressCounter,
    stopped: Callable[[], bool],
) -> StageTimer:
    """Segments and commits units, of whole planes first and then regions; the same for every way to run a plan.

    Returns how busy the stages were, which the log and the timings in the run folder say too.
    """
    began, gauge = now(), StageTimer()
    shared: dict[str, Any] = {
        "images": images,
        "journal": job.journal,
        "attempts": attempts,
        "predictor": predictor,
        "settings": job.settings,
        "scales": scales,
        "tell": done.tell,
        "stopped": stopped,
        "gauge": gauge,
    }
    process_units(
        [task for task in tasks if not task.unit.label_array.regional],
        **shared,
        writer=MaskWriter(job.store),
        table=job.table,
        workers=job.settings.workers or min(8, max(1, available_cores() // 2)),
        advance=done.advance,
    )
    regions = RegionStream(**shared, advance=done.advance_region)
    regions.process([task for task in tasks if task.unit.label_array.regional])
    programs, compiling = compilations.since_told()
    device = DeviceTotal(predictor.hardware(), programs=programs, compiling=compiling)
    for line in (*gauge.lines(), *device.lines()):
        job.journal.log(line)
    add_timings(job.store, began, gauge.totals(), device)
    return gauge


def note_watched(job: Job, began: datetime, seen: DeviceTotal) -> None:
    """Notes in the log and the timings what the driver said of the device while units were done."""
    if seen.of:
        for line in seen.lines():
            job.journal.log(line)
        add_timings(job.store, began, {}, seen)


def describe_compute(predictor: Predictor) -> str:
    """How a predictor computes, for the user."""
    return f"{predictor.precision} on {predictor.device}"


def on_gpu(predictor: Predictor) -> bool:
    """Whether a predictor computes on a GPU."""
    return not predictor.device.startswith("cpu")


def unused_gpu_line(settings: SegmentSettings, predictor: Predictor) -> str | None:
    """Why a GPU of this machine is not used though `auto` was asked for, for the user; None where all is well."""
    if settings.device != "auto" or on_gpu(predictor) or not usable_gpus():
        return None
    from nucseg_batch.network.missing_gpu import unused_gpu

    return unused_gpu(predictor.device)


def load_predictor(job: Job, units: Sequence[Unit], *, choosing: bool = True) -> Predictor:
    """The model of a job on its device, with batches that suit it unless told not to choose these.

    Raises UsageError where it cannot do these units.
    """
    large = next((unit.planes[0] for unit in units if unit.label_array.regional), None)
    return predictor_of(job.model, job.settings, large, choosing=choosing)


def predictor_of(model: Path, settings: SegmentSettings, large: Plane | None, *, choosing: bool = True) -> Predictor:
    """A model on its device, see `load_predictor`; large: a plane that it is to do by regions, where there is one."""
    keep_arenas_few()
    if settings.device == "cpu" or not usable_gpus():
        return_large_blocks()  # beside a GPU the time counts that asking for them again takes
    with unsearched():
        return _predictor_of(model, settings, large, choosing)


def _predictor_of(model: Path, settings: SegmentSettings, large: Plane | None, choosing: bool) -> Predictor:
    from nucseg_batch.network.backend import keep_programs
    from nucseg_batch.network.model_file import load_model
    from nucseg_batch.network.predictor import Predictor

    loaded = load_model(model)
    if large is not None and not loaded.info.network.head.one_by_one:
        raise UsageError(
            f"--model {model.name} finds the foreground only, which is not done by regions: {large.name} has "
            f"{large.image.height} x {large.image.width} pixels; raise --region to have it done whole."
        )
    with suppress(RuntimeError):
        keep_programs(cache_folder() / "programs")
    predictor = Predictor(loaded, settings)
    if choosing and settings.batch_size is None:
        choose(predictor)
    return predictor


def freeze_run_parameters(job: Job, images: ImageReader, predictor: Predictor, done: ProgressCounter) -> Scales:
    """Fixes what all processes of a run must share, under its root lock: how is computed, and at which scales."""
    journal = job.journal
    journal.bind(machine(predictor))
    freeze_flat_fields(job, images, done.progress.note)
    scales = journal.scales()
    if scales is None:
        scales = scales_of(job.plan, images, predictor, job.settings, done.progress.note)
        journal.keep_scales(scales)
    done.tell(scales.reason)
    return scales


def scales_of(
    plan: Plan, images: ImageReader, predictor: Predictor, settings: SegmentSettings, tell: Callable[[str], None]
) -> Scales:
    """At which scales the images of a plan are segmented, as far as that is the same for all of them."""
    if predictor.sizes_alone and settings.diameter is None:
        return Scales(adapt="sized", reason="the scale of each image is estimated by the size network of the model")
    return choose_scales(plan, images, predictor.look, predictor.diameter, settings, tell)
