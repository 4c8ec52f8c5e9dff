from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from beginnings import beginning
from doubles import Threshold
from numpy.typing import NDArray

from nucseg_batch.arrays.scale_search import ScaleTrial
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.header_scan import scan_headers
from nucseg_batch.files.masks.store import MaskWriter, create_store
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import PlaneResult
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.pipeline import flow
from nucseg_batch.pipeline.channels import select_channels
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.stream import process_units
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Adapt, Failure, ImageInfo, LabelArray, Plan, Plane, Scales, budget, make_plan
from nucseg_batch.settings import SegmentSettings


def write_images(folder: Path, count: int, shape: tuple[int, int] = (20, 30)) -> None:
    for i in range(count):
        image = np.full(shape, 10, np.uint8)
        image[3:7, 4 : 6 + i % 5] = 150 + i
        image[12:15, 8:12] = 150 + i
        (folder / f"{shape[0]}_{i:02d}.png").write_bytes(imagecodecs.png_encode(image))


class Job:
    """A planned run over real files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder.parent / "out.zarr"
        self.journal = Journal(self.store)
        self.finished: list[str] = []
        self.told: list[str] = []

    def run(self, segmenter: Threshold, workers: int = 2, scales: Scales | None = None) -> Plan:
        settings = SegmentSettings()
        scanned = scan_headers(discover(str(self.folder)), settings, lambda _: None)
        plan = make_plan(scanned.images, scanned.failures)
        create_store(self.store, plan)
        self.journal.create(beginning(plan))
        with ImageReader(self.folder, settings) as images:
            process_units(
                [UnitTask(unit) for unit in plan.units()],
                images=images,
                writer=MaskWriter(self.store),
                journal=self.journal,
                attempts=Attempts(self.journal.folder),
                predictor=segmenter,
                settings=settings,
                scales=scales or Scales(),
                table=NucleiTable(),
                workers=workers,
                advance=lambda plane, _: self.finished.append(plane.image.key),
                tell=self.told.append,
                gauge=StageTimer(),
            )
        return plan


@pytest.fixture
def job(tmp_path: Path) -> Job:
    folder = tmp_path / "in"
    folder.mkdir()
    return Job(folder)


def results(job: Job, plan: Plan) -> dict[str, PlaneResult | Failure]:
    found = {}
    for unit in plan.units():
        marker = job.journal.marker(unit)
        assert marker is not None
        found.update({plane.image: plane for plane in marker.whole_planes})
    return found


def test_batches_are_filled_across_stacks_of_one_padded_shape(job: Job) -> None:
    """Five images of one shape and four of another are batches of four, four and one, not four half-empty ones."""
    write_images(job.folder, 5, (20, 30))
    write_images(job.folder, 4, (22, 31))
    segmenter = Threshold(size=4)
    plan = job.run(segmenter)
    assert sorted(segmenter.batches) == [1, 4, 4], "in any order: several threads call the device"
    assert len(plan.label_arrays) == 2
    assert sorted(job.finished) == sorted(results(job, plan))
    assert all(isinstance(image, PlaneResult) and image.nuclei == 2 for image in results(job, plan).values())


def test_images_that_are_rescaled_share_batches_only_with_their_own_shape(job: Job) -> None:
    """One pair of matrices then rescales a whole batch; the scale is a column of the image's row."""
    write_images(job.folder, 5, (20, 30))
    write_images(job.folder, 3, (22, 31))
    segmenter = Threshold(size=4)
    plan = job.run(segmenter, scales=Scales(grey=2.0))
    assert sorted(segmenter.batches) == [1, 3, 4], "together they would be two full batches"
    assert all(isinstance(r, PlaneResult) and r.summary["scale"] == 2.0 for r in results(job, plan).values())


class Sizing(Threshold):
    """Knows a scale for each image: by its brightest pixel, of which the images here have one each."""

    def __init__(self, scales: dict[int, float], **options: Any) -> None:
        super().__init__(**options)
        self.adapted: set[Adapt] = set()
        self.looks: list[int] = []
        self._scales = scales

    def own_scales(
        self, images: Sequence[NDArray[Any]], limits: Sequence[tuple[float, float]], *, fill: bool = True
    ) -> list[float]:
        assert len({image.shape for image in images}) == 1
        self.looks.append(len(images))
        scales = [self._scales.get(int(pixels.max()), 1.0) for pixels in images]
        if min(scales) < 0:
            raise RuntimeError("the size network does not like this image")
        return scales

    def predict_batch(
        self,
        images: Sequence[NDArray[Any]],
        scale: float = 1.0,
        *,
        adapt: Adapt = "no",
        limits: Sequence[tuple[float, float]] | None = None,
        fill: bool = True,
    ) -> list[ScaleTrial]:
        self.adapted.add(adapt)
        return super().predict_batch(images, scale, adapt=adapt, limits=limits, fill=fill)


def test_images_of_one_scale_share_batches(job: Job) -> None:
    """Though they come in turn. At the scale that the size network estimates; outliers are segmented again."""
    write_images(job.folder, 9)
    segmenter = Sizing({150 + i: 2.0 for i in range(1, 9, 2)}, size=4)
    plan = job.run(segmenter, scales=Scales(adapt="sized"))
    assert sorted(segmenter.batches) == [1, 4, 4]
    assert segmenter.adapted == {"outliers"}
    rows = list(results(job, plan).values())
    assert [row.summary["scale"] for row in rows if isinstance(row, PlaneResult)] == [1.0, 2.0] * 4 + [1.0]
    assert segmenter.looks == [4, 4, 1]


def test_images_of_one_shape_are_looked_at_together(job: Job) -> None:
    """As many as the size network takes in one call; one that cannot be read keeps no other waiting."""
    write_images(job.folder, 6, (20, 30))
    write_images(job.folder, 3, (22, 31))
    path = job.folder / "20_03.png"
    path.write_bytes(path.read_bytes()[:-30])
    segmenter = Sizing({}, size=4)
    plan = job.run(segmenter, scales=Scales(adapt="sized"))
    assert segmenter.looks == [3, 2, 3], "the first four hold the damaged one"
    assert sum(isinstance(one, Failure) for one in results(job, plan).values()) == 1


def test_a_rare_scale_does_not_keep_an_image_waiting(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its unit, with all masks in it, would stay in memory until others like it come."""
    monkeypatch.setattr(flow, "LATER_IMAGES", 5)
    write_images(job.folder, 21)
    segmenter = Sizing({150: 0.5}, size=4)
    job.run(segmenter, workers=1, scales=Scales(adapt="sized"))
    assert sum(segmenter.batches) == 21
    assert job.finished.index("20_00.png") < 17


def test_an_image_that_the_size_network_refuses_costs_only_itself(job: Job) -> None:
    """It fails in segmentation, as one that the other network refuses."""
    write_images(job.folder, 5)
    plan = job.run(Sizing({152: -1.0}, size=4), scales=Scales(adapt="sized"))
    (failed,) = (one for one in results(job, plan).values() if isinstance(one, Failure))
    assert (failed.image, failed.stage) == ("20_02.png", "segment")


def test_an_image_that_cannot_be_read_costs_only_itself(job: Job) -> None:
    """Its header was good; the batch goes on without it, and the marker names it."""
    write_images(job.folder, 6)
    path = job.folder / "20_03.png"
    path.write_bytes(path.read_bytes()[:-30])
    plan = job.run(Threshold())
    found = results(job, plan)
    failed = [image for image in found.values() if isinstance(image, Failure)]
    assert [(f.image, f.stage) for f in failed] == [("20_03.png", "read")]
    assert len(found) == 6


def test_an_image_that_the_device_refuses_costs_only_itself(job: Job) -> None:
    """The batch is repeated image by image, so that the guilty one is found."""
    write_images(job.folder, 4)
    segmenter = Threshold(poison=[152])
    failed = [image for image in results(job, job.run(segmenter)).values() if isinstance(image, Failure)]
    assert [(f.image, f.stage, f.error) for f in failed] == [("20_02.png", "segment", "RuntimeError")]
    assert segmenter.batches == [4, 1, 1, 1, 1]


def test_batches_too_large_for_memory_become_smaller_for_good(job: Job) -> None:
    """Slower, but nothing is lost, and the user is told."""
    write_images(job.folder, 8)
    segmenter = Threshold(size=4, memory=1)
    found = results(job, job.run(segmenter))
    assert all(isinstance(image, PlaneResult) for image in found.values())
    tried = Counter(segmenter.batches)
    assert tried.keys() == {4, 2, 1}
    assert tried[1] == 8
    assert tried[4] + tried[2] <= 4, "two batches may be on their way when the first does not fit, and none after that"
    told = list(dict.fromkeys(job.told))  # both of two batches that do not fit may say so
    assert ["batches of 2" in told[0], "batches of 1" in told[1], len(told)] == [True, True, 2]


def test_an_image_that_alone_is_too_large_for_memory_fails(job: Job) -> None:
    """There is nothing smaller than one."""
    write_images(job.folder, 2)
    failed = results(job, job.run(Threshold(size=2, memory=0))).values()
    assert [image.error for image in failed if isinstance(image, Failure)] == ["MemoryError", "MemoryError"]


def test_an_error_while_writing_stops_the_run_and_leaves_no_marker(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is not an image's fault; no image may be blamed, and no unit called done."""
    write_images(job.folder, 6)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MaskWriter, "write", full)
    with pytest.raises(OSError, match="No space"):
        job.run(Threshold())
    units = job.journal.load().plan.units()
    assert all(job.journal.marker(unit) is None for unit in units)
    assert not [thread for thread in threading.enumerate() if thread.name == "finish"]


def test_planes_of_a_unit_are_listed_once_however_many_they_are(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard of small images holds thousands; to list them all again for each would take longer than the network."""
    write_images(job.folder, 40)
    listed: list[tuple[int, ...]] = []
    plane = LabelArray.plane

    def counted(self: LabelArray, place: tuple[int, ...]) -> Plane:
        listed.append(place)
        return plane(self, place)

    monkeypatch.setattr(LabelArray, "plane", counted)
    job.run(Threshold())
    assert len(listed) == 40


def test_images_that_are_tried_one_by_one_are_not_filled_up_to_the_batch_that_failed(job: Job) -> None:
    """It may have been a lack of memory that the backend did not call so: then only smaller batches help."""
    write_images(job.folder, 4)

    class Vague(Threshold):
        def predict_batch(
            self, images: Sequence[NDArray[Any]], scale: float = 1.0, *, fill: bool = True, **options: Any
        ) -> list[ScaleTrial]:
            computed.append(4 if fill else len(images))
            if computed[-1] > 1:
                raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")
            return super().predict_batch(images, scale, fill=fill, **options)

    computed: list[int] = []
    plan = job.run(Vague(size=4))
    assert all(isinstance(result, PlaneResult) for result in results(job, plan).values())
    assert computed == [4, 1, 1, 1, 1]


def test_two_batches_that_run_out_of_memory_at_once_lose_no_image(job: Job) -> None:
    """Each is told of the size that failed, not of the one that the other has made of it meanwhile."""
    write_images(job.folder, 4)
    both = threading.Barrier(2)

    class TwoAtOnce(Threshold):
        def predict_batch(self, images: Sequence[NDArray[Any]], scale: float = 1.0, **options: Any) -> list[ScaleTrial]:
            if len(images) > 1:
                both.wait(60)
                raise MemoryError("the device has no room")
            return super().predict_batch(images, scale, **options)

    plan = job.run(TwoAtOnce(size=2))
    assert all(isinstance(result, PlaneResult) for result in results(job, plan).values())
    assert len(job.finished) == 4


def test_reading_ahead_is_bounded(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory must not grow with the number of images: never more are read than may wait, whatever the disk's speed."""
    write_images(job.folder, 40)
    monkeypatch.setattr(budget, "READ_SHARE", 5 * 600 / (Threshold.budget.total - budget.BASE_BYTES))
    begun: list[str] = []
    read = ImageReader.read

    def counted(self: ImageReader, plane: Plane, *window: slice) -> Any:
        begun.append(plane.name)
        return read(self, plane, *window)

    monkeypatch.setattr(ImageReader, "read", counted)

    class Watching(Threshold):
        def predict_batch(self, images: Sequence[NDArray[Any]], scale: float = 1.0, **options: Any) -> list[ScaleTrial]:
            done = sum(self.batches) + len(images)
            assert len(begun) <= done + 5 + 1
            return super().predict_batch(images, scale)

    job.run(Watching(size=4), workers=4)
    assert len(begun) == 40


def info(**more: Any) -> ImageInfo:
    return ImageInfo("a.tif", 1, 1, 5, 7, 1, "uint8", **more)


@pytest.mark.parametrize(("channel", "seen"), [("red", 200), ("green", 90), ("blue", 30)])
def test_a_chosen_colour_is_what_the_network_sees_and_what_is_measured(channel: str, seen: int) -> None:
    """DAPI exported as blue must not be diluted by an empty red."""
    shown = select_channels(np.zeros((5, 7, 3), np.uint8) + np.array([200, 90, 30], np.uint8), info(), channel)
    assert (shown.pixels == seen).all()
    assert (shown.intensity == seen).all()
    assert shown.pixels.shape == (5, 7)


def test_without_a_choice_colour_is_shown_and_luminance_measured() -> None:
    """Histology needs its colours; a table needs one number."""
    shown = select_channels(np.zeros((5, 7, 3), np.uint16) + np.array([1000, 2000, 3000], np.uint16), info(), "auto")
    assert shown.pixels.shape == (5, 7, 3)
    np.testing.assert_allclose(shown.intensity, 0.2125 * 1000 + 0.7154 * 2000 + 0.0721 * 3000, rtol=1e-6)


def test_a_grey_image_has_no_other_channel() -> None:
    """A folder may mix grey and colour images."""
    grey = np.arange(35, dtype=np.int32).reshape(5, 7) - 9
    shown = select_channels(grey, info(), "red")
    assert shown.pixels.dtype == np.float32
    np.testing.assert_array_equal(shown.intensity, grey)


def test_of_separate_channels_the_nuclei_are_seen_and_all_are_measured() -> None:
    """That is what people stain them for."""
    planes = np.stack([np.full((5, 7), value, np.uint16) for value in (3, 500, 70)])
    shown = select_channels(planes, info(names=("GFP", "DAPI", "Cy5"), nuclei=1), "DAPI")
    assert (shown.pixels == 500).all()
    assert {name: int(plane[0, 0]) for name, plane in shown.channels.items()} == {"GFP": 3, "DAPI": 500, "Cy5": 70}
