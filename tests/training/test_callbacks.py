from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from heard import Heard
from pictures import annotated_folder

from nucseg_batch.errors import MismatchError, NucsegError, UsageError
from nucseg_batch.files.annotations import find_pairs
from nucseg_batch.network.architectures import build
from nucseg_batch.network.model_file import load_model
from nucseg_batch.training import callbacks, fit, tuning
from nucseg_batch.training.blend import SHARES
from nucseg_batch.training.callbacks import HISTORY_COLUMNS
from nucseg_batch.training.fit import Start, train
from nucseg_batch.training.settings import TrainSettings

SETTINGS = TrainSettings(
    epochs=4,
    steps=5,
    size_steps=0,
    batch_size=2,
    crop=64,
    widths=(4, 6),
    learning_rate=2e-3,
    precision="float32",
    device="cpu",
)


def run(folder: Path, path: Path, heard: Heard, settings: TrainSettings = SETTINGS, **start: Any) -> Any:
    return train(find_pairs(folder).pairs, path, settings, start=Start(**start), command="train", progress=heard)


@pytest.fixture(autouse=True, scope="module")
def one_threshold() -> Iterator[None]:
    """Each that is tried at the end of a training is compiled anew; test_fit.py tries all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "THRESHOLDS", (0.5,))
        patch.setattr(tuning, "MIN_AREAS", (12,))
        yield


@dataclass(frozen=True)
class Trained:
    """A training that several tests look at, and must not change."""

    data: Path
    folder: Path
    heard: Heard


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training that nothing disturbed."""
    folder, heard = tmp_path_factory.mktemp("whole"), Heard()
    data = annotated_folder(folder / "data", 6)
    run(data, folder / "made" / "m.keras", heard)
    return Trained(data, folder / "made", heard)


@pytest.fixture(scope="module")
def stopped(whole: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The same, stopped in its third pass."""
    folder, heard = tmp_path_factory.mktemp("stopped") / "made", Heard(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        run(whole.data, folder / "m.keras", heard)
    return Trained(whole.data, folder, heard)


def test_a_killed_training_goes_on_at_the_next_pass_and_ends_the_same(
    whole: Trained, stopped: Trained, tmp_path: Path
) -> None:
    """Same passes, same rates, same crops: history and weights are those of an undisturbed training."""
    made, after = tmp_path / "made", Heard()
    shutil.copytree(stopped.folder, made)
    assert not (made / "m.keras").exists()
    run(whole.data, made / "m.keras", after, resume=True)

    assert [row["epoch"] for row in stopped.heard.rows + after.rows] == [1, 2, 3, 4]
    assert after.steps == 2 * SETTINGS.steps
    rates = [row["learning_rate"] for row in whole.heard.rows]
    assert rates[1] > rates[2] > rates[3]
    assert [row["learning_rate"] for row in stopped.heard.rows + after.rows] == rates
    for one, other in zip(whole.heard.rows, stopped.heard.rows + after.rows, strict=True):
        for name in HISTORY_COLUMNS:
            assert other[name] == pytest.approx(one[name], rel=1e-3, abs=1e-3), name
    first, second = (load_model(place / "m.keras").network.get_weights() for place in (whole.folder, made))
    for a, b in zip(first, second, strict=True):  # threads add in any order, and training magnifies it
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    assert (whole.folder / "m.history.csv").read_text().count("\n") == 5
    assert sorted(p.name for p in made.iterdir()) == [
        "m.curves.png",
        "m.examples.png",
        "m.history.csv",
        "m.keras",
    ]


def test_a_training_is_not_gone_on_with_other_settings_or_data(stopped: Trained, tmp_path: Path) -> None:
    """Half of one schedule and half of another is a model that nobody can repeat."""
    path = stopped.folder / "m.keras"
    state = json.loads((stopped.folder / "m.resume.json").read_text())
    assert state["epochs_done"] == 2
    longer = dataclasses.replace(SETTINGS, epochs=9)
    with pytest.raises(MismatchError, match="epochs: 4 -> 9"):
        run(stopped.data, path, Heard(), longer, resume=True)
    shutil.copytree(stopped.data, tmp_path / "data")
    more = annotated_folder(tmp_path / "data", 7)
    with pytest.raises(MismatchError, match="images have changed"):
        run(more, path, Heard(), resume=True)
    with pytest.raises(MismatchError, match="start one without --resume"):
        run(stopped.data, tmp_path / "other.keras", Heard(), resume=True)


def test_training_stops_when_validation_gets_no_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps the best pass, not the last."""
    data = annotated_folder(tmp_path / "data", 4)
    scores = iter([0.1, 0.4, 0.3, 0.2, 0.1, 0.0])

    class Given(callbacks.NucleiFound):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            assert logs is not None
            logs.update(val_ap=next(scores), val_ap50=0.5, val_foreground_iou=0.5)

    monkeypatch.setattr(fit, "NucleiFound", Given)
    heard = Heard()
    run(data, tmp_path / "m.keras", heard, dataclasses.replace(SETTINGS, epochs=6, patience=2))
    assert [row["val_ap"] for row in heard.rows] == [0.1, 0.4, 0.3, 0.2]


def test_fine_tuning_begins_with_the_given_model_and_keeps_its_kind(whole: Trained, tmp_path: Path) -> None:
    """Its weights, architecture and widths; the file says what it was made from."""
    gentle = dataclasses.replace(SETTINGS, epochs=1, learning_rate=1e-5, widths=None)
    info = run(whole.data, tmp_path / "b.keras", Heard(), gentle, init=whole.folder / "m.keras")
    assert info.widths == (4, 6)
    assert info.card["init"] == "train"
    assert info.card["share_of_new_weights"] in SHARES
    before, after = (load_model(path).network for path in (whole.folder / "m.keras", tmp_path / "b.keras"))
    keras.utils.set_random_seed(SETTINGS.seed)
    untrained = build(info.network, normalise=True)
    learnt = 0.0
    for a, b, c in zip(*(net.trainable_weights for net in (before, after, untrained)), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-3)  # so small a rate hardly moves them
        learnt = max(learnt, float(np.abs(np.asarray(a) - np.asarray(c)).max()))
    assert learnt > 1e-2, "the given model is far from where a training without it begins"


def test_a_stopped_training_is_not_started_over_by_mistake(stopped: Trained) -> None:
    """One forgotten option must not cost an hour's work."""
    with pytest.raises(UsageError, match="--resume"):
        run(stopped.data, stopped.folder / "m.keras", Heard())
    assert (stopped.folder / "m.resume.json").is_file()


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Before any image is read."""
    data = annotated_folder(tmp_path / "data", 3)
    with pytest.raises(NucsegError, match=r"nowhere\.keras"):
        run(data, tmp_path / "m.keras", Heard(), init=tmp_path / "nowhere.keras")
