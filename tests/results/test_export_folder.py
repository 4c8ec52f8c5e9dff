"""Where exports go, under which names, and what a second call does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import call, without_coverage
from exporting import exported
from small_runs import SmallRun, picture, small_run

from nucseg_batch.errors import DamageError, LockedError, NothingToDoError, OutputError, UsageError
from nucseg_batch.files.find.walk import EXPORTED
from nucseg_batch.results.export.folder import export_folder
from nucseg_batch.results.export.formats import FORMATS, check_installed
from nucseg_batch.results.export.names import Names
from nucseg_batch.results.origin import origin
from nucseg_batch.results.run import FinishedRun


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Three images."""
    run = small_run(tmp_path, monkeypatch)
    for nuclei, name in enumerate(("a.tif", "b.tif", "c.tif"), start=1):
        run.put(name, picture(nuclei))
    run.segment()
    return run


def times(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != EXPORTED]
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in files}


def test_a_second_call_writes_only_what_is_missing_or_older_than_the_run(three: SmallRun, tmp_path: Path) -> None:
    """An export of 100 000 images that was stopped goes on; one of a run that went on is made again."""
    out = tmp_path / "out"
    exported(three, out)
    before = times(out)
    (out / "tiff" / "b.tif").unlink()
    os.truncate(out / "geojson" / "c.geojson", 0)
    result = exported(three, out)
    changed = {name for name, time in times(out).items() if before[name] != time}
    assert changed == {"tiff/b.tif", "geojson/c.geojson"}
    assert (result.formats["tiff"].written, result.formats["tiff"].kept) == (1, 2)
    later = max(times(out).values()) + 10**9
    os.utime(three.store.with_suffix(".nuclei.csv"), ns=(later, later))
    assert all(outcome.kept == 0 for outcome in exported(three, out).formats.values())


def test_overwrite_writes_everything_again(three: SmallRun, tmp_path: Path) -> None:
    """For whoever changed a file by hand."""
    exported(three, tmp_path / "out", "tiff", "coco", "parquet")
    (tmp_path / "out" / "tiff" / "a.tif").write_bytes(b"changed")
    exported(three, tmp_path / "out", "tiff", "coco", "parquet", overwrite=True)
    assert (tmp_path / "out" / "tiff" / "a.tif").read_bytes() != b"changed"


def test_files_for_the_whole_run_are_written_again_for_another_pattern(three: SmallRun, tmp_path: Path) -> None:
    """The same names then mean other images."""
    import pandas

    for pattern, images in (("a.*", {"a.tif"}), ("[bc].tif", {"b.tif", "c.tif"}), (None, {"a.tif", "b.tif", "c.tif"})):
        exported(three, tmp_path / "out", "parquet", pattern=pattern)
        for table in ("nuclei", "images"):
            assert set(pandas.read_parquet(tmp_path / "out" / f"{table}.parquet")["image"]) == images


def test_a_kill_leaves_whole_files_and_its_rest_is_cleared_away(three: SmallRun, tmp_path: Path) -> None:
    """What was being written has another name, which begins with a dot."""
    exported(three, tmp_path / "out", "tiff")
    rest = tmp_path / "out" / "tiff" / ".b.tif.node-17-0.partial"
    rest.write_bytes(b"half")
    exported(three, tmp_path / "out", "tiff")
    assert not rest.exists()


@pytest.mark.parametrize(("name", "files"), [("geojson", 3), ("anndata", 1)])
def test_a_full_disk_is_told_in_one_line_and_leaves_no_half_files(
    three: SmallRun, tmp_path: Path, name: str, files: int
) -> None:
    """A limit of 600 bytes a file stands for the full disk; the same command goes on afterwards."""
    out = tmp_path / "out"
    program = (
        "import resource, signal, sys\n"
        "from nucseg_batch.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", program, "export", str(three.store), str(out), "--format", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=without_coverage())
    assert done.returncode == 74, done.stderr
    assert done.stderr.count("\n") == 1
    assert "cannot be written (File too large)" in done.stderr
    assert not out.exists()
    assert exported(three, out, name).formats[name].written == files


@pytest.mark.parametrize("folder", ["out", "new/deep/out", "there"])
def test_an_export_that_writes_nothing_leaves_nothing_behind(three: SmallRun, tmp_path: Path, folder: str) -> None:
    """A folder that is taken cannot be given to another run; one that the user made stays, and so do other formats."""
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / folder
    told = call("export", three.store, out, "--format", "ctc", "--format", "trackmate", code=3)
    assert "ctc: 0 folders written, 3 left out\n  a.tif: it has no time points.\n" in told.stdout
    assert "nothing was written" in told.stdout
    assert sorted(tmp_path.rglob("*")) == before
    told = call("export", three.store, out, "--format", "ctc", "--format", "tiff", code=3)
    assert "tiff: 3 files written" in told.stdout
    assert sorted(path.name for path in out.iterdir()) == [EXPORTED, "tiff"]


def test_an_export_that_breaks_off_keeps_what_it_has_written(three: SmallRun, tmp_path: Path) -> None:
    """The same call goes on from there; without a file, nothing is left."""
    import zarr

    masks = zarr.open_array(three.store / "40x50" / "labels" / "nuclei" / "0", mode="r+")
    masks[1, 30:33, 30:33] = 9
    with pytest.raises(DamageError):
        exported(three, tmp_path / "out", "geojson", pattern="b.tif")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DamageError):
        exported(three, tmp_path / "out", "geojson")
    assert (tmp_path / "out" / EXPORTED).exists()
    assert [path.name for path in (tmp_path / "out" / "geojson").iterdir()] == ["a.geojson"]


def test_folders_that_are_not_for_it_are_refused(three: SmallRun, tmp_path: Path) -> None:
    """Nothing of the user is ever written over, least of all his images, whose names the label images have."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.tif").write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"mine")
    for folder, reason in (
        (three.store / "exported", "it lies in the zarr store"),
        (three.store, "it lies in the zarr store"),
        (three.journal.folder / "exported", "it lies in the run folder"),
        (three.folder, "files that are not of an earlier export"),
        (tmp_path / "mine", "files that are not of an earlier export"),
        (tmp_path / "file", "this is a file"),
    ):
        with pytest.raises(OutputError, match=reason):
            exported(three, folder, "tiff")
    assert (tmp_path / "mine" / "a.tif").read_bytes() == b"mine"


def test_a_folder_among_the_images_is_never_taken_for_images(three: SmallRun) -> None:
    """Who works in the folder of the images exports into it; label images are no new images of the run."""
    from nucseg_batch.files.find.discover import discover

    before = [entry.key for entry in discover(str(three.folder)).entries]
    exported(three, three.folder / "exported", "tiff", "png")
    found = discover(str(three.folder))
    assert [entry.key for entry in found.entries] == before
    assert found.skipped == {"output of nucseg-batch": 1}


def test_two_runs_do_not_share_a_folder(three: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of one name would be those of either."""
    other = small_run(tmp_path / "other", monkeypatch)
    other.put("a.tif", picture(2))
    other.segment()
    exported(three, tmp_path / "out", "tiff")
    with pytest.raises(OutputError, match="export of another run"):
        exported(other, tmp_path / "out", "tiff")


def test_two_processes_do_not_write_one_folder(three: SmallRun, tmp_path: Path) -> None:
    """Each would take the other's files for what a kill left."""
    with (
        FinishedRun(three.store) as run,
        export_folder(tmp_path / "out", run, origin(run)),
        pytest.raises(LockedError, match="another process"),
    ):
        exported(three, tmp_path / "out", "tiff")


def test_a_pattern_that_nothing_matches_is_an_error(three: SmallRun, tmp_path: Path) -> None:
    """An empty folder would look like a run without nuclei."""
    with pytest.raises(NothingToDoError, match="none of its images matches --pattern x"):
        exported(three, tmp_path / "out", "tiff", pattern="x*")
    exported(three, tmp_path / "out", "parquet", "cellprofiler")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(NothingToDoError, match="none of its images matches --pattern x"):
        exported(three, tmp_path / "out", "parquet", "cellprofiler", pattern="x*")
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_masks_that_do_not_fit_the_table_are_told(three: SmallRun, tmp_path: Path) -> None:
    """Whoever corrects masks by hand must not get outlines with the old measurements."""
    import zarr

    zarr.open_array(three.store / "40x50" / "labels" / "nuclei" / "0", mode="r+")[1, 30:33, 30:33] = 9
    with pytest.raises(DamageError, match=r"b\.tif: the mask but not nuclei\.csv has nucleus 9"):
        exported(three, tmp_path / "out", "geojson")


@pytest.mark.parametrize(
    ("name", "extra", "told"),
    [
        ("roi", "export", "roifile, which is not installed"),
        ("parquet", "export", "pyarrow, which is not installed"),
        ("ngio", "ngio", "ngio, pandas and pyarrow, which are not installed"),
    ],
)
def test_a_missing_library_is_named_with_what_installs_it(
    name: str, extra: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written."""
    for module in FORMATS[name].needs:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"needs {told}: pip install 'nucseg-batch\[{extra}\]'"):
        check_installed(["tiff", name])


def test_the_command_says_what_it_wrote(three: SmallRun, tmp_path: Path) -> None:
    """And again, that it was there."""
    command = ["export", three.store, tmp_path / "out", "--format", "tiff", "--format", "coco", "--pattern", "[ab].tif"]
    assert "tiff: 2 files written\ncoco: 1 file written\n2 images in" in call(*command).stdout
    assert "tiff: 0 files written, 2 up to date" in call(*command).stdout


def names_of(tmp_path: Path, *images: str) -> list[str]:
    table = tmp_path / "out.images.csv"
    rows = [
        f'"{image}",ok,m,,,' if image.count("@") == 0 else f'"{image.split("@")[0]}",ok,m,,{image.split("@")[1]},'
        for image in images
    ]
    table.write_text("image,status,mask,index,t,z\n" + "\n".join(rows) + "\n")
    from itertools import groupby

    from nucseg_batch.results.tables import read_planes

    names = Names(table)
    groups = [list(rows) for _, rows in groupby(read_planes(table), key=lambda row: row.image)]
    assert names.images == len(groups)
    return [os.fsencode(names.of(rows)).decode(errors="backslashreplace") for rows in groups]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (["a.png", "b/c.tif"], ["a", "b/c"]),
        (["a.png", "a.q.tif", "a.tif"], ["a.png", "a.q", "a.tif"]),
        (["a.png", "a.png.tif", "a.tif"], ["a.png", "a.png.tif", "a.tif"]),
        (["a.tif@3", "a_t003.tif"], ["a.tif", "a_t003.tif"]),
        (["../x.tif", "/y.tif"], ["__/x", "y"]),
        (["a.tif/x.png", "a.png"], ["a.tif_/x", "a"]),
        (["plate.zarr/A/1/0"], ["plate.zarr_/A/1/0"]),
        (["a%FFb.tif"], [r"a\xffb"]),
        ([".hidden"], [".hidden"]),
    ],
)
def test_no_two_images_share_a_name_and_none_leaves_the_folder(
    images: list[str], expected: list[str], tmp_path: Path
) -> None:
    """Whatever folders people have, a file is written once, and below DIR."""
    assert names_of(tmp_path, *images) == expected


def test_long_names_are_cut_and_told_apart(tmp_path: Path) -> None:
    """A name of 250 bytes has no room for what is put behind it."""
    first, second = names_of(tmp_path, f"{'é' * 120}1.tif", f"{'é' * 120}2.tif")
    assert first != second
    assert max(len(os.fsencode(name)) for name in (first, second)) <= 150


def test_what_is_no_longer_so_is_deleted(three: SmallRun, tmp_path: Path) -> None:
    """A label image of an image that has no mask any more would be taken for its result."""
    out = tmp_path / "out"
    exported(three, out, "tiff", "geojson")
    before = sorted(path.name for path in (out / "tiff").iterdir())
    gone = next(three.folder.glob("*.tif"))
    gone.write_bytes(b"no picture")
    os.utime(gone, ns=(1, gone.stat().st_mtime_ns + 10**9))
    three.segment()
    again = exported(three, out, "tiff", "geojson")
    assert again.without_mask == 1
    assert (again.images, again.formats["tiff"].removed, again.formats["geojson"].removed) == (2, 1, 1)
    assert len(list((out / "tiff").iterdir())) == len(before) - 1


def test_a_mask_whose_file_is_gone_or_damaged_is_told_and_not_taken_for_an_empty_one(
    three: SmallRun, tmp_path: Path
) -> None:
    """An empty label image where the table has nuclei is a wrong result."""
    shard = next(path for path in three.masks() if path.stat().st_size)
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(DamageError, match="its mask is empty, but the table has"):
        exported(three, tmp_path / "one", "tiff")
    shard.write_bytes(
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 255]) + content[len(content) // 2 + 1 :]
    )
    with pytest.raises(DamageError, match=r"\.tif: its mask"):
        exported(three, tmp_path / "two", "tiff")


def test_tables_that_are_cut_are_told_and_finish_writes_them_anew(three: SmallRun, tmp_path: Path) -> None:
    """Damage is not a bug of the program, and there is a command that mends it."""
    from nucseg_batch.executors import finishing, job
    from nucseg_batch.executors.progress import ProgressCounter

    table = three.store.with_suffix(".nuclei.csv")
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamageError, match=r"nuclei\.csv|table of nuclei"):
        exported(three, tmp_path / "out", "geojson")
    planned = job.planned(three.store)
    finishing.finish(planned, ProgressCounter(three.notes, planned.journal), rewrite=True)
    assert table.read_bytes() == whole
    (three.store.with_suffix(".images.csv")).write_bytes(b"\xff\xfe\x00" * 99)
    with pytest.raises(DamageError, match=r"images\.csv"):
        exported(three, tmp_path / "out", "geojson")


def test_the_settings_that_made_a_mask_are_said_with_it(three: SmallRun) -> None:
    """Two runs that differ in nothing but the threshold must be told apart by what was exported of them."""
    with FinishedRun(three.store) as run:
        about = origin(run)
    assert '"threshold": 0.5' in about["settings"]
    assert '"diameter": 26.0' in about["settings"]
