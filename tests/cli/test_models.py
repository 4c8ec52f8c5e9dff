"""Models that a user keeps: found by name from anywhere, refused where they could not be used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, run
from skimage.io import imread

import nucseg_batch
import nucseg_batch.errors
from nucseg_batch.executors.existing import default_model
from nucseg_batch.executors.kept_models import kept_model, kept_models, models_folder
from nucseg_batch.network.architectures import build
from nucseg_batch.network.model_file import Model, ModelInfo, save_model

INFO = ModelInfo("default", (2, 3), diameter=31.5, threshold=0.45, min_area=7, card={"seed": 1, "command": "train a b"})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "small.keras"
    save_model(Model(build(INFO.network, normalise=True), INFO), path)
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of models of this test, which does not exist yet."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "nucseg-batch" / "models"


def test_a_model_that_was_added_is_found_by_its_name(small: Path, folder: Path, one_image: Path) -> None:
    """By every command that takes --model, from any folder; the copy is the file to the last byte."""
    assert "--model tiny" in call("models", "add", small, "--name", "tiny").stdout
    kept = folder / "tiny.keras"
    assert kept.read_bytes() == small.read_bytes()
    for name in ("tiny", "tiny.keras"):
        call("plan", one_image, f"{name}.zarr", "--model", name)
        assert tomllib.loads(Path(f"{name}.run/config.toml").read_text())["segment"]["model"] == str(kept)


def test_a_file_goes_before_a_name_and_the_default_is_always_the_one_that_ships(small: Path, folder: Path) -> None:
    """A kept model never changes what a command meant before."""
    call("models", "add", small, "--name", "tiny")
    shutil.copy(default_model(), "tiny.keras")
    shown = json.loads(call("models", "show", "tiny.keras", "--json", "-q").stdout)
    assert shown["path"] == "tiny.keras"
    shutil.copy(small, folder / "default.keras")
    assert json.loads(call("models", "show", "default", "--json", "-q").stdout)["path"] == str(default_model())


def test_the_list_has_all_models_and_says_which_cannot_be_used(small: Path, folder: Path) -> None:
    """One damaged file does not hide the others."""
    call("models", "add", small)
    (folder / "cut.keras").write_bytes(small.read_bytes()[:1000])
    (folder / "notes.txt").touch()
    told = call("models", "list", "--json")
    listed = json.loads(told.stdout)
    assert listed["folder"] == str(folder)
    assert [one["name"] for one in listed["models"]] == ["default", "cut", "small"]
    assert "not a readable .keras file" in listed["models"][1]["error"]
    assert listed["models"][2]["diameter"] == 31.5
    assert "cannot be used" in told.stderr


def test_the_list_fits_80_columns_and_cuts_no_name(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is cut cannot be copied to --model."""
    monkeypatch.setenv("COLUMNS", "80")
    name = "confocal-hoechst-63x-oil-fixed-2026-11-retrained-with-mitoses"
    call("models", "add", small, "--name", name)
    told = call("models", "list").stdout.splitlines()
    assert name in told
    assert max(len(line) for line in told if not line.startswith("kept in ")) <= 80


def test_a_model_shows_how_it_is_used_and_how_it_was_made(small: Path) -> None:
    """With the same names in JSON and for people."""
    shown = json.loads(call("models", "show", small, "--json", "-q").stdout)
    assert (shown["threshold"], shown["min_area"], shown["widths"], shown["sized"]) == (0.45, 7, [2, 3], False)
    assert shown["card"] == INFO.card
    told = call("models", "show", small).stdout
    assert "threshold: 0.45" in told
    assert "command: train a b" in told


def test_another_model_of_a_name_is_kept_until_it_is_replaced_on_purpose(small: Path, folder: Path) -> None:
    """Runs that began with it could not be resumed."""
    call("models", "add", small, "--name", "a")
    call("models", "add", small, "--name", "a")
    refused = call("models", "add", default_model(), "--name", "a", code=73)
    assert "--overwrite" in refused.stderr
    assert (folder / "a.keras").read_bytes() == small.read_bytes()
    call("models", "add", default_model(), "--name", "a", "--overwrite")
    assert (folder / "a.keras").read_bytes() == default_model().read_bytes()
    assert [path.name for path in folder.iterdir()] == ["a.keras"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("add", "no.keras"), 66, "MODEL no.keras: there is no such file"),
        (("add", "cut.keras"), 78, "MODEL cut.keras: it is not a readable .keras file"),
        (("show", "cut.keras"), 78, "MODEL cut.keras: it is not a readable .keras file"),
        (("add", "good.keras", "--name", "../x"), 2, "use letters, digits"),
        (("add", "good.keras", "--name", "default"), 2, "another word than `default`"),
        (("add",), 2, "models add mine.keras"),
        (("show",), 2, "models show mine.keras"),
        (("show", "tiny"), 66, "`nucseg-batch models list`"),
        (("show", "good.keras", "--name", "x"), 2, "--name belongs to `models add`"),
        (("list", "good"), 2, "`models show good` shows one"),
        (("lst",), 2, "did you mean 'list'?"),
    ],
)
def test_wrong_calls_keep_nothing_and_say_what_to_do(
    small: Path, folder: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    shutil.copy(small, "good.keras")
    Path("cut.keras").write_bytes(small.read_bytes()[:1000])
    assert words in call("models", *arguments, code=code).stderr
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_told(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to set; names are then simply not known."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert "set XDG_DATA_HOME" in call("models", "add", small, code=73).stderr
    assert kept_models() == {}
    assert kept_model("small") is None


def test_the_folder_is_that_of_the_xdg_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative XDG_DATA_HOME is to be ignored, it says."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/data"):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert models_folder() == tmp_path / ".local/share/nucseg-batch/models"


def test_segment_uses_a_kept_model(small: Path, one_image: Path, tmp_path: Path) -> None:
    """In a process of its own: the same masks and provenance as with the file."""
    call("models", "add", small, "--name", "tiny")
    for out, model in (("a", "tiny"), ("b", small)):
        run("segment", one_image, tmp_path / f"{out}.zarr", "--model", model, "--diameter", "20")
    first, second = (json.loads((tmp_path / f"{out}.provenance.json").read_text()) for out in "ab")
    assert first["model"]["sha256"] == second["model"]["sha256"]
    rows = [(tmp_path / f"{out}.nuclei.csv").read_bytes() for out in "ab"]
    assert rows[0] == rows[1]


def test_python_knows_the_names_of_the_command(small: Path, one_image: Path, tmp_path: Path) -> None:
    """`segment`, `segment_array` and `Predictor` take a kept model, `default` and files alike."""
    call("models", "add", small, "--name", "tiny")
    options: dict[str, Any] = {"device": "cpu", "precision": "float32"}
    pixels = imread(one_image / "small8.png")
    labels = {}
    for model in ("tiny", small, "default", None):
        labels[model] = nucseg_batch.Predictor(model, **options).predict(pixels, diameter=20)
        lazy = nucseg_batch.segment_array(pixels, model=model, diameter=20, dense=True, **options)
        assert np.array_equal(lazy.compute(scheduler="synchronous"), labels[model])
    assert np.array_equal(labels["tiny"], labels[small])
    assert np.array_equal(labels["default"], labels[None])
    assert not np.array_equal(labels["tiny"], labels[None])
    done = nucseg_batch.segment(one_image, tmp_path / "a.zarr", model="tiny", diameter=20, **options)
    assert np.array_equal(nucseg_batch.open_masks(done.store)["small8.png"], labels["tiny"])


@pytest.mark.parametrize("use", ["Predictor", "segment", "segment_array"])
def test_python_says_which_name_is_near(small: Path, one_image: Path, use: str) -> None:
    """The argument is called `model` there, without dashes."""
    call("models", "add", small, "--name", "confocal")
    arguments: dict[str, tuple[object, ...]] = {
        "Predictor": (),
        "segment": (one_image, "out.zarr"),
        "segment_array": (np.zeros((64, 64), np.uint8),),
    }
    with pytest.raises(nucseg_batch.errors.InputMissingError, match=r"^model confocl: .*did you mean 'confocal'"):
        getattr(nucseg_batch, use)(*arguments[use], model="confocl")


def test_listing_and_showing_do_not_load_keras() -> None:
    """They answer at once, also on a login node."""
    program = (
        "import sys\n"
        "from nucseg_batch.cli.main import main\n"
        "for words in (['models', 'list'], ['models', 'show', 'default']):\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit as end:\n"
        "        assert not end.code\n"
        "loaded = {'keras', 'tensorflow'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True)
