from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heard import Heard
from pictures import annotated_folder

from nucseg_batch.errors import MismatchError, NucsegError, UsageError
from nucseg_batch.network.model_file import load_model
from nucseg_batch.settings import TrainSettings
from nucseg_batch.training import fit
from nucseg_batch.training.callbacks import HISTORY_COLUMNS
from nucseg_batch.training.fit import Start, train
from nucseg_batch.training.layouts import find_pairs

SETTINGS = TrainSettings(
    epochs=4, steps=5, batch_size=2, crop=64, widths=(4, 6), learning_rate=2e-3, precision="float32", device="cpu"
)


def run(folder: Path, path: Path, heard: Heard, settings: TrainSettings = SETTINGS, **start: Any) -> Any:
    return train(find_pairs(folder).pairs, path, settings, start=Start(**start), command="train", progress=heard)


def test_a_killed_training_goes_on_at_the_next_pass_and_ends_the_same(tmp_path: Path) -> None:
    """Same passes, same rates, same crops: history and weights are those of an undisturbed training."""
    data = annotated_folder(tmp_path / "data", 6)
    whole, before, after = Heard(), Heard(stop_after=2), Heard()
    run(data, tmp_path / "a" / "m.keras", whole)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "b" / "m.keras", before)
    assert not (tmp_path / "b" / "m.keras").exists()
    run(data, tmp_path / "b" / "m.keras", after, resume=True)

    assert [row["epoch"] for row in before.rows + after.rows] == [1, 2, 3, 4]
    assert after.steps == 2 * SETTINGS.steps
    rates = [row["learning_rate"] for row in whole.rows]
    assert rates[1] > rates[2] > rates[3]
    assert [row["learning_rate"] for row in before.rows + after.rows] == rates
    for one, other in zip(whole.rows, before.rows + after.rows, strict=True):
        for name in HISTORY_COLUMNS:
            assert other[name] == pytest.approx(one[name], rel=1e-3, abs=1e-3), name
    first, second = (load_model(tmp_path / place / "m.keras").network.get_weights() for place in "ab")
    for a, b in zip(first, second, strict=True):  # threads add in any order, and training magnifies it
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    assert (tmp_path / "a" / "m.history.csv").read_text().count("\n") == 5
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "m.curves.png",
        "m.examples.png",
        "m.history.csv",
        "m.keras",
    ]


def test_a_training_is_not_gone_on_with_other_settings_or_data(tmp_path: Path) -> None:
    """Half of one schedule and half of another is a model that nobody can repeat."""
    data = annotated_folder(tmp_path / "data", 4)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "m.keras", Heard(stop_after=1))
    state = json.loads((tmp_path / "m.resume.json").read_text())
    assert state["epochs_done"] == 1
    longer = dataclasses.replace(SETTINGS, epochs=9)
    with pytest.raises(MismatchError, match="epochs: 4 -> 9"):
        run(data, tmp_path / "m.keras", Heard(), longer, resume=True)
    annotated_folder(tmp_path / "data", 5)
    with pytest.raises(MismatchError, match="images have changed"):
        run(data, tmp_path / "m.keras", Heard(), resume=True)
    with pytest.raises(MismatchError, match="start one without --resume"):
        run(data, tmp_path / "other.keras", Heard(), resume=True)


def test_training_stops_when_validation_gets_no_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps the best pass, not the last."""
    data = annotated_folder(tmp_path / "data", 4)
    scores = iter([0.1, 0.4, 0.3, 0.2, 0.1, 0.0])

    class Given(fit.NucleiFound):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            assert logs is not None
            logs.update(val_ap=next(scores), val_ap50=0.5, val_foreground_iou=0.5)

    monkeypatch.setattr(fit, "NucleiFound", Given)
    heard = Heard()
    run(data, tmp_path / "m.keras", heard, dataclasses.replace(SETTINGS, epochs=6, patience=2))
    assert [row["val_ap"] for row in heard.rows] == [0.1, 0.4, 0.3, 0.2]


def test_fine_tuning_begins_with_the_given_model_and_keeps_its_kind(tmp_path: Path) -> None:
    """Its weights, architecture and widths; the file says what it was made from."""
    data = annotated_folder(tmp_path / "data", 6)
    first, second = Heard(), Heard()
    run(data, tmp_path / "a.keras", first, dataclasses.replace(SETTINGS, epochs=3, steps=20, learning_rate=8e-3))
    gentle = dataclasses.replace(SETTINGS, epochs=1, learning_rate=1e-5, widths=None)
    info = run(data, tmp_path / "b.keras", second, gentle, init=tmp_path / "a.keras")
    assert info.widths == (4, 6)
    assert info.card["init"] == "train"
    before, after = (load_model(tmp_path / name).network for name in ("a.keras", "b.keras"))
    for a, b in zip(before.trainable_weights, after.trainable_weights, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-3)  # so small a rate hardly moves them


def test_a_stopped_training_is_not_started_over_by_mistake(tmp_path: Path) -> None:
    """One forgotten option must not cost an hour's work."""
    data = annotated_folder(tmp_path / "data", 4)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "m.keras", Heard(stop_after=1))
    with pytest.raises(UsageError, match="--resume"):
        run(data, tmp_path / "m.keras", Heard())
    assert (tmp_path / "m.resume.json").is_file()


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Before any image is read."""
    data = annotated_folder(tmp_path / "data", 3)
    with pytest.raises(NucsegError, match=r"nowhere\.keras"):
        run(data, tmp_path / "m.keras", Heard(), init=tmp_path / "nowhere.keras")
