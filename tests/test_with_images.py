"""Masks with their pixels: segmented into one store, corrected there by hand, and learnt from."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from beginnings import beginning
from doubles import Threshold
from numpy.typing import NDArray
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05.image import Image

from nucseg_batch.errors import MismatchError, NothingToDoError
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.pending import find_tasks
from nucseg_batch.files.annotations import find_pairs
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.header_scan import scan_headers
from nucseg_batch.files.images import read_image
from nucseg_batch.files.masks.store import MaskWriter, create_store
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.finish import collect, write_tables
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.stream import process_units
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Plan, Scales, make_plan
from nucseg_batch.settings import RunSettings, SegmentSettings
from nucseg_batch.training.data import read_all


class Relative(Threshold):
    """Takes what is brighter than half of the brightest pixel, since these images have any range of values."""

    def bright(self, plane: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(plane > 0.5 * plane.max())


def missing(store: Path) -> list[UnitTask]:
    """What is still to be done of a run."""
    journal = Journal(store)
    begun = journal.load()
    units = list(begun.plan.units())
    job = Job(store, begun, begun.settings, RunSettings(), resumed=True)
    return find_tasks(units, job, Attempts(journal.folder))[0]


def segment(folder: Path, store: Path, *, size: int = 4, workers: int = 2, with_images: bool = True) -> Plan:
    """A whole run, or what is missing of one, without Keras."""
    settings, journal = SegmentSettings(with_images=with_images), Journal(store)
    found = scan_headers(discover(str(folder)), settings, lambda _: None)
    plan = make_plan(found.images, found.failures)
    if not journal.exists():
        journal.create(beginning(plan, root=str(folder), settings=settings))
    create_store(store, plan, with_images=with_images)
    table = NucleiTable(plan.channel_names)
    with ImageReader(folder, settings) as images:
        process_units(
            missing(store),
            images=images,
            writer=MaskWriter(store),
            journal=journal,
            attempts=Attempts(journal.folder),
            predictor=Relative(size=size),
            settings=settings,
            scales=Scales(),
            table=table,
            workers=workers,
            advance=lambda *_: None,
            tell=lambda _: None,
            gauge=StageTimer(),
        )
    write_tables(RunLayout(store), collect(plan, journal), table)
    return plan


def contents(store: Path) -> dict[str, bytes]:
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def test_every_image_lies_beside_its_mask_as_it_was_read(image_folder: Path, tmp_path: Path) -> None:
    """8 bit, 16 bit, float, grey and colour; each stack is a valid image with labels."""
    store = tmp_path / "out.zarr"
    segment(image_folder, store)
    for stack in ("67x83", "97x131", "101x61"):
        assert isinstance(open_ome_zarr(store / stack, version="0.5"), Image)
    with open(RunLayout(store).images_csv, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    for row in rows:
        stored = zarr.open_array(store / row["mask"].split("/")[0] / "0", mode="r")
        pixels = read_image(image_folder / row["image"], max_pixels=10**6)
        plane = np.asarray(stored[int(row["index"])])
        if plane.ndim == 3:
            plane = np.moveaxis(plane, 0, -1)
            pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        np.testing.assert_array_equal(plane, pixels)


def test_batch_size_workers_and_lost_shards_do_not_change_a_byte(image_folder: Path, tmp_path: Path) -> None:
    """Pixels are resumed as masks are: what is lost is made again."""
    segment(image_folder, tmp_path / "a.zarr")
    segment(image_folder, tmp_path / "b.zarr", size=1, workers=4)
    before = contents(tmp_path / "a.zarr")
    assert before == contents(tmp_path / "b.zarr")
    (tmp_path / "a.zarr" / "67x83" / "0" / "c" / "0" / "0" / "0").unlink()
    segment(image_folder, tmp_path / "a.zarr")
    assert contents(tmp_path / "a.zarr") == before
    assert not missing(tmp_path / "a.zarr")


def test_pixels_do_not_change_the_masks(image_folder: Path, tmp_path: Path) -> None:
    """They are an addition."""
    segment(image_folder, tmp_path / "with.zarr")
    segment(image_folder, tmp_path / "without.zarr", with_images=False)
    with_images = contents(tmp_path / "with.zarr")
    masks = {name: data for name, data in with_images.items() if "/labels/" in name}
    assert masks == {name: data for name, data in contents(tmp_path / "without.zarr").items() if "/labels/" in name}
    assert len(masks) < len(with_images)


def test_corrected_masks_are_learnt_from(image_folder: Path, tmp_path: Path) -> None:
    """Segment, correct by hand, train: pairs have the images' own names, and an image that failed is none."""
    (image_folder / "cut.png").write_bytes((image_folder / "small8.png").read_bytes()[:-40])
    store = tmp_path / "out.zarr"
    segment(image_folder, store)
    masks = zarr.open_array(store / "101x61" / "labels" / "nuclei" / "0", mode="r+")
    masks[0, :40] = 0
    masks[0, 3:9, 4:11] = 77
    found = find_pairs(store)
    keys = [pair.key for pair in found.pairs]
    assert keys == ["plate/colour.jpg", "plate/small16.png", "plate/well/wide.tif", "small8.png", "tall.tiff"]
    samples = {sample.key: sample for sample in read_all(found.pairs, lambda _: None)}
    assert samples["tall.tiff"].areas[-1] == 42
    np.testing.assert_array_equal(
        samples["small8.png"].pixels, read_image(image_folder / "small8.png", max_pixels=10**6)
    )
    assert samples["plate/colour.jpg"].pixels.shape == (97, 131, 3)
    assert "out.zarr/plate/colour.jpg" in [pair.key for pair in find_pairs(tmp_path).pairs]


def test_without_its_table_a_store_names_images_by_their_place(image_folder: Path, tmp_path: Path) -> None:
    """A store may be copied alone."""
    segment(image_folder, tmp_path / "out.zarr")
    shutil.copytree(tmp_path / "out.zarr", tmp_path / "alone" / "copy.zarr")
    keys = [pair.key for pair in find_pairs(tmp_path / "alone" / "copy.zarr").pairs]
    assert keys == ["101x61[0]", "67x83[0]", "67x83[1]", "97x131[0]", "97x131[1]"]


def test_a_store_of_masks_alone_says_how_it_gets_its_pixels(image_folder: Path, tmp_path: Path) -> None:
    """Masks cannot be learnt from without what they were drawn on."""
    segment(image_folder, tmp_path / "out.zarr", with_images=False)
    with pytest.raises(NothingToDoError, match="--with-images"):
        find_pairs(tmp_path / "out.zarr")


def test_masks_that_were_corrected_by_hand_are_not_done_again(image_folder: Path, tmp_path: Path) -> None:
    """An afternoon of work must not be lost to a second call; a lost file is another matter."""
    store = tmp_path / "out.zarr"
    segment(image_folder, store)
    masks = zarr.open_array(store / "67x83" / "labels" / "nuclei" / "0", mode="r+")
    masks[0, 3:40, 5:60] = 77
    with pytest.raises(MismatchError, match="67x83 were changed"):
        missing(store)
