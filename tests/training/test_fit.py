from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import imagecodecs
import keras
import numpy as np
import pytest
from heard import Heard
from pictures import annotated_folder, disks, fluorescence

from nucseg_batch.errors import UsageError
from nucseg_batch.files.annotations import find_pairs
from nucseg_batch.network.architectures import build, build_sizer, network_spec
from nucseg_batch.network.model_file import Model, ModelInfo, load_model, save_model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import SegmentSettings
from nucseg_batch.training.callbacks import HISTORY_COLUMNS
from nucseg_batch.training.crops import SHARE_EXPONENT, Crops, drawing_chances, plain_crops
from nucseg_batch.training.data import Sample
from nucseg_batch.training.fit import Start, doubts, optimizer, train
from nucseg_batch.training.on_device import CropLearner
from nucseg_batch.training.pictures import save_curves, save_examples
from nucseg_batch.training.settings import TrainSettings
from nucseg_batch.training.targets import centres_and_areas


def field(seed: int, shape: tuple[int, int] = (96, 112)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = disks(shape, [(int(y), int(x)) for y in (18, 52, 80) for x in (20, 60, 95) if rng.random() < 0.7], 10)
    return fluorescence(labels, seed=seed), labels


def test_training_learns_to_find_nuclei_and_writes_a_complete_model(tmp_path: Path) -> None:
    """A small network, a few seconds: the loss falls, and the file segments a picture it has not seen."""
    data = annotated_folder(tmp_path / "data", 12)
    settings = TrainSettings(
        epochs=4,
        steps=40,
        size_steps=3,
        batch_size=8,
        crop=64,
        widths=(8, 12, 16),
        diameter=20.0,
        learning_rate=4e-3,
        precision="float32",
        device="cpu",
    )
    path = tmp_path / "new" / "m.keras"
    heard = Heard()
    info = train(find_pairs(data).pairs, path, settings, command="nucseg-batch train", progress=heard)
    made = ["m.curves.png", "m.examples.png", "m.history.csv", "m.keras"]
    assert sorted(p.name for p in path.parent.iterdir()) == made
    with open(path.with_name("m.history.csv"), newline="") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [set(row) for row in history] == [set(HISTORY_COLUMNS)] * 4
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert [row["epoch"] for row in heard.rows] == [1, 2, 3, 4]
    assert heard.steps == 160

    model = load_model(path)
    assert model.info == info
    assert (info.intensities, info.sized) == ("nuclei", True)
    assert info.card["command"] == "nucseg-batch train"
    assert info.card["data"]["training_images"] == {"unknown": 11}
    assert info.diameter == 20
    assert 0 < info.threshold < 1
    image, truth = field(99)
    found = Predictor(model, SegmentSettings(device="cpu")).predict(image) > 0
    assert (found & (truth > 0)).sum() / (found | (truth > 0)).sum() > 0.6


@pytest.fixture
def sized(tmp_path: Path) -> Path:
    """A small model with a size network, of random weights."""
    spec, path = network_spec("default", "instances", (4, 6)), tmp_path / "start.keras"
    info = ModelInfo(spec.architecture, spec.widths, spec.task, 20.0, sized=True)
    save_model(Model(build(spec, normalise=True), info, build_sizer(normalise=True)), path)
    return path


def test_no_passes_train_only_the_size_network_and_from_the_one_that_is_given(tmp_path: Path, sized: Path) -> None:
    """A better estimate of sizes costs no second training of everything else."""
    pairs = find_pairs(annotated_folder(tmp_path / "data", 3)).pairs
    settings = TrainSettings(epochs=0, size_steps=1, precision="float32", device="cpu", learning_rate=1e-9)
    path = tmp_path / "new" / "m.keras"
    heard = Heard()
    train(pairs, path, settings, start=Start(sized), command="", progress=heard)
    before, after = load_model(sized), load_model(path)
    for old, new in zip(before.network.get_weights(), after.network.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    assert before.sizer is not None
    assert after.sizer is not None
    pairs_of_weights = list(zip(before.sizer.get_weights(), after.sizer.get_weights(), strict=True))
    assert not all(np.array_equal(old, new) for old, new in pairs_of_weights), "it was trained"
    assert all(np.abs(new - old).max() < 0.1 for old, new in pairs_of_weights), "by one step, from where it was"
    assert heard.steps == 0
    assert sorted(p.name for p in path.parent.iterdir()) == ["m.examples.png", "m.keras"]


@pytest.mark.parametrize("options", [{}, {"size_steps": 5}])
def test_no_passes_without_anything_else_to_train_are_refused(tmp_path: Path, sized: Path, options: dict) -> None:
    """A network with random weights would be no model."""
    start = Start() if options else Start(sized)
    with pytest.raises(UsageError, match="--epochs 0 trains only the size network"):
        train([], tmp_path / "m.keras", TrainSettings(epochs=0, **options), start=start, command="", progress=Heard())


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_trainings_that_options_allow_change_the_weights(steps: int) -> None:
    """`--epochs 1 --steps 1` was a ValueError of Keras: one step is too short for a schedule of learning rates."""
    rule = optimizer(TrainSettings(epochs=1, steps=steps, learning_rate=0.01))
    weight = keras.Variable(np.ones(3, np.float32))
    for _ in range(steps):
        rule.apply([keras.ops.ones(3)], [weight])
    moved = 1 - keras.ops.convert_to_numpy(weight)
    assert np.all((moved > 1e-4) & (moved < 0.011 * steps))


def test_the_pictures_show_what_they_say(tmp_path: Path) -> None:
    """Curves of every pass, and image, annotation and prediction side by side."""
    rows = [dict.fromkeys(HISTORY_COLUMNS, 0.5) | {"epoch": float(i)} for i in (1, 2, 3)]
    save_curves(rows, tmp_path / "c.png")
    assert imagecodecs.png_decode((tmp_path / "c.png").read_bytes()).std() > 0
    samples = [sample("fluorescence", (70, 91)), sample("histology", (90, 71))]
    save_examples(samples, [samples[0].labels, samples[1].labels * 0], tmp_path / "e.png")
    picture = imagecodecs.png_decode((tmp_path / "e.png").read_bytes())[..., :3].astype(int)
    third = picture.shape[1] // 3
    green = (picture[..., 1] > picture[..., 0] + 60).sum(axis=0)
    red = (picture[..., 0] > picture[..., 1] + 60).sum(axis=0)
    assert green[third : 2 * third].sum() > 100
    assert green[:third].sum() == green[2 * third :].sum() == 0, "annotation is in the middle"
    assert red[2 * third :].sum() > 50
    assert red[: 2 * third].sum() == 0, "prediction is to the right"


def sample(modality: str, shape: tuple[int, int]) -> Sample:
    image, labels = field(1, shape)
    grey = image.astype(np.float32) / 255
    return Sample("k", modality, image, grey, labels, *centres_and_areas(labels))


def test_rare_modalities_get_more_crops_than_their_share_and_large_images_more_than_small() -> None:
    """Else sixteen of seventeen crops would be of the commonest microscope."""
    common = [sample("fluorescence", (100, 110))] * 15 + [sample("fluorescence", (200, 220))]
    chances = drawing_chances([*common, sample("histology", (100, 110))])
    assert np.isclose(chances.sum(), 1)
    assert np.isclose(chances[15], 2 * chances[0])
    assert np.isclose(chances[16] / chances[:16].sum(), 16**-SHARE_EXPONENT)
    assert chances[16] > 1 / 17


def test_a_rare_modality_of_one_collection_is_a_kind_of_its_own() -> None:
    """Crops are shared among modalities of collections: another laboratory's tissue is not that of this one."""
    here = [sample("histology", (100, 110))] * 8
    there = [dataclasses.replace(one, collection="there") for one in here[:1]]
    chances = drawing_chances([*here, *there])
    assert np.isclose(chances[8] / chances[:8].sum(), 8**-SHARE_EXPONENT)


def test_a_batch_depends_only_on_seed_pass_and_number() -> None:
    """Threads prepare crops in any order; training must not notice."""
    settings = TrainSettings(crop=32, batch_size=2, steps=3)
    samples = [sample("fluorescence", (100, 110))] * 3
    first, second = Crops(samples, settings), Crops(samples, settings)
    second[2]
    np.testing.assert_array_equal(first[1][0], second[1][0])
    before = first[1][0]
    first.on_epoch_end()
    assert not np.array_equal(first[1][0], before)


def test_validation_that_says_little_is_told() -> None:
    """Images that are trained on as well, under another name, and sets too small to tune on."""
    one, other = (np.full((5, 7), value, np.uint8) for value in (1, 2))
    labels = np.zeros((5, 7), np.int32)

    def sample(key: str, pixels: np.ndarray) -> Sample:
        return Sample(key, "x", pixels, pixels.astype(np.float32), labels, *centres_and_areas(labels))

    assert doubts([sample("a", one)], [sample(f"v{i}", other) for i in range(5)]) == []
    (same,) = doubts([sample("a", one)], [sample("b", one), *(sample(f"v{i}", other) for i in range(4))])
    assert "1 validation images show the same pixels" in same
    (few,) = doubts([sample("a", one)], [sample("b", other)])
    assert "only 1 validation image:" in few


def test_float16_is_trained_with_a_scaled_loss() -> None:
    """Its smallest numbers are larger than many gradients, which would all be 0."""
    settings = TrainSettings(epochs=2, steps=3)
    plain, scaled = optimizer(settings), optimizer(settings, "mixed_float16")
    assert isinstance(scaled, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(plain, keras.optimizers.LossScaleOptimizer)
    network = build(network_spec("default", "instances", (2, 3)), normalise=True, dtype="mixed_float16")
    learner = CropLearner(network, network_spec("default", "instances", (2, 3)).loss)
    learner.compile(optimizer=scaled)
    crops = plain_crops([sample("fluorescence", (96, 112))], TrainSettings(crop=64, batch_size=1))
    loss = learner.fit(*crops, epochs=2, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])
    assert np.isfinite(loss.history["loss"]).all()
