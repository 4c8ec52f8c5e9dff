"""`--config run.toml`: what it says counts, and what nobody understands is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from command import Output, call, contents

from nucseg_batch.api.segment import settings_of
from nucseg_batch.cli.config import COMMAND_LINE_ONLY, keys_of, read_config
from nucseg_batch.cli.main import parser
from nucseg_batch.cli.train import used_config
from nucseg_batch.files.toml import to_toml
from nucseg_batch.settings import SegmentSettings


def written(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def planned(store: Path) -> dict[str, Any]:
    """What the run at a store was planned with."""
    found: dict[str, Any] = tomllib.loads(store.with_suffix(".run").joinpath("config.toml").read_text())["segment"]
    return found


def test_the_configuration_that_a_run_leaves_does_the_same_again(segmented: Output, tmp_path: Path) -> None:
    """To the last bit, from any folder, with only another OUT said."""
    config = segmented.store.with_suffix(".run") / "config.toml"
    call("segment", tmp_path / "again.zarr", "--config", config)
    assert contents(tmp_path / "again.zarr") == contents(segmented.store)
    assert (tmp_path / "again.run" / "config.toml").read_bytes() == config.read_bytes()


def test_the_command_line_goes_before_the_file_and_this_before_defaults(one_image: Path, tmp_path: Path) -> None:
    """IN and OUT may stand in it, and names have dashes or underscores."""
    store = tmp_path / "out.zarr"
    config = written(
        tmp_path,
        f'[segment]\nin = "{one_image}"\nout = "{store}"\nmin_area = 7\nthreshold = 0.4\npixel-size = 1\nchannel = 0\n',
    )
    call("plan", "--config", config, "--threshold", 0.6)
    settings = planned(store)
    assert (settings["in"], settings["min-area"], settings["threshold"]) == (str(one_image), 7, 0.6)
    assert (settings["pixel-size"], settings["channel"], settings["region"]) == (1.0, "0", 3072)


def test_commands_that_look_or_plan_take_the_options_of_segment_and_their_own_go_before(
    one_image: Path, tmp_path: Path
) -> None:
    """One file for a whole workflow; what deletes is never taken over."""
    store = tmp_path / "out.zarr"
    config = written(
        tmp_path,
        f'[segment]\nin = "{one_image}"\nout = "{store}"\nmin-area = 7\nthreshold = 0.4\noverwrite = true\n'
        "[plan]\nthreshold = 0.3\nshares = 3\n",
    )
    told = json.loads(call("plan", "--config", config, "--json").stdout)
    assert told["shares"] == 3
    assert (planned(store)["threshold"], planned(store)["min-area"]) == (0.3, 7)
    assert json.loads(call("inspect", "--config", config, "--json").stdout)["images"] == 1
    call("plan", "--config", config)  # with overwrite it would begin anew, and say nothing of the other shares
    refused = call("plan", "--config", config, "--shares", 4, code=78)
    assert "planned for 3 shares" in refused.stderr


def test_a_planned_run_goes_on_with_its_own_file_and_refuses_another(one_image: Path, tmp_path: Path) -> None:
    """The same file serves `plan` and `segment --run`; one that says otherwise is not passed over in silence."""
    store = tmp_path / "out.zarr"
    text = f'[segment]\nin = "{one_image}"\nout = "{store}"\nthreshold = 0.4\ngrace = 3\n'
    config = written(tmp_path, text)
    call("plan", "--config", config)
    call("segment", "--run", store, "--config", config, "--dry-run")
    other = written(tmp_path, text.replace("0.4", "0.5"))
    refused = call("segment", "--run", store, "--config", other, "--dry-run", code=78)
    assert "run.toml, line 4: --threshold is 0.5" in refused.stderr
    assert "planned with 0.4" in refused.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[segment]\n\ndiamter = 3\n", "line 3: unknown option 'diamter' in [segment]; did you mean 'diameter'?"),
        ("[segmnt]\ndiameter = 3\n", "no command for [segmnt]; did you mean 'segment'?"),
        ("diameter = 3\n", "line 1: diameter stands outside of any table"),
        ('[segment]\ndiameter = "wide"\n', "line 2: diameter must be a number, but is 'wide'"),
        ("[segment]\nmin-area = 2.5\n", "line 2: min-area must be a whole number, but is 2.5"),
        ("[segment]\nin-place = 1\n", "line 2: in-place must be true or false, but is 1"),
        ("[segment]\nmin-area = true\n", "line 2: min-area must be a whole number, but is true"),
        ("[segment]\npattern = [1]\n", "line 2: pattern must be a text, but is [1]"),
        ("[segment]\njob-option = [1]\n", "line 2: job-option must be a list of texts, but is [1]"),
        ('[segment]\ndevice = "gpuu"\n', "line 2: device must be one of auto, cpu, gpu, but is 'gpuu'; did you mean"),
        ("[segment]\nthreshold = 5\n", "run.toml, line 2: --threshold must be between 0 and 1"),
        ("[segment]\nprocesses = 0\n", "run.toml, line 2: --processes must be 1 or more"),
        ("[segment]\nmin_area = 3\nmin-area = 4\n", "line 3: min-area is given twice in [segment]"),
        ("[segment]\nquiet = true\n", "line 2: quiet can only be given on the command line, as --quiet"),
        ("[segment\n", "it is not valid TOML: "),
    ],
    ids=lambda text: text.replace("\n", " ").strip()[:40],
)
def test_what_cannot_be_meant_is_refused_with_its_line(one_image: Path, tmp_path: Path, text: str, told: str) -> None:
    """A typing error that were passed over would cost a night with the wrong settings."""
    config = written(tmp_path, text)
    refused = call("segment", one_image, tmp_path / "out.zarr", "--config", config, "--dry-run", code=2)
    assert told in refused.stderr
    assert "run.toml" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_what_has_commas_may_be_a_list(one_image: Path, tmp_path: Path) -> None:
    """As lists are written in TOML; other texts take none."""
    config = written(tmp_path, '[segment]\nmeasure = ["shape", "texture"]\nring = [1, 5.5]\n')
    store = tmp_path / "out.zarr"
    call("plan", one_image, store, "--config", config)
    assert (planned(store)["measure"], planned(store)["ring"]) == ("shape,texture", "1,5.5")
    again = written(tmp_path, '[segment]\nmeasure = "texture,shape"\nring = ["1", "5.5"]\nneighbour-radius = 3\n')
    call("segment", "--run", store, "--config", again, "--dry-run")
    assert settings_of({"measure": ["shape", "texture"], "controls": ("A01", "A02"), "ring": "1,2"}) == SegmentSettings(
        measure="shape,texture", controls="A01,A02", ring="1,2"
    )
    other = written(tmp_path, '[segment]\nmeasure = ["shape", "textur"]\n')
    refused = call("segment", one_image, store, "--config", other, "--dry-run", code=2)
    assert "run.toml, line 2: --measure must be some of" in refused.stderr
    assert "did you mean 'texture'" in refused.stderr


def test_a_file_that_is_not_there_or_no_text_is_told(one_image: Path, tmp_path: Path) -> None:
    """66 and 2, as for any input."""
    assert "give a TOML file" in call("segment", one_image, "o.zarr", "--config", tmp_path / "no.toml", code=66).stderr
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in call("segment", one_image, "o.zarr", "--config", tmp_path / "run.toml", code=2).stderr
    assert "twice" in call("segment", "--config", "a.toml", "--config=b.toml", code=2).stderr


@pytest.mark.parametrize("name", parser().commands)
def test_every_option_of_every_command_can_be_said(name: str) -> None:
    """But for those that are about one call."""
    command = parser().commands[name]
    reachable = {parameter.name for parameter in keys_of(command).values()}
    assert {one.name for one in command.params} - reachable == COMMAND_LINE_ONLY - {"help", "version"}


def test_written_toml_is_read_back_as_it_was() -> None:
    """All kinds of values, and characters that TOML wants escaped."""
    table = {"a": 'q"\\\n\t\x00\x7f ü', "b": True, "c": False, "d": 7, "e": 1e-05, "f": 0.1, "g": ["x", "y z"], "h": -3}
    assert tomllib.loads(to_toml({"one": table, "two": {}}, ["said"])) == {"one": table, "two": {}}
    assert tomllib.loads(to_toml({"one": {"gone": None, "name": "\udcff.tif"}})) == {"one": {}}


def test_a_training_leaves_a_file_that_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places in it are found from any folder; DATA and MODEL are given anew. No network is needed to see that."""
    (tmp_path / "start.keras").touch()
    monkeypatch.chdir(tmp_path)
    command = parser().commands["train"]
    said = ["data", "new.keras", "--init", "start.keras", "--epochs", "3", "--device", "cpu", "--group", "plate"]
    (tmp_path / "plate").mkdir()  # a column may be called as a folder is
    path = written(tmp_path, used_config(command.make_context("train", said)))
    again = read_config(path, parser().commands).defaults["train"]
    assert (again["init"], again["epochs"], again["device"]) == (str(tmp_path / "start.keras"), 3, "cpu")
    assert again["group"] == "plate"
    assert not again.keys() & {"data", "model", "resume"}
