from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nucseg_batch.errors import InputMissingError, ModelError
from nucseg_batch.network.architectures import RECIPES, build, build_sizer, network_spec
from nucseg_batch.network.model_file import LAYERS, Model, ModelInfo, load_model, save_model
from nucseg_batch.settings import Architecture, Task

INFO = ModelInfo("default", (2, 3), diameter=31.5, threshold=0.45, min_area=7, card={"seed": 1})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "m.keras"
    save_model(Model(build(INFO.network, normalise=True), INFO), path)
    return path


@pytest.fixture
def saved(made: Path, tmp_path: Path) -> Path:
    """A model file that may be damaged."""
    return shutil.copy(made, tmp_path / "m.keras")


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_model_comes_back_with_weights_and_all_that_prediction_needs(saved: Path) -> None:
    """A model file is complete: thresholds tuned for it travel with it."""
    model = load_model(saved)
    assert model.info == INFO
    again = load_model(shutil.copy(saved, saved.with_name("n.keras")))
    for first, second in zip(model.network.get_weights(), again.network.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("architecture", "widths", "task"),
    [
        ("default", (2, 3), "semantic"),
        ("unet", (2, 3), "instances"),
        ("mobilenetv2", (2, 3, 4, 5), "instances"),
        ("mobilenetv3", (2, 3, 4, 5), "semantic"),
        ("efficientnetlite0", (2, 3, 4), "instances"),
    ],
)
def test_every_architecture_answers_the_same_after_saving_and_loading(
    tmp_path: Path, architecture: Architecture, widths: tuple[int, ...], task: Task
) -> None:
    """To the last bit: weights find their layers in a process that has built other networks before."""
    info = ModelInfo(architecture, widths, task)
    network = build(info.network, normalise=True)
    save_model(Model(network, info), tmp_path / "m.keras")
    build(info.network, normalise=True)
    model = load_model(tmp_path / "m.keras")
    assert model.info == info
    image = np.random.default_rng(3).random((1, 32, 96, 3), np.float32)
    np.testing.assert_array_equal(model.network(image, training=False), network(image, training=False))


def test_a_size_network_travels_with_the_model(tmp_path: Path) -> None:
    """One file is all that a user passes on; files without one, as those of older versions, are as good."""
    sizer = build_sizer(normalise=True)
    save_model(Model(build(INFO.network, normalise=True), INFO, sizer), tmp_path / "m.keras")
    model = load_model(tmp_path / "m.keras")
    assert model.info == dataclasses.replace(INFO, sized=True)
    assert model.sizer is not None
    image = np.random.default_rng(3).random((1, 64, 96, 3), np.float32)
    np.testing.assert_array_equal(model.sizer(image, training=False), sizer(image, training=False))
    with pytest.raises(ModelError, match="weights cannot be read"):
        load_model(record_changed(tmp_path / "m.keras", sized=False))
    with pytest.raises(ModelError, match="intensities 'logarithms'"):
        load_model(record_changed(tmp_path / "m.keras", sized=True, intensities="logarithms"))


def test_models_of_format_2_are_read_as_what_they_were(saved: Path) -> None:
    """They know neither a rule for intensities nor a size network, and were trained on percentiles."""
    info = load_model(record_changed(saved, format=2, intensities=None, sized=None)).info
    assert (info.intensities, info.sized) == ("percentiles", False)


def test_the_layers_that_files_may_hold_are_those_that_networks_have() -> None:
    """None of ours is refused, and nothing is allowed that we do not need."""
    specs = [network_spec(architecture, "instances") for architecture in RECIPES]
    used = {type(layer).__name__ for spec in specs for layer in build(spec, normalise=True).layers}
    assert used == LAYERS


def record_changed(path: Path, **fields: object) -> Path:
    def change(members: dict[str, bytes]) -> None:
        record = {**json.loads(members["nucseg.json"]), **fields}
        members["nucseg.json"] = json.dumps({k: v for k, v in record.items() if v is not None}).encode()

    return rewritten(path, change)


@pytest.mark.parametrize(
    ("card", "diameter"), [({"seed": 1}, 22.0), ({"settings": {"diameter": 26.0}}, 26.0)], ids=["silent", "said"]
)
def test_models_of_the_first_format_are_read(saved: Path, card: dict[str, object], diameter: float) -> None:
    """They know only the default network, and say their nuclei's width in the card if at all."""
    record_changed(saved, format=1, architecture=None, task=None, diameter=None, card=card)
    assert load_model(saved).info == dataclasses.replace(INFO, card=card, diameter=diameter)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": 4},
        {"architecture": "resnet"},
        {"architecture": ["unet"]},
        {"task": "panoptic"},
        {"widths": [2]},
        {"widths": [2, 10**9]},
        {"widths": None},
        {"diameter": 0},
        {"diameter": "wide"},
        {"card": 5, "format": 1, "architecture": None, "task": None, "diameter": None},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_record_that_says_nothing_sensible_is_refused(saved: Path, fields: dict[str, object]) -> None:
    """A file of a later version, or one whose record was edited by hand: 78, in our own words."""
    record_changed(saved, **fields)
    with pytest.raises(ModelError, match=r"another version|not complete"):
        load_model(saved)


def test_weights_of_another_shape_than_the_record_says_are_refused(saved: Path) -> None:
    """Record and weights must belong together."""
    record_changed(saved, widths=[2, 4])
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(saved)


def test_saving_leaves_no_temporary_file(made: Path) -> None:
    """The folder of a model holds the model."""
    assert [path.name for path in made.parent.iterdir()] == ["m.keras"]


def test_a_missing_model_is_told_apart_from_a_bad_one(tmp_path: Path) -> None:
    """66 and 78: a typing error, and a file that is no model."""
    with pytest.raises(InputMissingError) as caught:
        load_model(tmp_path / "nowhere.keras")
    assert caught.value.exit_code == 66


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("a model")


@pytest.mark.parametrize("damage", [cut, flip, empty, text], ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_refused_in_our_own_words(saved: Path, damage: Callable[[Path], None]) -> None:
    """Keras says "File not found" of a file that is there."""
    damage(saved)
    with pytest.raises(ModelError) as caught:
        load_model(saved)
    assert str(saved) in str(caught.value)
    assert "not found" not in str(caught.value).lower()


def test_a_keras_file_of_another_program_is_refused(saved: Path) -> None:
    """Without our record nobody knows what its outputs mean."""
    rewritten(saved, lambda members: members.pop("nucseg.json"))
    with pytest.raises(ModelError, match="nucseg-batch train"):
        load_model(saved)


def test_a_file_with_foreign_members_is_refused(saved: Path) -> None:
    """Nothing is ever unpacked to a path that the file chooses."""
    rewritten(saved, lambda members: members.update({"../../evil.txt": b"x"}))
    with pytest.raises(ModelError, match="evil"):
        load_model(saved)
    assert not (saved.parents[1] / "evil.txt").exists()


@pytest.mark.parametrize("name", ["Lambda", "TorchModuleWrapper"])
def test_a_layer_that_can_run_code_is_refused_before_keras_sees_it(saved: Path, name: str) -> None:
    """A model from a colleague must not be a program."""

    def change(members: dict[str, bytes]) -> None:
        config = json.loads(members["config.json"])
        config["config"]["layers"][2]["class_name"] = name
        members["config.json"] = json.dumps(config).encode()

    rewritten(saved, change)
    with pytest.raises(ModelError, match=name):
        load_model(saved)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    """They would give empty masks in silence."""
    network = build(INFO.network, normalise=True)
    network.set_weights([np.full_like(w, np.nan) for w in network.get_weights()])
    save_model(Model(network, INFO), tmp_path / "nan.keras")
    with pytest.raises(ModelError, match="not numbers"):
        load_model(tmp_path / "nan.keras")
