"""`segment --dry-run` says what `segment` would end with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import call
from faults.harness import ordinary_rights
from zarr_examples import numbers, write_image

from nucseg_batch.cli.main import main


def dry(*arguments: object) -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["segment", *map(str, arguments), "--dry-run"])
    return int(ended.value.code or 0)


def stack(path: Path, axes: str = "CYX", names: tuple[str, ...] = ("GFP", "DAPI")) -> Path:
    path.parent.mkdir(exist_ok=True)
    shape = tuple({"C": len(names), "T": 2, "Z": 3, "Y": 31, "X": 37}[axis] for axis in axes)
    channel = {"Name": list(names)}
    tifffile.imwrite(path, np.zeros(shape, np.uint8), ome=True, metadata={"axes": axes, "Channel": channel})
    return path


def test_it_names_the_channel_and_ends_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The choice is the first thing to check before a night's run."""
    stack(tmp_path / "in" / "a.ome.tif")
    tifffile.imwrite(tmp_path / "in" / "b.tif", np.zeros((31, 37), np.uint8))
    assert dry(tmp_path / "in", tmp_path / "out.zarr") == 0
    assert "nuclei in channel DAPI (1 image), the only channel (1 image)" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["in"]


def test_images_that_would_be_refused_are_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `segment` and `inspect` end; a script can ask before it starts a job."""
    stack(tmp_path / "in" / "a.ome.tif")
    stack(tmp_path / "in" / "b.ome.tif", names=("GFP", "RFP"))
    assert dry(tmp_path / "in", tmp_path / "out.zarr") == 3
    assert "b.ome.tif" in capsys.readouterr().out


def test_new_images_would_be_added_and_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To a run that was planned; a plan in shares is planned again without saying how many."""
    stack(tmp_path / "in" / "a.ome.tif")
    places = (tmp_path / "in", tmp_path / "out.zarr")
    call("plan", *places, "--shares", 3)
    stack(tmp_path / "in" / "b.ome.tif")
    capsys.readouterr()
    assert dry(*places) == 0
    assert "1 image (b.ome.tif): new; would be added to the run" in capsys.readouterr().err
    assert not (tmp_path / "out.run" / "plan-000001.json").exists()
    assert "--new refuse: 1 image (b.ome.tif): new" in call("plan", *places, "--new", "refuse", code=78).stderr
    added = call("plan", *places)
    assert "1 image (b.ome.tif): new; added to the run" in added.stderr
    assert "For each K, 0 to 2" in added.stdout
    assert "was planned for 3 shares, not 1" in call("plan", *places, "--shares", 1, code=78).stderr


def test_an_output_that_cannot_be_made_is_exit_code_73(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before headers of a million images are read."""
    stack(tmp_path / "in" / "a.ome.tif")
    (tmp_path / "file").write_text("x")
    assert dry(tmp_path / "in", tmp_path / "file" / "out.zarr") == 73
    assert "Not a directory" in capsys.readouterr().err
    (tmp_path / "closed").mkdir(mode=0o555)
    with ordinary_rights():
        assert dry(tmp_path / "in", tmp_path / "closed" / "a" / "out.zarr") == 73
    assert "Permission denied" in capsys.readouterr().err


def test_an_output_on_a_file_system_that_keeps_nothing_is_exit_code_73(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also for root, who seems to have access there."""
    stack(tmp_path / "in" / "a.ome.tif")
    assert dry(tmp_path / "in", "/proc/x.zarr") == 73
    assert "cannot write in /proc" in capsys.readouterr().err


def test_in_place_needs_a_place_for_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are written beside the store."""
    store = tmp_path / "closed" / "image.zarr"
    store.parent.mkdir()
    write_image(store, numbers(31, 37), "yx")
    store.parent.chmod(0o555)
    with ordinary_rights():
        assert dry(store, "--in-place") == 73
    assert f"cannot write in {store.parent} (Permission denied)" in capsys.readouterr().err


def test_pixels_that_cannot_be_stored_cost_only_their_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One stack of five axes must not end the run of a folder; alone it is a usage error."""
    stack(tmp_path / "in" / "a.ome.tif")
    five = stack(tmp_path / "in" / "five.ome.tif", "TCZYX")
    assert dry(tmp_path / "in", tmp_path / "out.zarr", "--with-images") == 3
    assert "--z max" in " ".join(capsys.readouterr().out.split())
    assert dry(five, tmp_path / "out.zarr", "--with-images") == 2
    assert dry(tmp_path / "in", tmp_path / "out.zarr", "--with-images", "--z", "max") == 0
