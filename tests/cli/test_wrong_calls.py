"""Wrong calls, as newcomers make them: one line that says what was asked, what there is, and what to do next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import call

SEGMENT = ("segment", "images", "out.zarr")
CALLS = {
    "command": (("segmnt",), 2, "did you mean 'segment'?"),
    "no such command": (("help",), 2, "commands are segment, inspect"),
    "command before the name of one": (("segmnt", "segment"), 2, "did you mean 'segment'?"),
    "value for a flag": ((*SEGMENT, "--strict=yes"), 2, "--strict takes no value; leave =yes away"),
    "no IN": (("segment",), 2, "as in `nucseg-batch segment images/ out.zarr`"),
    "no IN to look at": (("inspect",), 2, "IN is missing: give a folder, file"),
    "no OUT": (("segment", "images"), 2, "such as out.zarr"),
    "OUT without ending": (("segment", "images", "masks"), 2, "such as masks.zarr"),
    "empty IN": (("segment", "", "out.zarr"), 2, "IN is missing: give a folder, file"),
    "IN that is not there": (
        ("segment", "imges", "out.zarr"),
        66,
        "nucseg-batch: imges: there is no such file or folder; did you mean 'images'?",
    ),
    "glob without images": (("segment", "*.png", "out.zarr"), 65, "** in the pattern also matches folders"),
    "unquoted glob": (("segment", "a.tif", "b.tif", "out.zarr"), 2, "quote a glob"),
    "option": ((*SEGMENT, "--treshold", "0.5"), 2, "did you mean --threshold?"),
    "short option": ((*SEGMENT, "-x"), 2, "`nucseg-batch segment --help`"),
    "no value": ((*SEGMENT, "--diameter"), 2, "--diameter needs a value: --diameter PX"),
    "text for a number": ((*SEGMENT, "--diameter", "wide"), 2, "must be a number, but is 'wide'"),
    "fraction for a count": ((*SEGMENT, "--region", "100.5"), 2, "must be a whole number, but is '100.5'"),
    "too small": (("plan", "images", "out.zarr", "--shares=0"), 2, "must be 1 or more, but is '0'"),
    "too large": (("plan", "images", "out.zarr", "--shares=100001"), 2, "must be 100000 at most, but is '100001'"),
    "not a share": ((*SEGMENT, "--threshold", "5"), 2, "--threshold must be between 0 and 1, but is 5.0"),
    "not an area": ((*SEGMENT, "--min-area", "-1"), 2, "--min-area must be 0 or more pixels, but is -1"),
    "choice": ((*SEGMENT, "--cluster", "slrum"), 2, "did you mean 'slurm'?"),
    "processes of a watch": ((*SEGMENT, "--watch", "1", "--processes", "2"), 2, "works in one process"),
    "far choice": ((*SEGMENT, "--device", "tpu"), 2, "must be one of auto, cpu, gpu, but is 'tpu'"),
    "architecture": (("train", "images", "m.keras", "--architecture", "unett"), 2, "did you mean 'unet'?"),
    "model": ((*SEGMENT, "--model", "mine.kers"), 66, "did you mean 'mine.keras'?"),
    "model in a folder": ((*SEGMENT, "--model", "."), 66, "give the model file in it"),
    "no such model": ((*SEGMENT, "--model", "other/x.keras"), 66, "`default` is the one that ships"),
    "name of the default": ((*SEGMENT, "--model", "defalt"), 66, "did you mean 'default'?"),
    "model to start from": (("train", "images", "m.keras", "--init", "mine.kera"), 66, "did you mean 'mine.keras'?"),
    "model without ending": (("train", "images", "mine"), 2, "such as mine.keras"),
    "channel": ((*SEGMENT, "--channel", "DAPPI"), 65, "Did you mean 'DAPI'?"),
    "share beyond the last": (("verify", "old.zarr", "--share", "30/30"), 2, "counted from 0 and below N"),
    "count for a percentage": (("verify", "old.zarr", "--sample", "2"), 2, "at most 100%, such as 2%, but is 2"),
    "nothing of all": (("verify", "old.zarr", "--sample", "0%"), 2, "above 0% and at most 100%"),
    "sample of more than all": (("verify", "old.zarr", "--sample", "101%"), 2, "above 0% and at most 100%"),
    "months": (("verify", "old.zarr", "--since", "1m"), 2, "such as 12h, 30d or 2w, but is 1m"),
    "no such day": (("verify", "old.zarr", "--since", "2026-02-30"), 2, "must be a date or time in the past"),
    "time to come": (("verify", "old.zarr", "--since", "9000-01-01"), 2, "must be a date or time in the past"),
    "run that is not there": (("status", "od.zarr"), 66, "did you mean 'old.zarr'?"),
    "no run in this folder": (("status", "."), 66, "no run was planned there"),
    "OUT in a folder that is no folder": (
        ("segment", "images", "mine.keras/out.zarr"),
        73,
        "nucseg-batch: mine.keras/out",
    ),
    "no run": (("status", "plate7.zarr"), 66, "begin one with `nucseg-batch segment IN OUT.zarr`"),
    "table to report": (("report", "old.images.csv"), 66, "this belongs to a run; give its store, old.zarr."),
    "run folder": (("status", "old.run"), 66, "give its store, old.zarr."),
    "provenance": (("cite", "old.provenance.json"), 66, "give its store, old.zarr."),
    "table of no run": (("report", "other.images.csv"), 66, "Give the OUT.zarr of a run that is finished"),
    "prediction": (("evaluate", "imags", "images"), 66, "did you mean 'images'?"),
    "share without count": ((*SEGMENT, "--share", "3"), 2, "such as 7/64"),
    "time points": ((*SEGMENT, "--t", "abc"), 2, "--t must be an index such as 3, or a range such as 0:10"),
    "more than all": ((*SEGMENT, "--max-failures", "200%"), 2, "100% or less"),
    "tables of no share": ((*SEGMENT, "--no-finish"), 2, "add --share, or leave it out"),
    "two axes to link": ((*SEGMENT, "--link", "z", "--link", "t"), 2, "--link is z and t: a run links nuclei over"),
    "two axes, written otherwise": (("plan", "images", "out.zarr", "--link=t", "--link=z"), 2, "use two OUTs."),
    "two channels": ((*SEGMENT, "--channel", "DAPI", "--channel=GFP"), 2, "a run segments one channel"),
    "two patterns": (("export", "old.zarr", "to", "--pattern", "a*", "--pattern", "b*"), 2, "a call takes one pattern"),
    "words of a list": ((*SEGMENT, "--measure", "shape", "--measure", "edge"), 2, "--measure shape,edge."),
    "two ways": ((*SEGMENT, "--fail-fast", "--max-failures", "3"), 2, "give one"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "images").mkdir()
    channels = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "images" / "a.ome.tif", np.zeros((2, 31, 37), np.uint8), ome=True, metadata=channels)
    (tmp_path / "mine.keras").touch()
    (tmp_path / "old.zarr").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_is_told_what_to_do_next(name: str) -> None:
    """In one line, with the exit code of its kind, and nothing on standard output."""
    arguments, code, told = CALLS[name]
    failed = call(*arguments, code=code)
    assert told in failed.stderr
    assert failed.stdout == ""
    assert len(failed.stderr.splitlines()) == 1
    assert failed.stderr.startswith("nucseg-batch: ")


@pytest.mark.usefixtures("place")
def test_an_option_may_be_repeated_if_only_one_value_can_be_meant() -> None:
    """A script puts its own options before those of its caller, and the last value counts."""
    call("plan", "images", "out.zarr", "--diameter", "20", "--diameter", "30", "--channel", "DAPI", "--channel=DAPI")
    assert "diameter = 30.0" in Path("out.run", "config.toml").read_text()


@pytest.mark.usefixtures("place")
def test_the_model_that_ships_has_a_name() -> None:
    """So that a script, or a file of --config, can say it; a file of that name goes before."""
    call("plan", "images", "ships.zarr", "--model", "default")
    assert 'model = "default"' in Path("ships.run", "config.toml").read_text()
    Path("default").write_text("no model")
    call("plan", "images", "own.zarr", "--model", "default")
    assert f'model = "{Path("default").absolute()}"' in Path("own.run", "config.toml").read_text()
