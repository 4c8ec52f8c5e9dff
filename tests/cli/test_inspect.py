from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import typer
import zarr

from nucseg_batch.cli.inspect import inspect
from nucseg_batch.cli.main import main
from nucseg_batch.errors import InputMissingError, NothingToDoError, NucsegError, UsageError
from nucseg_batch.executors.inspection import (
    COLUMNS_BYTES,
    ENLARGED,
    NUMBA_BYTES,
    WINDOW_BYTES,
    memory_bytes,
    output_files,
)
from nucseg_batch.executors.inspection import inspect as look
from nucseg_batch.plan import TILE, Budget, ImageInfo, make_plan
from nucseg_batch.plan.budget import BASE_BYTES
from nucseg_batch.settings import SegmentSettings

app = typer.Typer()
app.command()(inspect)


def run(*arguments: object) -> int:
    """The exit code of the command."""
    try:
        return app([str(argument) for argument in arguments], standalone_mode=False) or 0
    except NucsegError as error:
        return error.exit_code


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    assert run(*arguments, "--json") == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Three alike, a stack of two channels with names, an image that is cut, and a text."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        tifffile.imwrite(folder / f"grey{i}.tif", np.full((67, 83), i, np.uint16))
    stack = np.zeros((2, 5, 101, 61), np.uint8)
    tifffile.imwrite(
        folder / "stack.ome.tif",
        stack,
        ome=True,
        metadata={
            "axes": "CZYX",
            "Channel": {"Name": ["GFP", "DAPI"]},
            "PhysicalSizeX": 0.65,
            "PhysicalSizeXUnit": "µm",
        },
    )
    (folder / "cut.png").write_bytes(imagecodecs.png_encode(np.zeros((31, 37), np.uint8))[:20])
    (folder / "notes.txt").write_text("x")
    return folder


def test_json_tells_what_is_there_and_what_it_comes_to(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that the table tells, for programs; 3, because one image would be refused."""
    found = as_json(capsys, mixed, code=3)
    assert (found["images"], found["planes"], found["pixels"]) == (4, 8, 3 * 67 * 83 + 5 * 101 * 61)
    grey, stack = found["kinds"]
    assert (grey["images"], grey["example"], grey["axes"], grey["shape"]) == (3, "grey0.tif", "YX", [67, 83])
    assert (grey["dtype"], grey["channels"], grey["nuclei"], grey["planes"]) == ("uint16", [], None, 3)
    assert sorted(zip(stack["axes"], stack["shape"], strict=True)) == [("C", 2), ("X", 61), ("Y", 101), ("Z", 5)]
    assert [channel["name"] for channel in stack["channels"]] == ["GFP", "DAPI"]
    assert (stack["nuclei"], stack["pixel_size_um"], stack["planes"]) == ("DAPI", 0.65, 5)
    assert found["channels"] == ["GFP", "DAPI"]
    assert found["mask_bytes"] == 4 * found["pixels"]
    assert found["decoded_bytes"] == 3 * 67 * 83 * 2 + 2 * 5 * 101 * 61
    assert found["input_bytes"] == sum(path.stat().st_size for path in mixed.glob("*.tif"))
    assert [array["name"] for array in found["arrays"]] == ["67x83", "5z-101x61"]
    assert found["units"] == 2
    assert [refused["image"] for refused in found["refused"]] == ["cut.png"]
    assert found["passed_over"] == {"file that is no image": 1}
    assert found["passed_over_names"] == {"file that is no image": ["notes.txt"]}
    assert found["passed_over_suffixes"] == {".txt": 1}
    assert (found["seconds"], found["refusal"]) == (None, None)


def test_time_is_told_only_from_a_measured_speed(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A guess would be believed."""
    found = as_json(capsys, mixed, "--mpx-per-s", "0.01", code=3)
    assert found["seconds"] == pytest.approx(found["pixels"] / 1e4, abs=0.1)
    run(mixed)
    assert "time: unknown" in capsys.readouterr().out


def test_a_job_with_less_memory_than_a_run_needs_is_warned_of(
    mixed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be killed in the middle of the night."""
    run(mixed)
    assert "request more" not in capsys.readouterr().out
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1000")
    run(mixed)
    assert "with a budget of 1.05 GB (--memory); more than the machine or the job has" in capsys.readouterr().out


def test_images_that_are_alike_share_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of 20 000 images is a few lines."""
    for i in range(50):
        (tmp_path / f"{i}.png").write_bytes(imagecodecs.png_encode(np.zeros((31, 37), np.uint8)))
    assert run(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 12
    assert any(line.split()[:4] == ["50", "YX", "31x37", "uint8"] for line in lines)


def test_what_would_be_refused_is_told_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Many images with one trouble are one line, which names the first."""
    for i in range(30):
        (tmp_path / f"empty{i:02d}.png").write_bytes(b"")
    with pytest.raises(NothingToDoError, match=r"none of its 30 images can be used; the first, empty00\.png"):
        app([str(tmp_path)], standalone_mode=False)
    out = capsys.readouterr().out
    assert "refused: empty00.png and 29 more: the file is empty" in out
    assert len(out.splitlines()) < 6


def test_channels_that_are_files_are_shown_also_where_none_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One looks here to learn which channels there are; the run itself would be refused with 2."""
    for site in (1, 2):
        for w in (1, 2, 3):
            tifffile.imwrite(tmp_path / f"p_B02_s{site}_w{w}.TIF", np.zeros((31, 37), np.uint16))
    found = as_json(capsys, tmp_path, code=2)
    assert "w1, w2, w3" in found["refusal"]
    assert found["kinds"][0]["images"] == 6
    found = as_json(capsys, tmp_path, "--channel", "w2")
    assert (found["images"], found["channels"], found["kinds"][0]["nuclei"]) == (2, ["w1", "w2", "w3"], "w2")
    assert any("nuclei in w2" in note for note in found["notes"])


def test_what_is_passed_over_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By kinds and examples, so that an image of an odd kind is not lost among notes."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((31, 37), np.uint8))
    for name in ("b.psd", *(f"{i}.csv" for i in range(5)), "n.txt"):
        (tmp_path / name).write_text("x")
    assert run(tmp_path) == 0
    out = capsys.readouterr().out
    assert "skipped: 1 x file of a kind that is not read (.psd): b.psd" in out
    (line,) = [line for line in out.splitlines() if "6 x file that is no image" in line]
    assert "(5 .csv, 1 .txt): " in line
    assert line.endswith(", ...")


def test_bytes_of_a_store_on_disk_are_those_of_its_chunks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What copying or reading it costs; a store of millions of files is not counted, and says so."""
    rng = np.random.default_rng(3)
    for name in ("a", "b"):
        zarr.create_array(
            tmp_path / f"{name}.zarr", data=rng.integers(0, 9, (64, 96), np.uint8), chunks=(32, 32), compressors=None
        )
    assert as_json(capsys, tmp_path)["input_bytes"] == 2 * 64 * 96
    monkeypatch.setattr("nucseg_batch.executors.inspection.COUNTED_FILES", 7)
    assert as_json(capsys, tmp_path)["input_bytes"] is None
    assert run(tmp_path) == 0
    assert "size on disk not counted" in capsys.readouterr().out


def test_selections_count_as_segment_takes_them(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same options choose the same planes."""
    found = as_json(capsys, mixed, "--pattern", "stack*", "--z", "max")
    assert (found["images"], found["planes"]) == (1, 1)
    found = as_json(capsys, mixed, "--pattern", "stack*", "--z", "1:4", "--channel", "0")
    assert (found["planes"], found["kinds"][0]["nuclei"]) == (3, "GFP")
    found = as_json(capsys, mixed, "--pattern", "grey*", "--max-pixels", "50", code=65)
    assert all("--max-pixels" in refused["message"] for refused in found["refused"])


def test_exit_codes_are_those_of_a_run(mixed: Path) -> None:
    """0, 2, 3, 65 and 66, so that a script can look before it begins."""
    assert run(mixed, "--pattern", "grey*") == 0
    assert run(mixed) == 3
    assert run(mixed / "cut.png") == 65
    assert run(mixed / "nowhere") == InputMissingError.exit_code == 66
    assert run(mixed, "--z", "deep") == UsageError.exit_code == 2


def test_names_in_any_encoding_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal takes UTF-8 and no control characters."""
    with open(bytes(tmp_path) + b"/\xff\n[red].png", "wb") as file:
        file.write(imagecodecs.png_encode(np.zeros((31, 37), np.uint8)))
    assert run(tmp_path) == 0
    assert "%FF [red].png" in capsys.readouterr().out
    assert as_json(capsys, tmp_path)["kinds"][0]["example"].encode("utf-8", "surrogateescape") == b"\xff\n[red].png"


def infos(height: int, width: int, count: int) -> list[ImageInfo]:
    return [ImageInfo(f"{i}.tif", 1, 1, height, width, 1, "uint16") for i in range(count)]


def test_memory_grows_with_the_largest_piece_and_not_with_the_number_of_images() -> None:
    """A plane larger than a region takes no more than the region."""
    budget = Budget(2 * 10**9, "mixed_bfloat16")
    few, many = (memory_bytes(make_plan(infos(1031, 1033, count)), budget, SegmentSettings()) for count in (200, 2000))
    assert few == many
    large, larger = (
        memory_bytes(make_plan(infos(side, side, 1)), budget, SegmentSettings()) for side in (10_007, 100_003)
    )
    assert large == larger > few
    assert (
        memory_bytes(make_plan(infos(10_007, 10_007, 1)), Budget(6 * 10**9, "mixed_bfloat16"), SegmentSettings())
        > large
    )


def test_a_single_small_image_needs_little_and_the_program_is_counted() -> None:
    """Batches are not filled where there is nothing to fill them with; Numba comes with TensorFlow and the model."""
    budget = Budget(2 * 10**9, "mixed_bfloat16")
    one, two, many = (
        memory_bytes(make_plan(infos(127, 113, count)), budget, SegmentSettings()) for count in (1, 2, 5000)
    )
    assert BASE_BYTES + NUMBA_BYTES < one < two < many
    assert one < BASE_BYTES + NUMBA_BYTES + 50_000_000


def test_windows_of_images_that_may_be_done_in_tiles_come_on_top_of_calls() -> None:
    """An image that is enlarged beyond a tile; what the backend took for calls it keeps."""
    budget, side = Budget(2 * 10**9, "mixed_bfloat16"), TILE // ENLARGED
    small, large = (
        memory_bytes(make_plan(infos(side, width, 3)), budget, SegmentSettings()) for width in (side, side + 1)
    )
    assert large - small > 0.9 * WINDOW_BYTES * ENLARGED**2 * side**2


def test_what_is_measured_and_labelled_counts(
    capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path
) -> None:
    """By the pixels of the largest plane; the commands take the options of `segment`."""
    budget, plan = Budget(2 * 10**9, "mixed_bfloat16"), make_plan(infos(2080, 2088, 4))
    plain, columns, rings, both = (
        memory_bytes(make_plan(infos(2080, 2088, 4), labels=settings.labels), budget, settings)
        for settings in (
            SegmentSettings(),
            SegmentSettings(measure="texture"),
            SegmentSettings(ring="1,5", expand="10"),
            SegmentSettings(measure="all", ring="1,5", expand="10"),
        )
    )
    assert columns - plain == COLUMNS_BYTES * 2080 * 2088
    assert both - rings == columns - plain
    assert rings > columns > plain
    assert memory_bytes(plan, budget, SegmentSettings(measure="all")) == columns
    without = as_json(capsys, image_folder)
    more = as_json(capsys, image_folder, "--measure", "all", "--ring", "1,5", "--expand", "3")
    assert more["memory_bytes"] > without["memory_bytes"]
    assert more["output_files"]["store"] > without["output_files"]["store"]


def test_volumes_count(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of the images has slices: another label image in two groups, its levels, a table, and two records of it."""
    without, linked = as_json(capsys, mixed, code=3), as_json(capsys, mixed, "--link", "z", code=3)
    assert (without["stacks"], linked["stacks"]) == (0, 1)
    assert linked["mask_bytes"] - without["mask_bytes"] == 4 * 5 * 101 * 61
    more = {kind: linked["output_files"][kind] - count for kind, count in without["output_files"].items()}
    assert more == {"store": 3, "tables": 1, "run folder": 2}
    assert run(mixed, "--link", "z") == 3
    assert "volumes: nuclei are joined over the z-slices of 1 stack\n" in capsys.readouterr().out
    refused = as_json(capsys, mixed, "--link", "z", "--z", "max", code=2)
    assert "--z max makes one plane of them" in refused["error"]


def test_files_of_the_output_are_counted() -> None:
    """A stack of many shards: its arrays' shards, metadata of arrays, groups and root."""
    plan = make_plan(infos(512, 512, 200))
    units = sum(1 for _ in plan.units())
    assert units == 4
    assert output_files(plan, with_images=False) == units + 5
    assert output_files(plan, with_images=True) == 2 * units + 6


def test_looking_needs_no_keras_and_reads_no_pixels(tmp_path: Path) -> None:
    """It answers at once, also on a login node without TensorFlow."""
    program = (
        "import sys\n"
        "from nucseg_batch.cli import inspect\n"
        "from nucseg_batch.executors import inspection\n"
        "loaded = {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=250)


@pytest.mark.parametrize(
    ("place", "settings", "images", "planes", "refused"),
    [
        ("ome2024_ngff/hcs.zarr", {"channel": "0"}, 8, 8, 0),
        ("ome2024_ngff/hcs.zarr", {}, 0, 0, 8),
        ("faim_hcs/CV8000", {"channel": "C01"}, 48, 48, 0),
        ("libvips/multi-channel-z-series.ome.tif", {"channel": "1"}, 1, 5, 0),
    ],
)
def test_real_plates_and_stacks_are_counted(
    shared: Path, place: str, settings: dict[str, Any], images: int, planes: int, refused: int
) -> None:
    """An OME-Zarr plate, a plate of a CV8000, and an OME-TIFF of channels and depths."""
    found = look(str(shared / "formats" / place), SegmentSettings(**settings), progress=lambda done, total: None)
    assert (found.plan.image_count, found.plan.plane_count, len(found.plan.failures)) == (images, planes, refused)


def test_every_sample_is_planned_or_refused_in_one_line(shared: Path) -> None:
    """A folder of every format at once: nothing crashes, and whatever is refused says why."""
    found = look(str(shared / "formats"), SegmentSettings(channel="each"), progress=lambda done, total: None)
    assert found.plan.image_count > 350
    assert all(failure.message and "\n" not in failure.message for failure in found.plan.failures)
    assert found.refusal is None


def test_a_jpeg_with_a_damaged_index_of_further_pictures_is_read_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cameras write such; Pillow warns of them on stderr, where nothing but our own lines belong."""
    plain = imagecodecs.jpeg8_encode(np.zeros((64, 64), np.uint8))
    index = b"MPF\0" + bytes(range(40))
    segment = b"\xff\xe2" + (len(index) + 2).to_bytes(2, "big") + index
    (tmp_path / "a.jpg").write_bytes(plain[:2] + segment + plain[2:])
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(tmp_path)])
    assert ended.value.code == 0
    assert "MPO" not in capsys.readouterr().err
