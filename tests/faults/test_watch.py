"""`segment --watch`: a folder is segmented while it is filled, and nothing is read half."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from faults.harness import rows
from faults.tree import KILLED, REGION, Driver, Run, tree, wait_for, write_picture
from zarr_examples import numbers, write_image

from nucseg_batch.cli.watch import check_watch
from nucseg_batch.errors import NothingToDoError, UsageError
from nucseg_batch.executors.watch import FolderWatch
from nucseg_batch.files.find.discover import discover

SECONDS = 1.5
"""Between looks of the command."""


def copied_slowly(source: Path, target: Path, pieces: int = 9, pause: float = 0.2) -> None:
    """Writes a file in pieces, with pauses shorter than SECONDS in between."""
    content = source.read_bytes()
    step = -(-len(content) // pieces)
    with open(target, "wb") as file:
        for first in range(0, len(content), step):
            file.write(content[first : first + step])
            file.flush()
            time.sleep(pause)


def done(store: Path) -> set[str]:
    """Images that the table has with a mask."""
    if not store.with_suffix(".images.csv").exists():
        return set()
    return {row["image"] for row in rows(store, "images") if row["status"] == "ok"}


def watching(driver: Driver, images: Path, store: Path) -> Run:
    return driver.start("segment", images, store, "--watch", SECONDS, *REGION)


def ended(run: Run) -> Run:
    """A watch that is told to end."""
    os.kill(run.pid, signal.SIGTERM)
    return run.wait(75)


def as_once(driver: Driver, images: Path, store: Path, folder: Path) -> bool:
    """Whether tables are those of one run over all, but for where the masks are."""
    driver.run("segment", images, folder / "out.zarr", *REGION)
    whole, found = (
        [{**row, "mask": "", "index": ""} for row in rows(one, "images")] for one in (folder / "out.zarr", store)
    )
    return whole == found and tree(store)[".nuclei.csv"] == tree(folder / "out.zarr")[".nuclei.csv"]


def test_images_that_are_copied_slowly_are_read_once_and_whole(driver: Driver, tmp_path: Path) -> None:
    """Each is segmented once, and none ever fails; a kill in between costs nothing; TERM ends it with whole tables."""
    source, images, store = tmp_path / "source", tmp_path / "in", tmp_path / "out.zarr"
    source.mkdir()
    images.mkdir()
    shapes = (20, 30), (22, 31), (130, 100)
    pictures = [
        write_picture(source / f"{number}.png", shapes[number % 3], seed=number) for number in (4, 1, 5, 0, 3, 2)
    ]
    run = watching(driver, images, store)
    for picture in pictures[:3]:
        copied_slowly(picture, images / picture.name)
    wait_for(lambda: done(store) == {"4.png", "1.png", "5.png"}, "not all were segmented")
    segmented = run.segmented
    os.kill(run.pid, signal.SIGKILL)
    run.wait(KILLED)
    run = watching(driver, images, store)
    for picture in pictures[3:]:
        copied_slowly(picture, images / picture.name)
    wait_for(lambda: len(done(store)) == 6, "not all were segmented")
    assert "failed: " not in ended(run).output
    assert segmented + run.segmented == 4 + 2 * 6
    assert rows(store, "failures") == []
    assert as_once(driver, images, store, tmp_path / "once")
    assert driver.run("segment", images, store, *REGION).segmented == 0


def test_a_half_written_image_that_stays_still_fails_and_is_tried_again(driver: Driver, tmp_path: Path) -> None:
    """A copy that is interrupted for longer than the time between looks; of one image even the header is cut."""
    images, store = tmp_path / "in", tmp_path / "out.zarr"
    images.mkdir()
    write_picture(images / "a.png", (20, 30))
    contents = {name: write_picture(images / name, (20, 30), seed=2).read_bytes() for name in ("b.png", "c.png")}
    (images / "b.png").write_bytes(contents["b.png"][:-40])
    (images / "c.png").write_bytes(contents["c.png"][:10])
    run = watching(driver, images, store)
    wait_for(lambda: done(store) == {"a.png"}, "the good one was not segmented")
    assert {row["image"] for row in rows(store, "failures")} == {"b.png", "c.png"}
    for name, content in contents.items():
        (images / name).write_bytes(content)
    wait_for(lambda: done(store) == {"a.png", "b.png", "c.png"}, "not tried again")
    wait_for(lambda: rows(store, "failures") == [], "failures are still listed")  # written after images.csv
    ended(run)
    assert rows(store, "failures") == []
    assert as_once(driver, images, store, tmp_path / "once")


def test_a_watch_waits_for_the_first_image_and_ends_while_it_waits(driver: Driver, tmp_path: Path) -> None:
    """Nothing is written before there is something to do."""
    (tmp_path / "in").mkdir()
    run = watching(driver, tmp_path / "in", tmp_path / "out.zarr")
    wait_for(lambda: "looking for complete images" in run.errors, "it does not begin")
    time.sleep(2 * SECONDS)
    ended(run)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_watch_that_is_ended_at_work_finishes_what_is_in_flight(driver: Driver, tmp_path: Path) -> None:
    """As any run; what is left is done by the next call."""
    images, store = tmp_path / "in", tmp_path / "out.zarr"
    images.mkdir()
    for number in range(12):
        write_picture(images / f"{number:02d}.png", (20, 30), seed=number)
    run = driver.start("segment", images, store, "--watch", SECONDS, *REGION, pause=1).is_paused()
    os.kill(run.pid, signal.SIGTERM)
    run.is_stopping()
    run.go_on()
    run.wait(75)
    assert not list(store.with_suffix(".run").rglob("*.partial"))
    assert run.segmented + driver.run("segment", images, store, *REGION).segmented == 12
    assert as_once(driver, images, store, tmp_path / "once")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--share", "0/2"), "--watch cannot be combined with --share"),
        (("--dry-run",), "--watch cannot be combined with --dry-run"),
        (("--cluster", "local"), "--watch cannot be combined with --cluster"),
        (("--new", "report"), "--new report cannot be given with it"),
    ],
)
def test_what_does_not_go_with_a_watch_is_refused(
    driver: Driver, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    (tmp_path / "in").mkdir()
    refused = driver.run("segment", tmp_path / "in", tmp_path / "out.zarr", "--watch", 5, *options, code=2)
    assert told in refused.errors
    file = write_picture(tmp_path / "one.png", (20, 30))
    refused = driver.run("segment", file, tmp_path / "out.zarr", "--watch", 5, code=2)
    assert "--watch needs a folder" in refused.errors


def test_images_in_stores_are_left_out_and_told(tmp_path: Path) -> None:
    """A folder that holds nothing else is refused, at once and later."""
    folder, watch, told = tmp_path / "in", FolderWatch(), list[str]()
    folder.mkdir()
    write_picture(folder / "a.png", (20, 30))
    write_image(folder / "b.zarr", numbers(20, 30), "yx")
    with pytest.raises(NothingToDoError):
        watch.select(discover(str(folder)), told.append)
    (entry,) = watch.select(discover(str(folder)), told.append).entries
    assert entry.key == "a.png"
    assert told[0].startswith("1 image (b.zarr): in zarr stores, which do not say when they are complete")
    (folder / "a.png").unlink()
    with pytest.raises(UsageError, match="without --watch each time that stores are complete"):
        watch.select(discover(str(folder)), told.append)
    with pytest.raises(UsageError, match=r"b.zarr is a zarr store, which does not say when it is complete"):
        check_watch(str(folder / "b.zarr"), {}, "add")


def test_only_images_that_are_still_are_selected(tmp_path: Path) -> None:
    """At two looks in a row; one that changes later is taken as it was until it is still again."""
    folder, watch = tmp_path / "in", FolderWatch()
    folder.mkdir()
    write_picture(folder / "a.png", (20, 30))
    with pytest.raises(NothingToDoError):
        watch.select(discover(str(folder)))
    shutil.copy(folder / "a.png", folder / "b.png")
    (before,) = watch.select(discover(str(folder))).entries
    assert before.key == "a.png"
    write_picture(folder / "a.png", (40, 50))
    first, second = watch.select(discover(str(folder))).entries
    assert (first, second.key) == (before, "b.png")
    first, _ = watch.select(discover(str(folder))).entries
    assert first.size == (folder / "a.png").stat().st_size != before.size
