"""The whole job, through the command line in processes of its own, on real images and on made ones."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from command import COMMAND, Output, call, contents, run
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models import open_ome_zarr
from scipy.ndimage import distance_transform_edt
from skimage.measure import regionprops_table

import nucseg_batch
from nucseg_batch.cli.progress import RunProgress
from nucseg_batch.errors import MismatchError
from nucseg_batch.executors.job import prepare
from nucseg_batch.executors.local import run as run_job
from nucseg_batch.files.images import read_header, read_image
from nucseg_batch.settings import SegmentSettings


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def real_images(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test image of DSB2018 of each shape but the largest, which only take time; grey, and one in colour."""
    folder = tmp_path_factory.mktemp("real") / "in"
    folder.mkdir()
    kinds: set[object] = set()
    for path in sorted((shared / "dsb2018" / "test" / "images").glob("*.png")):
        header = read_header(path, max_pixels=10**7)
        kind, most = ("colour", 190_000) if header.channels == 3 else ((header.height, header.width), 140_000)
        if header.height * header.width < most and kind not in kinds:
            shutil.copy(path, folder)
            kinds.add(kind)
    return folder


@pytest.fixture(scope="module")
def finished(real_images: Path) -> Path:
    store = real_images.parent / "out.zarr"
    run("segment", real_images, store)
    return store


def test_every_image_has_a_mask_and_the_tables_agree_with_it(real_images: Path, finished: Path) -> None:
    """The promise of the program, on real images, against scikit-image's own measurements."""
    masks = nucseg_batch.open_masks(finished)
    images = rows(finished.with_suffix(".images.csv"))
    nuclei = rows(finished.with_suffix(".nuclei.csv"))
    assert [row["image"] for row in images] == sorted(path.name for path in real_images.iterdir()) == list(masks)
    assert nuclei == sorted(nuclei, key=lambda row: (row["image"], int(row["label"])))
    assert len(nuclei) > 300
    for row in images:
        mask = masks[row["image"]]
        own = [n for n in nuclei if n["image"] == row["image"]]
        assert mask.dtype == np.uint32
        assert mask.shape == (int(row["height"]), int(row["width"]))
        assert int(row["nuclei"]) == mask.max() == len(own) == np.unique(mask[mask > 0]).size
        pixels = read_image(real_images / row["image"], max_pixels=10**7)
        if pixels.ndim == 3:
            continue
        truth = regionprops_table(mask, pixels, properties=("area", "centroid", "perimeter", "intensity_mean"))
        for name, values in truth.items():
            np.testing.assert_allclose([float(n[name]) for n in own], values, rtol=2e-6, atol=1e-5)
    assert rows(finished.with_suffix(".failures.csv")) == []


def test_rings_and_cells_of_real_images_are_exact_whole_and_by_regions(real_images: Path, tmp_path: Path) -> None:
    """No pixel has two owners; distances are Euclidean; regions of a plane do not show. Nuclei are as without them."""
    grey = [path for path in real_images.iterdir() if read_header(path, max_pixels=10**7).channels == 1]
    name = max(grey, key=lambda path: path.stat().st_size).name
    place = tmp_path / "in"
    place.mkdir()
    shutil.copy(real_images / name, place)
    given = ("--diameter", 20, "--ring", "1,4.5", "--expand", "5.5")
    call("segment", place, tmp_path / "plain.zarr", "--diameter", 20)
    call("segment", place, tmp_path / "whole.zarr", *given)
    call("segment", place, tmp_path / "tiles.zarr", *given, "--region", 128)
    plain = nucseg_batch.open_masks(tmp_path / "plain.zarr")[name]
    for store in ("whole.zarr", "tiles.zarr"):
        nuclei, rings, cells = (
            nucseg_batch.open_masks(tmp_path / store, label=label)[name] for label in ("nuclei", "rings", "cells")
        )
        pairs = np.unique(np.stack([plain.ravel(), nuclei.ravel()]), axis=1)
        assert pairs.shape[1] == nuclei.max() + 1 == plain.max() + 1 > 10
        distance = distance_transform_edt(nuclei == 0)
        np.testing.assert_array_equal(rings > 0, (distance > 1) & (distance <= 5.5))
        np.testing.assert_array_equal(cells > 0, distance <= 5.5)
        np.testing.assert_array_equal(cells[nuclei > 0], nuclei[nuclei > 0])
        np.testing.assert_array_equal(cells[rings > 0], rings[rings > 0])
        alone = [distance_transform_edt(nuclei != label) for label in range(1, nuclei.max() + 1)]
        ranked = np.argmin(np.round(np.square(alone)), axis=0) + 1  # the first of those that are equally near
        np.testing.assert_array_equal(cells, np.where(distance <= 5.5, ranked, 0))
        table = {int(row["label"]): row for row in rows(tmp_path / store.replace(".zarr", ".nuclei.csv"))}
        pixels = read_image(place / name, max_pixels=10**7)
        measured = regionprops_table(rings, pixels, properties=("label", "area", "intensity_mean", "intensity_std"))
        for label, area, mean, std in zip(*measured.values(), strict=True):
            row = table.pop(int(label))
            assert int(row["ring_area"]) == area
            assert float(row["ring_intensity_mean"]) == pytest.approx(mean, rel=1e-6)
            assert float(row["ring_intensity_std"]) == pytest.approx(std, rel=1e-6)
            assert float(row["intensity_ratio"]) == pytest.approx(float(row["intensity_mean"]) / mean, rel=1e-6)
        assert all(row["ring_area"] == "0" and row["ring_intensity_mean"] == "" for row in table.values())


def test_the_store_is_valid_and_other_tools_read_it(finished: Path) -> None:
    """ome-zarr-models validates every group, ome-zarr-py reads the same pixels."""
    groups = sorted(finished.glob("*x*/labels"))
    assert len(groups) > 3
    for group in groups:
        open_ome_zarr(group, version="0.5")
        open_ome_zarr(group / "nuclei", version="0.5")
        location = parse_url(group / "nuclei")
        assert location is not None
        (node,) = list(Reader(location)())
        array = zarr.open_array(group / "nuclei" / "0", mode="r")
        np.testing.assert_array_equal(np.asarray(node.data[0]), array[:])


def test_nothing_but_the_documented_files_is_written(finished: Path) -> None:
    """A user must know what may be deleted."""
    names = {path.name for path in finished.parent.iterdir()} - {"in"}
    assert {name for name in names if name.startswith("out.")} == {
        "out.zarr",
        "out.images.csv",
        "out.nuclei.csv",
        "out.failures.csv",
        "out.provenance.json",
        "out.run",
    }
    run_folder = finished.with_suffix(".run")
    assert {path.name for path in run_folder.iterdir()} == {
        "plan.json",
        "config.toml",
        "mirror.json",
        "machine.json",
        "scales.json",
        "finished.json",
        "log.txt",
        "timings",
        "locks",
        "units",
        "parts",
        "regions",
        "planes",
    }


def test_a_second_call_does_nothing(real_images: Path, finished: Path) -> None:
    """No file of the store is written again, and Keras is not even loaded."""
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    done = run("segment", real_images, finished)
    assert "everything was done already" in done.stdout
    assert "computing in" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_batch_size_and_workers_do_not_change_a_byte(real_images: Path, finished: Path) -> None:
    """Speed is the machine's, the result is the image's."""
    other = finished.with_name("other.zarr")
    call("segment", real_images, other, "--batch-size", 1, "--workers", 4)
    assert contents(other) == contents(finished)
    many = finished.with_name("many.zarr")
    call("segment", real_images, many, "--batch-size", 16, "--workers", 1)
    assert contents(many) == contents(finished)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(real_images: Path, finished: Path) -> None:
    """Kill -9 when the first units are committed; the second call keeps them and does the rest."""
    store = finished.with_name("killed.zarr")
    process = subprocess.Popen(
        [*COMMAND, "segment", str(real_images), str(store)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    units = store.with_suffix(".run") / "units"
    while len(list(units.glob("*.json"))) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in units.glob("*.json")}
    total = len(list((finished.with_suffix(".run") / "units").glob("*.json")))
    assert 2 <= len(kept) < total
    run("segment", real_images, store)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished units are not done again"
    assert contents(store) == contents(finished)


def test_a_stopped_run_says_how_to_go_on_and_goes_on(real_images: Path, finished: Path) -> None:
    """Ctrl-C: 130, one line, no library noise; the second call ends with the same bytes."""
    store = finished.with_name("stopped.zarr")
    command = [*COMMAND, "segment", str(real_images), str(store), "--batch-size", "1", "--grace", "200"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    units = store.with_suffix(".run") / "units"
    while not list(units.glob("*.json")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "nucseg-batch: stopped; run the same command again to resume."
    progress = ("Mpx/s", "headers read")  # how many of these lines there are depends on the machine
    assert len([line for line in errors.splitlines() if not any(words in line for words in progress)]) <= 6
    run("segment", real_images, store)
    assert contents(store) == contents(finished)


def test_masks_that_were_lost_are_made_again(real_images: Path, finished: Path) -> None:
    """A marker says what was done, not that it is still there: a lost shard, a lost store, a lost table."""
    store = finished.with_name("lost.zarr")
    run("segment", real_images, store)
    shard = next(path for path in sorted(store.rglob("c/0/0/0")) if path.is_file())
    shard.unlink()
    assert "everything was done already" not in run("segment", real_images, store).stdout
    assert contents(store) == contents(finished)
    shutil.rmtree(store)
    store.with_suffix(".nuclei.csv").unlink()
    run("segment", real_images, store)
    assert contents(store) == contents(finished)


def test_a_run_without_any_nucleus_says_what_to_look_at(tmp_path: Path) -> None:
    """All is well for the program, but hardly for its user."""
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", np.zeros((61, 83), np.uint8))
    printed = call("segment", tmp_path / "in", tmp_path / "out.zarr").stdout
    assert "1 image, 0 nuclei, 0 failed" in printed
    assert "no image has nuclei: see with `nucseg-batch inspect` which channel is segmented" in printed


def test_a_call_that_cannot_work_leaves_nothing_behind(one_image: Path, tmp_path: Path) -> None:
    """Else a mistyped option would stand in the way of the right one."""
    (tmp_path / "bad.keras").write_bytes(b"no model")
    call("segment", one_image, tmp_path / "new" / "out.zarr", "--model", tmp_path / "bad.keras", code=78)
    assert not (tmp_path / "new").exists()
    call("segment", one_image, tmp_path / "new" / "out.zarr", "--diameter", 22)


def test_files_of_others_beside_the_store_are_never_touched(image_folder: Path, tmp_path: Path) -> None:
    """A table or folder of the right name that no run of ours made is somebody's work."""
    (tmp_path / "a.nuclei.csv").write_text("mine")
    (tmp_path / "b.run").mkdir()
    (tmp_path / "b.run" / "notes.txt").write_text("mine")
    for name, options in (("a", []), ("a", ["--overwrite"]), ("b", []), ("b", ["--overwrite"])):
        done = call("segment", image_folder, tmp_path / f"{name}.zarr", *options, code=73)
        assert "no run of ours" in done.stderr
    assert (tmp_path / "a.nuclei.csv").read_text() == (tmp_path / "b.run" / "notes.txt").read_text() == "mine"


def test_finished_masks_are_not_replaced_when_the_run_folder_is_gone(segmented: Output, tmp_path: Path) -> None:
    """It is safe to delete; then only --overwrite may start over."""
    store = segmented.copy(tmp_path)
    shutil.rmtree(store.with_suffix(".run"))
    before = contents(store)
    assert "--overwrite" in call("segment", segmented.images, store, "--threshold", 0.9, code=73).stderr
    assert contents(store) == before
    call("segment", segmented.images, store, "--overwrite")
    assert contents(store) == before


def test_a_name_that_is_not_utf8_finds_its_mask(image_folder: Path, tmp_path: Path) -> None:
    """Two names that would be written alike are kept apart."""
    raw = os.fsdecode(b"\xff.png")
    shutil.copy(image_folder / "small8.png", image_folder / raw)
    shutil.copy(image_folder / "plate" / "small16.png", image_folder / "%FF.png")
    run("segment", image_folder, tmp_path / "out.zarr", "--diameter", 26)
    masks = nucseg_batch.open_masks(tmp_path / "out.zarr")
    assert {raw, "%FF.png"} <= set(masks)
    np.testing.assert_array_equal(masks[raw], masks["small8.png"])
    np.testing.assert_array_equal(masks["%FF.png"], masks["plate/small16.png"])


def test_closed_streams_and_pipes_lose_no_work(one_image: Path, tmp_path: Path) -> None:
    """Schedulers close them, people pipe into head; the masks and the exit code stand."""
    command = f"{' '.join(COMMAND)} segment --diameter 22 {one_image} {tmp_path}"
    done = subprocess.run(f"{command}/a.zarr <&- >&- 2>&-", shell=True, timeout=120)
    assert done.returncode == 0
    done = subprocess.run(["bash", "-c", f"{command}/b.zarr | true; exit ${{PIPESTATUS[0]}}"], timeout=120)
    assert done.returncode == 0
    for name in "ab":
        assert nucseg_batch.open_masks(tmp_path / f"{name}.zarr")["small8.png"].max() == 2


def test_images_of_many_kinds_in_one_folder(segmented: Output) -> None:
    """Nested folders, three shapes, 8 bit, 16 bit, float and colour; the two or three nuclei of each are found."""
    found = {row["image"]: int(row["nuclei"]) for row in rows(segmented.store.with_suffix(".images.csv"))}
    assert found == {
        "plate/colour.jpg": 3,
        "plate/small16.png": 2,
        "plate/well/wide.tif": 3,
        "small8.png": 2,
        "tall.tiff": 2,
    }
    assert "5 images, 12 nuclei, 0 failed" in segmented.told


def test_bad_images_cost_a_row_each_and_exit_code_3(image_folder: Path) -> None:
    """Empty, cut, text and all-NaN files among good ones; a black image is no failure but has no nuclei."""
    import imagecodecs
    import tifffile

    good = (image_folder / "small8.png").read_bytes()
    (image_folder / "empty.png").write_bytes(b"")
    (image_folder / "cut.png").write_bytes(good[: len(good) * 2 // 3])
    (image_folder / "text.tif").write_text("hello")
    tifffile.imwrite(image_folder / "nan.tif", np.full((67, 83), np.nan, np.float32))
    (image_folder / "black.png").write_bytes(imagecodecs.png_encode(np.zeros((67, 83), np.uint8)))
    store = image_folder.parent / "out.zarr"
    done = call("segment", image_folder, store, "--diameter", 26, code=3)
    failures = {row["image"]: row for row in rows(store.with_suffix(".failures.csv"))}
    assert sorted(failures) == ["cut.png", "empty.png", "nan.tif", "text.tif"]
    assert failures["nan.tif"]["stage"] == "read"
    assert "finite" in failures["nan.tif"]["message"]
    images = {row["image"]: row for row in rows(store.with_suffix(".images.csv"))}
    assert (images["black.png"]["status"], images["black.png"]["nuclei"]) == ("ok", "0")
    assert (images["cut.png"]["status"], images["cut.png"]["mask"]) == ("failed", "")
    assert "4 failed" in done.stdout
    assert "cut.png" not in nucseg_batch.open_masks(store)


def test_other_settings_are_refused_and_new_images_are_added(image_folder: Path) -> None:
    """78, with what differs; a new image has an array of its own; --overwrite starts over."""
    store = image_folder.parent / "out.zarr"
    run("segment", image_folder, store)
    before = contents(store)
    assert (
        "--threshold: not given in the run, 0.7 now"
        in call("segment", image_folder, store, "--threshold", 0.7, code=78).stderr
    )
    shutil.copy(image_folder / "small8.png", image_folder / "new.png")
    assert "1 image (new.png): new; not in" in run("segment", image_folder, store, "--new", "report").stderr
    assert contents(store) == before
    assert "1 image (new.png): new; added to the run" in run("segment", image_folder, store).stderr
    masks = nucseg_batch.open_masks(store)
    assert np.array_equal(masks["new.png"], masks["small8.png"])
    call("segment", image_folder, store, "--overwrite", "--threshold", 0.7)
    assert "new.png" in nucseg_batch.open_masks(store)


def test_an_output_that_is_not_ours_is_never_touched(image_folder: Path) -> None:
    """Not even with --overwrite: it may be somebody's images."""
    foreign = image_folder.parent / "images.zarr"
    zarr.open_group(foreign, mode="w").create_array("0", shape=(3, 5), dtype="uint8")[:] = 7
    before = contents(foreign)
    for options in ([], ["--overwrite"]):
        assert "not made by nucseg-batch" in call("segment", image_folder, foreign, *options, code=73).stderr
    (image_folder.parent / "file").write_text("x")
    assert "Not a directory" in call("segment", image_folder, image_folder.parent / "file" / "o.zarr", code=73).stderr
    (image_folder.parent / "file.zarr").write_text("x")
    call("segment", image_folder, image_folder.parent / "file.zarr", code=73)
    assert contents(foreign) == before
    assert not list(image_folder.parent.glob("*.run"))


def test_a_dry_run_tells_and_writes_nothing(image_folder: Path) -> None:
    """Planning needs neither Keras nor a place to write."""
    done = run("segment", image_folder, image_folder.parent / "out.zarr", "--dry-run")
    assert "5 images" in done.stdout
    assert "67x83" in done.stdout
    assert "3 units, 0 of them done" in done.stdout
    assert [path.name for path in image_folder.parent.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["segment", "nowhere", "out.zarr"], 66, "nowhere"),
        (["segment", "empty", "out.zarr"], 65, "no image"),
        (["segment", "empty", "out.tif"], 2, "but is out.tif"),
        (["segment", "bad", "out.zarr"], 65, "a.png"),
        (["segment", "good", "out.zarr", "--model", "nowhere.keras"], 66, "nowhere.keras"),
        (["segment", "good", "out.zarr", "--model", "good/a.png"], 78, "good/a.png"),
        (["segment", "good", "out.zarr", "--threshold", "2"], 2, "threshold"),
        (["evaluate", "nowhere.zarr", "good"], 66, "nowhere"),
        (["train", "empty", "m.keras"], 65, "labels/"),
        (["train", "nowhere", "m.keras"], 66, "nowhere"),
        (["train", "good", "m.keras", "--seed", "-1"], 2, "seed"),
        (["evaluate", "good", "bad", "--json", "good/a.png/x.json"], 73, "--json"),
        (["evaluate", "good", "bad"], 65, "bad/a.png"),
        (["segment", "good", "out.zarr", "--model", "nowhere.keras", "--dry-run"], 66, "nowhere.keras"),
    ],
)
def test_every_refusal_is_one_line_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, word: str
) -> None:
    """What was asked, what was found; no traceback without --debug."""
    import imagecodecs

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("empty", "good", "bad"):
        Path(name).mkdir()
    Path("good", "a.png").write_bytes(imagecodecs.png_encode(np.zeros((40, 50), np.uint8)))
    Path("bad", "a.png").write_bytes(b"x")
    done = call(*arguments, code=code)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("nucseg-batch:")]
    assert word in line
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4
    assert not Path("out.zarr").exists()
    assert not Path("out.run").exists()
    if code != 2:
        assert "Traceback" in call(*arguments, "--debug", code=code).stderr


def test_a_refusal_after_libraries_were_loaded_is_as_short(
    one_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow greets on stderr, and complains of GPUs that are not there; both are kept from the user."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run("segment", one_image, tmp_path / "out.zarr", "--device", "gpu", code=69)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("nucseg-batch:")]
    assert "--device cpu" in line
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_full_disk_stops_the_run_keeps_what_is_done_and_is_mended_by_a_second_call(
    segmented: Output, tmp_path: Path
) -> None:
    """74 in a few lines; after making room the result is that of an undisturbed run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        (disk / "filler").write_bytes(os.urandom(8 * 1024))
        done = run("segment", segmented.images, disk / "out.zarr", code=74)
        assert len(done.stderr.splitlines()) <= 10, done.stderr
        (disk / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        call("segment", segmented.images, disk / "out.zarr")
        assert contents(disk / "out.zarr") == contents(segmented.store)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_run_that_another_process_began_meanwhile_is_not_deleted(image_folder: Path, tmp_path: Path) -> None:
    """Two copies started together both plan; the slower one must find the other's work, not replace it."""
    store = tmp_path / "out.zarr"
    progress = RunProgress()
    slower = prepare(image_folder, store, None, SegmentSettings(), progress)
    other = prepare(image_folder, store, None, SegmentSettings(threshold=0.7), progress)
    divided = prepare(image_folder, store, None, SegmentSettings(), progress, shares=2)
    run("segment", image_folder, store)
    before = contents(store)
    for different in (other, divided):
        with pytest.raises(MismatchError, match=r"0\.7|run the same command again"):
            run_job(different, progress)
    summary = run_job(slower, progress)
    assert (summary.new_planes, summary.outcome.planes) == (0, 5)
    assert contents(store) == before
