"""Rows 16 to 19 and 36 of the fault matrix: images that change, other options, and damaged outputs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from faults.harness import NOISE, rows
from faults.sweep import Sweep
from faults.tree import REGION, Driver, Run, differences, pictures, tree, write_picture


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Images that a test may change."""
    return pictures(tmp_path / "in")


def paused(driver: Driver, images: Path, store: Path, **faults: object) -> Run:
    """A run that has the first images in hand and has not read the last ones, as there are more than it reads ahead."""
    for number in range(3, 9):
        write_picture(images / f"{number}.png", (20, 30), seed=number)
    return driver.start("segment", images, store, *REGION, pause=1, **faults).is_paused()


def results(store: Path) -> dict[str, str]:
    """Masks and tables, without the run folder, which knows when images changed."""
    return {name: value for name, value in tree(store).items() if not name.startswith(".run")}


def test_images_that_go_or_grow_while_they_wait_are_failures(driver: Driver, own: Path, tmp_path: Path) -> None:
    """Row 16: of one image each; and they are done when they are there again."""
    store = tmp_path / "out.zarr"
    content = (own / "b.png").read_bytes()
    run = paused(driver, own, store)
    (own / "b.png").unlink()
    (own / "large.png").unlink()
    with open(own / "dark.png", "ab") as file:
        file.write(b"more")
    run.go_on()
    run.wait(3)
    assert len(run.errors.splitlines()) <= NOISE
    failures = {row["image"] for row in rows(store, "failures")}
    assert failures == {"b.png", "large.png", "dark.png", "cut.png", "text.png"}
    pictures(tmp_path / "again")
    shutil.copytree(tmp_path / "again", own, dirs_exist_ok=True)
    assert (own / "b.png").read_bytes() == content
    driver.run("segment", own, store, *REGION, code=3)
    driver.run("segment", own, tmp_path / "fresh" / "out.zarr", *REGION, code=3)
    assert results(store) == results(tmp_path / "fresh" / "out.zarr")


def test_an_image_that_is_replaced_while_it_waits_is_a_failure_until_the_next_call(
    driver: Driver, own: Path, tmp_path: Path
) -> None:
    """Row 16: what was planned is not there any more; what is there now may be of another shape."""
    store = tmp_path / "out.zarr"
    run = paused(driver, own, store)
    write_picture(own / "b.png", (22, 31), seed=40)
    write_picture(own / "dark.png", (21, 20), seed=41)
    run.go_on()
    run.wait(3)
    assert {row["image"] for row in rows(store, "failures")} == {"b.png", "dark.png", "cut.png", "text.png"}
    driver.run("segment", own, store, *REGION, code=3)
    (failed,) = [row for row in rows(store, "failures") if row["image"] == "dark.png"]
    assert "planned as 24 x 26" in failed["message"]
    assert "b.png" not in {row["image"] for row in rows(store, "failures")}


@pytest.mark.parametrize("name", ["1.png", "large.png"])
def test_a_changed_image_of_the_same_size_and_time_is_found_by_its_pixels(
    driver: Driver, own: Path, tmp_path: Path, name: str
) -> None:
    """Row 17: quick believes size and time; full reads; and what is newer but the same is kept."""
    store = tmp_path / "out.zarr"
    raw = own / name.replace("png", "tif")
    import imagecodecs
    import tifffile

    pixels = imagecodecs.png_decode((own / name).read_bytes())
    (own / name).unlink()
    tifffile.imwrite(raw, pixels)
    driver.run("segment", own, store, *REGION, code=3)
    state, before = raw.stat(), tree(store)
    tifffile.imwrite(raw, pixels[::-1])
    os.utime(raw, ns=(state.st_mtime_ns, state.st_mtime_ns))
    assert raw.stat().st_size == state.st_size
    assert driver.run("segment", own, store, *REGION, code=3).segmented == 0
    assert tree(store) == before
    full = driver.run("segment", own, store, "--verify-inputs", "full", *REGION, code=3)
    assert full.segmented == (1 if name == "1.png" else 6)
    assert f"1 image ({raw.name}): changed after they were segmented" in full.errors
    driver.run("segment", own, tmp_path / "fresh" / "out.zarr", *REGION, code=3)
    assert results(store) == results(tmp_path / "fresh" / "out.zarr")
    os.utime(raw)
    touched = driver.run("segment", own, store, *REGION, code=3)
    assert touched.segmented == 0
    assert "with the same pixels; kept" in touched.errors
    os.utime(raw)
    tifffile.imwrite(raw, pixels)
    assert driver.run("segment", own, store, "--verify-inputs", "none", *REGION, code=3).segmented == 0
    assert driver.run("segment", own, store, *REGION, code=3).segmented == full.segmented


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--threshold", 0.4), "--threshold: not given in the run, 0.4 now"),
        (("--diameter", 9), "--diameter: not given in the run, 9.0 now"),
        (("--with-images",), "--with-images: False in the run, True now"),
        (("--share", "0/2"), "1 shares, not 2"),
        (("--model",), "--model: another file than in the run"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_other_options_are_refused_by_name(
    sweep: Sweep, driver: Driver, images: Path, tmp_path: Path, options: tuple[object, ...], told: str
) -> None:
    """Row 18: 78, and not one byte is changed; speed alone may differ."""
    store = tmp_path / "out.zarr"
    run = driver.start("segment", images, store, *REGION, kill=100)
    run.wait(-9)
    before = tree(store)
    if options == ("--model",):
        (tmp_path / "m.keras").write_bytes(b"another")
        options = ("--model", tmp_path / "m.keras")
    refused = driver.run("segment", images, store, *REGION, *options, code=78)
    assert told in refused.errors
    assert len(refused.errors.splitlines()) <= 2
    assert tree(store) == before
    driver.run("segment", images, store, *REGION, "--batch-size", 1, "--workers", 1, code=3)
    assert differences(store, sweep.reference) == []


def test_another_version_is_refused(sweep: Sweep, driver: Driver, images: Path, tmp_path: Path) -> None:
    """Row 18: of this program or of what writes its files."""
    store = tmp_path / "out.zarr"
    driver.run("segment", images, store, *REGION, code=3)
    plan = store.with_suffix(".run") / "plan.json"
    plan.write_text(plan.read_text().replace('"nucseg-batch": "', '"nucseg-batch": "0.'))
    refused = driver.run("segment", images, store, *REGION, code=78)
    assert "nucseg-batch: 0." in refused.errors
    assert "nucseg-batch: 0." in driver.run("segment", "--run", store, code=78).errors
    assert sweep.reference


def test_new_images_are_added_and_images_that_are_gone_are_kept(driver: Driver, own: Path, tmp_path: Path) -> None:
    """Row 19: a run takes what comes, unless told otherwise; what was made of an image outlives it."""
    store = tmp_path / "out.zarr"
    driver.run("segment", own, store, *REGION, code=3)
    before = tree(store)
    write_picture(own / "new.png", (20, 30))
    (own / "2.png").unlink()
    done = driver.run("segment", own, store, "--new", "report", *REGION, code=3)
    assert done.segmented == 0
    assert "1 image (new.png): new; not in this run" in done.errors
    assert "1 image (2.png): not there any more; what was made of them is kept" in done.errors
    assert tree(store) == before
    assert "1 image (new.png): new" in driver.run("segment", own, store, "--new", "refuse", *REGION, code=78).errors
    assert tree(store) == before
    done = driver.run("segment", own, store, *REGION, code=3)
    assert done.segmented == 1
    assert "1 image (new.png): new; added to the run" in done.errors
    assert [row["image"] for row in rows(store, "images")].count("new.png") == 1
    assert "2.png" in {row["image"] for row in rows(store, "images")}


def test_a_lost_plan_of_added_images_is_refused_and_mended(driver: Driver, own: Path, tmp_path: Path) -> None:
    """By every command, until `verify --redo` has discarded what is left of these images."""
    store = tmp_path / "out.zarr"
    driver.run("segment", own, store, *REGION, code=3)
    write_picture(own / "new.png", (20, 30))
    driver.run("segment", own, store, *REGION, code=3)
    before = rows(store, "images")
    (store.with_suffix(".run") / "plan-000001.json").unlink()
    for command in (("segment", own, store, *REGION), ("finish", store), ("status", store), ("verify", store)):
        assert "plan of added images is lost or damaged (plan-000001.json)" in driver.run(*command, code=74).errors
    assert "discarded 1 unit of added images" in driver.run("verify", store, "--redo").errors
    assert driver.run("segment", own, store, *REGION, code=3).segmented == 1
    assert [(row["image"], row["nuclei"]) for row in rows(store, "images")] == [
        (row["image"], row["nuclei"]) for row in before
    ]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _stray(path: Path) -> None:
    path.with_name(f".{path.name}.elsewhere-1-2.partial").write_bytes(b"half")


SHARD, LARGE = ".zarr/20x30/labels/nuclei/0/c/0/0/0", ".zarr/130x100/labels/nuclei/0/c/0/1/1"
DAMAGE = {
    "marker without shard": (SHARD, Path.unlink, 2),
    "shard without marker": (".run/units/20x30-000000.json", Path.unlink, 2),
    "cut shard": (SHARD, _cut, 2),
    "cut marker": (".run/units/20x30-000000.json", _cut, 2),
    "cut part": (".run/parts/20x30-000000.nuclei.csv", _cut, 2),
    "part gone": (".run/parts/20x30-000000.nuclei.csv", Path.unlink, 2),
    "large plane without a shard": (LARGE, Path.unlink, 0),
    "cut shard of a large plane": (LARGE, _cut, 0),
    "region gone": (".run/regions/130x100-000002.found", Path.unlink, 1),
    "marker of a region gone": (".run/units/130x100-000002.json", Path.unlink, 1),
    "marker of a large plane cut": (".run/planes/130x100-plane-000000.json", _cut, 0),
    "table gone": (".nuclei.csv", Path.unlink, 0),
    "tables not noted": (".run/finished.json", Path.unlink, 0),
    "group gone": (".zarr/24x26/labels/zarr.json", Path.unlink, 0),
    "array gone": (".zarr/24x26/labels/nuclei/0/zarr.json", Path.unlink, 0),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_made_again_by_the_same_command(
    sweep: Sweep, driver: Driver, images: Path, tmp_path: Path, damage: str
) -> None:
    """Row 36: and nothing else is."""
    name, harm, images_again = DAMAGE[damage]
    store = tmp_path / "out.zarr"
    driver.run("segment", images, store, *REGION, code=3)
    target = store.parent / f"out{name}"
    changed = target.stat().st_mtime_ns
    harm(target)
    if target.exists():
        os.utime(target, ns=(changed, changed))
    again = driver.run("segment", images, store, *REGION, code=3)
    assert differences(store, sweep.reference) == []
    assert again.segmented == images_again


@pytest.mark.parametrize(
    "name",
    [
        SHARD,
        LARGE,
        ".run/parts/20x30-000000.nuclei.csv",
        ".run/regions/130x100-000002.found",
        ".run/planes/130x100-plane-000000.nuclei.csv",
        ".nuclei.csv",
        ".images.csv",
    ],
)
def test_a_bit_that_flipped_is_found_by_verify_and_mended(
    sweep: Sweep, driver: Driver, images: Path, tmp_path: Path, name: str
) -> None:
    """Row 36: sizes and times do not show it; `verify` reads everything."""
    store = tmp_path / "out.zarr"
    driver.run("segment", images, store, *REGION, code=3)
    driver.run("verify", store)
    target = store.parent / f"out{name}"
    changed = target.stat().st_mtime_ns
    _flip(target)
    os.utime(target, ns=(changed, changed))
    found = driver.run("verify", store, code=None)
    assert found.code not in (0, 3), found.output
    driver.run("verify", store, "--redo", code=None)
    driver.run("segment", images, store, *REGION, code=3)
    assert differences(store, sweep.reference) == []
    driver.run("verify", store)


def test_strays_of_killed_writers_go(sweep: Sweep, driver: Driver, images: Path, tmp_path: Path) -> None:
    """Row 36: wherever one process of a run can leave half a file, when the run is next finished."""
    store = tmp_path / "out.zarr"
    driver.run("segment", images, store, *REGION, code=3)
    run = store.with_suffix(".run")
    (run / "units" / "20x30-000000.json").unlink()
    for path in [*store.rglob("*"), *run.rglob("*"), *tmp_path.glob("*.csv")]:
        unit = "c" in path.relative_to(tmp_path).parts and str(path).split("/nuclei/")[-1].startswith("0/")
        mine = "20x30/" in str(path) and "c/0/" in str(path)
        if path.is_file() and "locks" not in path.parts and "planes" not in path.parts and (mine or not unit):
            _stray(path)
    (run / "finished.json").unlink()
    (store / "130x100" / "labels" / "nuclei" / "zarr.json").unlink()  # so that the levels are listed again
    driver.run("segment", images, store, *REGION, code=3)
    assert differences(store, sweep.reference) == []
