"""Rows 1 to 3 of the fault matrix: a run that is killed, wherever that is, goes on to the same bytes.

Points are calls with which files appear, reach the disk or go; `sweep.py` says what is compared.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from faults.harness import COMMAND, FIXED, call, digest, needs, rows
from faults.sweep import Command, Sweep
from faults.tree import (
    KILLED,
    REGION,
    Driver,
    differences,
    pictures,
    planes_done,
    slow,
    tree,
    wait_for,
    write_picture,
)
from zarr_examples import multiscales, write_array, write_group

FIFTH = 5
"""Every so-manyeth point is enough on each push."""


@pytest.fixture(scope="module")
def shares(drivers: Sequence[Driver], images: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A run that is planned, done in two shares, and finished."""

    def commands(store: Path) -> list[Command]:
        tasks = [("segment", "--run", store, "--share", share) for share in (1, 0)]
        return [("plan", images, store, "--shares", 2, *REGION), *tasks, ("finish", store)]

    return Sweep(drivers, tmp_path_factory.mktemp("shares"), commands).prepare()


@pytest.fixture(scope="module")
def retry(drivers: Sequence[Driver], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A finished run, of whose images a failed one is mended and a good one replaced; and so of a region's plane."""
    folder = tmp_path_factory.mktemp("retry")
    images = pictures(folder / "in")
    drivers[0].run("segment", images, folder / "base" / "out.zarr", *REGION, code=3)
    write_picture(images / "cut.png", (20, 30), seed=11)
    write_picture(images / "b.png", (22, 31), seed=12)
    write_picture(images / "large.png", (130, 100), seed=13)

    def commands(store: Path) -> list[Command]:
        return [("segment", images, store, *REGION)]

    return Sweep(drivers, folder / "sweep", commands, base=folder / "base").prepare()


@pytest.fixture(scope="module")
def adding(drivers: Sequence[Driver], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A finished run to which images come: of shapes that it has, one of them large; and one that is mended."""
    folder = tmp_path_factory.mktemp("adding")
    images = pictures(folder / "in")
    drivers[0].run("segment", images, folder / "base" / "out.zarr", *REGION, code=3)
    for name, shape in (("00.png", (20, 30)), ("9.png", (20, 30)), ("text.png", (22, 31)), ("vast.png", (130, 100))):
        write_picture(images / name, shape, seed=len(name))

    def commands(store: Path) -> list[Command]:
        return [("segment", images, store, *REGION)]

    return Sweep(drivers, folder / "sweep", commands, base=folder / "base").prepare()


@pytest.fixture(scope="module")
def with_images(drivers: Sequence[Driver], images: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A run that keeps the pixels, too."""

    def commands(store: Path) -> list[Command]:
        return [("segment", images, store, "--with-images", *REGION)]

    return Sweep(drivers, tmp_path_factory.mktemp("pixels"), commands).prepare()


@pytest.fixture(scope="module")
def compartments(drivers: Sequence[Driver], images: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A run with rings and cells."""

    def commands(store: Path) -> list[Command]:
        return [("segment", images, store, "--ring", "1,3", "--expand", "4", *REGION)]

    return Sweep(drivers, tmp_path_factory.mktemp("compartments"), commands).prepare()


@pytest.fixture(scope="module")
def linked(drivers: Sequence[Driver], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Stacks whose nuclei are joined over slices, in two shares: three in one unit, and one with regions and levels."""
    folder = tmp_path_factory.mktemp("linked")
    images = folder / "in"
    images.mkdir()
    for name, shape in (("a.tif", (3, 20, 30)), ("b.tif", (3, 20, 30)), ("large.tif", (2, 130, 100))):
        stack = np.full(shape, 10, np.uint8)
        stack[:, 5::30, 6:-6] = stack[:, 6::30, 6:-6] = 200
        tifffile.imwrite(images / name, stack, imagej=True, metadata={"axes": "ZYX"})

    def commands(store: Path) -> list[Command]:
        tasks = [("segment", "--run", store, "--share", share) for share in (1, 0)]
        return [("plan", images, store, "--link", "z", "--shares", 2, *REGION), *tasks]

    return Sweep(drivers, folder / "sweep", commands).prepare()


@pytest.fixture(scope="module")
def tracked(drivers: Sequence[Driver], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Movies whose nuclei are linked over time points, in two shares: two in one unit, and one done by regions."""
    pytest.importorskip("laptrack")
    folder = tmp_path_factory.mktemp("tracked")
    images = folder / "in"
    images.mkdir()
    for name, shape in (("a.tif", (3, 20, 30)), ("b.tif", (3, 20, 30)), ("large.tif", (2, 130, 100))):
        frames = np.full(shape, 10, np.uint8)
        for t, frame in enumerate(frames):
            frame[5::30, 6 + t : -6] = frame[6::30, 6 + t : -6] = 200
        tifffile.imwrite(images / name, frames, imagej=True, metadata={"axes": "TYX"})

    def commands(store: Path) -> list[Command]:
        tasks = [("segment", "--run", store, "--share", share) for share in (1, 0)]
        return [("plan", images, store, "--link", "t", "--shares", 2, *REGION), *tasks]

    return Sweep(drivers, folder / "sweep", commands).prepare()


@pytest.fixture(scope="module", params=["parquet", "csv,parquet"])
def parquet(
    request: pytest.FixtureRequest, drivers: Sequence[Driver], images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Sweep:
    """A run with the nuclei table as a folder of files, and a second call that writes it again."""

    def commands(store: Path) -> list[Command]:
        call = ("segment", images, store, "--tables", request.param, *REGION)
        return [call, (*call, "--retry-failed")]

    return Sweep(drivers, tmp_path_factory.mktemp("parquet"), commands).prepare()


@pytest.fixture(scope="module", params=["0.4", "0.5"])
def in_place(
    request: pytest.FixtureRequest, drivers: Sequence[Driver], tmp_path_factory: pytest.TempPathFactory
) -> Sweep:
    """Labels in the input store itself, of two images with two levels each, one of them large; in 0.4 with rings."""
    folder = tmp_path_factory.mktemp("place")
    top = write_group(folder / "base" / "out.zarr", version=request.param)
    for name, shape in (("a", (30, 40)), ("b", (130, 100))):
        group = write_group(top / name, multiscales("yx", levels=2), version=request.param)
        picture = np.zeros(shape, np.uint8)
        picture[10::20, 5:-5] = 200
        for level in range(2):
            write_array(group / str(level), picture[:: 2**level, :: 2**level], version=request.param)

    def commands(store: Path) -> list[Command]:
        return [("segment", store, "--in-place", *(("--ring", "1,2") if request.param == "0.4" else ()), *REGION)]

    return Sweep(drivers, folder / "sweep", commands, base=folder / "base").prepare()


def test_a_run_killed_at_a_point_goes_on_to_the_same_bytes(sweep: Sweep) -> None:
    """Row 1, of a run with small images, regions, smaller levels, a broken image and one that is refused at once."""
    assert sweep.wrong(sweep.points(FIFTH)) == []


def test_plan_shares_and_finish_killed_at_a_point_go_on_to_the_same_bytes(shares: Sweep) -> None:
    """Rows 1 and 3: four commands, each of which is killed and called again."""
    assert [step.segmented > 0 for step in shares.steps] == [False, True, True, False]
    assert shares.wrong(shares.points(FIFTH)) == []


def test_a_second_call_killed_at_a_point_goes_on_to_the_same_bytes(retry: Sweep) -> None:
    """Rows 1 and 3: when images are done again there are old tables and masks, of which none may be half there."""
    assert retry.wrong(retry.points(FIFTH)) == []


def test_images_are_added_wherever_a_run_is_killed(adding: Sweep) -> None:
    """Row 19: the portion appears whole or not at all, and the next call goes on with it; it adds nothing twice."""
    assert ".run/plan-000001.json" in adding.reference
    assert ".run/plan-000002.json" not in adding.reference
    assert ".zarr/20x30-added1/labels/nuclei/0/zarr.json" in adding.reference
    assert adding.steps[0].segmented == 9
    assert adding.wrong(adding.points(FIFTH)) == []


def test_five_hundred_images_get_three_hundred_more_while_the_run_is_killed(driver: Driver, tmp_path: Path) -> None:
    """Row 19: in three portions, two of which are killed; tables are those of one run, but for where the masks are."""
    images, store, once = tmp_path / "in", tmp_path / "out.zarr", tmp_path / "once" / "out.zarr"
    images.mkdir()
    order = random.Random(5).sample(range(800), 800)
    shapes = (20, 30), (22, 31), (24, 26)

    def come(first: int, last: int) -> None:
        for number in order[first:last]:
            write_picture(images / f"{number:03d}.png", shapes[number % 3], seed=number)

    come(0, 500)
    assert driver.run("segment", images, store, *REGION).segmented == 500
    for first, kill in ((500, 40), (600, 150), (700, 0)):
        before = {name: value for name, value in tree(store).items() if name.startswith((".zarr/", ".run/units"))}
        del before[".zarr/zarr.json"]
        come(first, first + 100)
        if kill:
            driver.start("segment", images, store, *REGION, kill=kill).wait(KILLED)
        driver.run("segment", images, store, *REGION)
        assert before.items() <= tree(store).items()
    assert driver.run("segment", images, once, *REGION).segmented == 800
    for name in (".nuclei.csv", ".failures.csv"):
        assert tree(store)[name] == tree(once)[name]
    whole, added = ([{**row, "mask": "", "index": ""} for row in rows(place, "images")] for place in (once, store))
    assert len(whole) == 800
    assert added == whole


def test_a_run_that_keeps_pixels_killed_at_a_point_goes_on_to_the_same_bytes(with_images: Sweep) -> None:
    """Row 1: a unit then has two shards."""
    assert with_images.wrong(with_images.points(3 * FIFTH)) == []


def test_a_run_with_compartments_killed_at_a_point_goes_on_to_the_same_bytes(compartments: Sweep) -> None:
    """Row 1: a unit then has three shards, and those of a large plane are written after all of its nuclei."""
    assert sum("/labels/rings/" in name for name in compartments.reference) > 8
    assert compartments.wrong(compartments.points(2 * FIFTH)) == []


def test_a_run_that_joins_slices_killed_at_a_point_goes_on_to_the_same_bytes(linked: Sweep) -> None:
    """Row 1: volumes are made by whoever did the last unit of a stack, and their rows and shards come with a record."""
    assert sum("/labels/volumes/" in name for name in linked.reference) > 8
    assert sum("/volumes/" in call for step in linked.steps for call in step.calls) > 12
    assert linked.wrong(linked.points(2 * FIFTH)) == []


def test_a_run_that_links_time_points_killed_at_a_point_goes_on_to_the_same_bytes(tracked: Sweep) -> None:
    """Row 1: tracks are found by whoever finishes the run, and their rows come before a record."""
    assert ".tracks.csv" in tracked.reference
    assert sum("/tracks/" in call for step in tracked.steps for call in step.calls) == 4
    assert tracked.wrong(tracked.points(2 * FIFTH)) == []


def test_a_run_with_parquet_tables_killed_at_a_point_goes_on_to_the_same_bytes(parquet: Sweep) -> None:
    """Rows 1 and 3, from the last committed unit on: while the folder is written, and replaced by a second call."""
    assert ".nuclei.parquet/part-00000.parquet" in parquet.reference
    points = [point for point in parquet.points(after="/units/") if point[0] == 0][::3]
    points += [point for point in parquet.points(2 * FIFTH) if point[0] == 1]
    assert len(points) > 12
    assert parquet.wrong(points) == []


def test_a_run_in_place_killed_at_a_point_goes_on_to_the_same_bytes(in_place: Sweep) -> None:
    """Row 1, and nothing else of the user's store is changed or left in it."""
    assert in_place.wrong(in_place.points(3 * FIFTH)) == []


@pytest.mark.parametrize(
    "name", ["sweep", "shares", "retry", "adding", "with_images", "compartments", "linked", "tracked"]
)
@pytest.mark.timeout(3600)
@slow[0]
@slow[1]
def test_every_point(name: str, request: pytest.FixtureRequest) -> None:
    """Row 1, whole."""
    whole: Sweep = request.getfixturevalue(name)
    assert whole.wrong(whole.points()) == []


@pytest.mark.timeout(3600)
@slow[0]
@slow[1]
def test_every_point_in_place(in_place: Sweep) -> None:
    """The same of both formats."""
    assert in_place.wrong(in_place.points()) == []


def test_finish_goes_on_where_the_last_share_was_killed_while_it_finished(sweep: Sweep) -> None:
    """Row 3: whoever writes the tables, by whichever command, they are the same."""
    other = replace(sweep, resume=lambda store: [("finish", store)])
    points = sweep.points(FIFTH, after="/units/")
    assert len(points) > 8
    assert other.wrong(points) == []


def test_three_kills_in_a_row_change_nothing(sweep: Sweep, driver: Driver, images: Path, tmp_path: Path) -> None:
    """Row 2: by then the units are done carefully, one image after the other."""
    for seed in range(5):
        store = tmp_path / str(seed) / "out.zarr"
        store.parent.mkdir()
        random.seed(seed)
        for _ in range(3):
            # While units are in hand: each kill is a death of them.
            run = driver.start("segment", images, store, *REGION, kill=random.randint(40, 60))
            run.wait(KILLED)
        driver.run("segment", images, store, *REGION, code=3)
        assert differences(store, sweep.reference) == []


def test_kills_at_random_times_change_nothing(sweep: Sweep, driver: Driver, images: Path, tmp_path: Path) -> None:
    """Row 2: at no particular call, but on a machine of any speed not before something more is done."""
    store = tmp_path / "out.zarr"
    random.seed(7)
    for _ in range(8):
        before = len(planes_done(store))
        run = driver.start("segment", images, store, *REGION, slow=0.05)
        wait_for(lambda before=before: before < len(planes_done(store)) or before == len(sweep.planes), "no progress")
        time.sleep(random.uniform(0, 0.3))
        os.kill(run.pid, signal.SIGKILL)
        run.wait(None)
    driver.run("segment", images, store, *REGION, code=3)
    assert differences(store, sweep.reference) == []


@pytest.mark.parametrize("point", [pytest.param(3, marks=slow), 9])
def test_the_real_program_killed_by_the_system_goes_on_to_the_same_bytes(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path, point: int
) -> None:
    """Row 1 with the real network, killed from outside at a rename: in the plan, and where units are committed."""
    arguments = [*map(str, ("segment", plain[0], tmp_path / "out.zarr", "--model", tiny, *FIXED))]
    killer = needs("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2")
    inject = ("-e", f"inject=rename,renameat,renameat2:signal=SIGKILL:when={point}")
    killed = subprocess.run([*killer, *inject, *COMMAND, *arguments], capture_output=True, timeout=240)
    assert killed.returncode in (KILLED, 137)
    assert not (tmp_path / "out.images.csv").exists()
    call(*arguments)
    assert digest(tmp_path / "out.zarr") == digest(plain[1])
