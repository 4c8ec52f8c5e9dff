from __future__ import annotations

import os
from pathlib import Path

import keras
import matplotlib as mpl
import pytest
from heard import Heard
from pictures import annotated_folder

from nucseg_batch.files.annotations import find_pairs
from nucseg_batch.network.model_file import load_model
from nucseg_batch.training.callbacks import HISTORY_COLUMNS
from nucseg_batch.training.fit import train
from nucseg_batch.training.pictures import save_curves
from nucseg_batch.training.settings import TrainSettings


def trained(place: Path, data: Path) -> tuple[list[bytes], list[float]]:
    """Weights and epochs of a very short training."""
    heard = Heard()
    settings = TrainSettings(
        epochs=2, steps=3, batch_size=2, crop=64, widths=(4, 6), diameter=20.0, precision="float32", device="cpu"
    )
    train(find_pairs(data).pairs, place, settings, command="train", progress=heard)
    return [weight.tobytes() for weight in load_model(place).network.get_weights()], [
        row["epoch"] for row in heard.rows
    ]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("NUCSEG_SLOW"), reason="two trainings; NUCSEG_SLOW=1 runs it")
def test_other_settings_of_keras_change_no_training(tmp_path: Path) -> None:
    """Nor shorten it: weights are those of a process in which nobody set anything."""
    data = annotated_folder(tmp_path / "data", 6)
    expected = trained(tmp_path / "a.keras", data)
    assert expected[1] == [1, 2]
    others = {
        "image_data_format": "channels_first",
        "floatx": "float16",
        "epsilon": 0.5,
        "max_epochs": 1,
        "max_steps_per_epoch": 1,
    }
    before = {name: getattr(keras.config, name)() for name in others}
    try:
        for name, value in others.items():
            getattr(keras.config, f"set_{name}")(value)
        assert trained(tmp_path / "b.keras", data) == expected
        assert {name: getattr(keras.config, name)() for name in others} == others
    finally:
        for name, value in before.items():
            getattr(keras.config, f"set_{name}")(value)


def test_a_matplotlibrc_changes_no_figure(tmp_path: Path) -> None:
    """Sizes, fonts and colours of the curves are the program's own."""
    rows = [dict.fromkeys(HISTORY_COLUMNS, 0.5) | {"epoch": float(i)} for i in (1, 2, 3)]
    save_curves(rows, tmp_path / "a.png")
    with mpl.rc_context({"savefig.dpi": 33, "font.size": 31, "axes.facecolor": "red", "savefig.transparent": True}):
        save_curves(rows, tmp_path / "b.png")
        assert mpl.rcParams["font.size"] == 31
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
