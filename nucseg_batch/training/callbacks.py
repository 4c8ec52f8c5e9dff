"""What happens around each pass of a training: validation as users see it, keeping the best, going on after a kill."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from nucseg_batch.arrays.metrics import Match, match, mean_average_precision, score
from nucseg_batch.arrays.scale import step_scale
from nucseg_batch.errors import MismatchError
from nucseg_batch.files.atomic_write import write_whole
from nucseg_batch.files.csv_rows import csv_records, csv_text, open_table
from nucseg_batch.network.model_file import Model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import SegmentSettings
from nucseg_batch.training.crops import SHARE_EXPONENT
from nucseg_batch.training.data import NEGATIVE, Sample

HISTORY_COLUMNS = ("epoch", "loss", "val_loss", "val_foreground_iou", "val_ap50", "val_ap", "learning_rate")
"""Columns of history.csv. val_ap50 and val_ap are AP@.5 and AP(.5:.95), see `mean_scores`."""


class Progress(Protocol):
    """Hears how far a training is."""

    def note(self, line: str) -> None:
        """Something that the user should know."""
        ...

    def step(self, epoch: int, done: int, total: int, loss: float) -> None:
        """So many batches of a pass are done; passes count from 1."""
        ...

    def epoch(self, row: dict[str, float]) -> None:
        """A pass is done; `row` holds HISTORY_COLUMNS."""
        ...


class NucleiFound(keras.callbacks.Callback):
    """Adds what users care about to each pass's log: nuclei found on the validation images, as `segment` finds them.

    `val_ap50`, `val_ap` (see HISTORY_COLUMNS) and `val_foreground_iou`, pooled over all pixels. Images are looked at
    at the scale that their annotation says.
    """

    def __init__(self, model: Model, samples: list[Sample], settings: SegmentSettings) -> None:
        super().__init__()
        self._predictor = Predictor(model, settings)
        self._samples = samples

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Segments the validation images with the present weights and scores the result."""
        found = nuclei_found(self._predictor, self._samples)
        if logs is not None:
            logs.update(found)


def nuclei_found(predictor: Predictor, samples: Sequence[Sample]) -> dict[str, float]:
    """`val_foreground_iou`, `val_ap50` and `val_ap` of a predictor's present weights, see HISTORY_COLUMNS."""
    predictor.refresh()
    matches, shared, covered = [], 0, 0
    head = predictor.model.info.network.head
    for sample in samples:
        found = predictor.predict(sample.pixels, true_scale(sample, predictor.diameter))
        labels, truth = sample.scored(found), head.expected(sample.truth)
        matches.append(match(labels, truth))
        shared += int(((labels > 0) & (truth > 0)).sum())
        covered += int(((labels > 0) | (truth > 0)).sum())
    ap50, ap = mean_scores(matches, samples)
    return {"val_foreground_iou": shared / covered if covered else 1.0, "val_ap50": ap50, "val_ap": ap}


def mean_scores(matches: Sequence[list[Match]], samples: Sequence[Sample]) -> tuple[float, float]:
    """AP@.5 and AP(.5:.95) of the validation images: means over the images of a collection, then over collections.

    Collections count there by (images) ** SHARE_EXPONENT, as in training, so that small ones are not drowned by large
    ones. Images of modality NEGATIVE are left out where there are others: each is all right or all wrong, and a few of
    them would decide alone.
    """
    members: dict[str, list[list[Match]]] = {}
    negative = [sample.modality == NEGATIVE for sample in samples]
    for one, sample, empty in zip(matches, samples, negative, strict=True):
        if not empty or all(negative):
            members.setdefault(sample.collection, []).append(one)
    scores = [score(some) for some in members.values()]
    weights = [len(some) ** SHARE_EXPONENT for some in members.values()]
    return (
        float(np.average([one[0].ap_image_mean for one in scores], weights=weights)),
        float(np.average([mean_average_precision(one) for one in scores], weights=weights)),
    )


def true_scale(sample: Sample, diameter: float) -> float:
    """The scale at which an annotated image's nuclei are about `diameter` pixels wide."""
    return step_scale(diameter / sample.diameter)


class History(keras.callbacks.Callback):
    """Writes a row of history.csv after each pass and tells the user; knows the rows of a training that goes on."""

    def __init__(self, path: Path, progress: Progress, *, passes_done: int) -> None:
        super().__init__()
        self._path = path
        self._progress = progress
        self.rows = _read_rows(path)[:passes_done] if passes_done else []

    @property
    def best(self) -> float:
        """The best val_ap so far; minus infinity before the first pass."""
        return max((row["val_ap"] for row in self.rows), default=-math.inf)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Tells how far the pass is."""
        total = (self.params or {}).get("steps") or 0
        self._progress.step(len(self.rows) + 1, batch + 1, total, float((logs or {}).get("loss", math.nan)))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds a row."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {**(logs or {}), "epoch": epoch + 1, "learning_rate": rate}
        row = {name: float(values.get(name, math.nan)) for name in HISTORY_COLUMNS}
        self.rows.append(row)
        rows = [[int(r["epoch"]), *(f"{r[c]:.6g}" for c in HISTORY_COLUMNS[1:])] for r in self.rows]
        write_whole(self._path, csv_text([HISTORY_COLUMNS, *rows]))
        self._progress.epoch(row)


class KeepBest(keras.callbacks.Callback):
    """Saves the weights of the best pass, by val_ap and then val_loss; stops after `patience` passes without one."""

    def __init__(self, path: Path, network: keras.Model, history: History, patience: int) -> None:
        """network: whose weights are saved, the one that is trained."""
        super().__init__()
        self._path = path
        self._network = network
        self._history = history
        self._patience = patience

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Runs after History, whose last row is this pass's."""
        scores = [(row["val_ap"], -row["val_loss"]) for row in self._history.rows]
        best = max(range(len(scores)), key=lambda i: scores[i])
        if best == len(scores) - 1 or not self._path.exists():
            temporary = self._path.with_name(f".partial.{self._path.name}")
            self._network.save_weights(temporary)
            os.replace(temporary, self._path)
        if len(scores) - 1 - best >= self._patience:
            self.model.stop_training = True


class Backup(keras.callbacks.Callback):
    """Keeps what a killed training needs to go on with the next pass: weights, optimizer, schedule, and the average.

    It saves when a pass begins, after the pass before it was written to the history, and must come behind the callback
    that swaps weights with their average.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """`path` is that of the model which is being made; `settings` all that must be the same to go on."""
        super().__init__()
        self._stem = path.stem
        self._folder = path.parent
        self._state = path.with_name(f"{path.stem}.resume.json")
        self._settings = json.loads(json.dumps(settings))

    def exists(self) -> bool:
        """Whether there is something to go on from."""
        return self._state.is_file()

    def load(self, network: keras.Model) -> int:
        """Puts a compiled network where it was; returns the passes done.

        Raises MismatchError where the training was begun with other settings or data, or its files are damaged.
        """
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            weights = self._folder / Path(state["weights"]).name
            earlier, done = state["settings"], int(state["epochs_done"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MismatchError(f"--resume: {self._state} cannot be read; start again without --resume.") from error
        names = sorted(earlier.keys() | self._settings.keys())
        changed = [name for name in names if earlier.get(name) != self._settings.get(name)]
        if changed != ["data"]:  # another seed or share divides the same images another way
            changed = [name for name in changed if name != "data"]
        different = [f"{name}: {earlier.get(name)!r} -> {self._settings.get(name)!r}" for name in changed]
        different = ["the annotated images have changed"] if changed == ["data"] else different
        if different:
            raise MismatchError(
                f"--resume: the training was begun with other settings or data ({'; '.join(different)}). Use those "
                "again, or start over without --resume."
            )
        try:
            network.optimizer.build(network.trainable_variables)
            network.load_weights(weights)
        except Exception as error:  # Keras raises many classes
            raise MismatchError(f"--resume: {weights} cannot be read ({type(error).__name__}).") from error
        return done

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Saves weights under a new name, then the state that names them, then forgets the old ones."""
        weights = self._folder / f"{self._stem}.resume-{epoch}.weights.h5"
        self.model.save_weights(weights)
        state = {"epochs_done": epoch, "weights": weights.name, "settings": self._settings}
        write_whole(self._state, json.dumps(state, indent=1, sort_keys=True))
        for old in self._files():
            if old != weights:
                old.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes its files."""
        self._state.unlink(missing_ok=True)
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        start = f"{self._stem}.resume-"
        return [p for p in self._folder.iterdir() if p.name.startswith(start) and p.name.endswith(".weights.h5")]


def _read_rows(path: Path) -> list[dict[str, float]]:
    try:
        with open_table(path) as file:
            return [{name: float(row[name]) for name in HISTORY_COLUMNS} for row in csv_records(file)]
    except (OSError, ValueError, KeyError):
        return []
