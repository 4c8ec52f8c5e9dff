from __future__ import annotations

import csv
from pathlib import Path

import imagecodecs
import numpy as np
from pictures import disks, fluorescence

from nucseg_batch.network.model_file import load_model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import SegmentSettings, TrainSettings
from nucseg_batch.training.data import Sample
from nucseg_batch.training.fit import Crops, drawing_chances, train
from nucseg_batch.training.layouts import find_pairs
from nucseg_batch.training.targets import centres_and_areas


def field(seed: int, shape: tuple[int, int] = (96, 112)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = disks(shape, [(int(y), int(x)) for y in (18, 52, 80) for x in (20, 60, 95) if rng.random() < 0.7], 10)
    return fluorescence(labels, seed=seed), labels


def test_training_learns_to_find_nuclei_and_writes_a_complete_model(tmp_path: Path) -> None:
    """A small network, a few seconds: the loss falls, and the file segments a picture it has not seen."""
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for seed in range(12):
        image, labels = field(seed)
        (tmp_path / "data" / "images" / f"{seed}.png").write_bytes(imagecodecs.png_encode(image))
        (tmp_path / "data" / "labels" / f"{seed}.png").write_bytes(imagecodecs.png_encode(labels.astype(np.uint16)))
    lines: list[str] = []
    settings = TrainSettings(
        epochs=4,
        steps=40,
        batch_size=8,
        crop=64,
        widths=(8, 12, 16),
        learning_rate=4e-3,
        precision="float32",
        device="cpu",
    )
    path = tmp_path / "new" / "m.keras"
    info = train(
        list(find_pairs(tmp_path / "data").pairs), path, settings, command="nucseg-batch train", report=lines.append
    )
    assert sorted(p.name for p in path.parent.iterdir()) == ["m.history.csv", "m.keras"]
    with open(path.with_name("m.history.csv"), newline="") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert len(history) == 4
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert {"val_loss", "val_ap50", "val_ap"} <= history[0].keys()
    assert any(line.startswith("epoch 4/4") for line in lines)

    model = load_model(path)
    assert model.info == info
    assert info.card["command"] == "nucseg-batch train"
    assert info.card["data"]["training_images"] == 11
    assert 0 < info.threshold < 1
    image, truth = field(99)
    found = Predictor(model, SegmentSettings(device="cpu")).predict(image) > 0
    assert (found & (truth > 0)).sum() / (found | (truth > 0)).sum() > 0.6


def sample(modality: str, shape: tuple[int, int]) -> Sample:
    image, labels = field(1, shape)
    grey = image.astype(np.float32) / 255
    return Sample("k", modality, image, grey, labels, *centres_and_areas(labels))


def test_large_images_and_rare_modalities_are_drawn_more_often() -> None:
    """Else sixteen of seventeen crops would be of the commonest microscope."""
    samples = [sample("fluorescence", (100, 110))] * 15 + [
        sample("fluorescence", (200, 220)),
        sample("histology", (100, 110)),
    ]
    chances = drawing_chances(samples)
    assert np.isclose(chances.sum(), 1)
    assert np.isclose(chances[15], 2 * chances[0])
    assert np.isclose(chances[16], 2 * chances[0])


def test_a_batch_depends_only_on_seed_pass_and_number() -> None:
    """Threads prepare crops in any order; training must not notice."""
    settings = TrainSettings(crop=32, batch_size=2, steps=3, widths=(4, 4))
    samples = [sample("fluorescence", (100, 110))] * 3
    first, second = Crops(samples, settings), Crops(samples, settings)
    second[2]
    np.testing.assert_array_equal(first[1][0], second[1][0])
    before = first[1][0]
    first.on_epoch_end()
    assert not np.array_equal(first[1][0], before)
