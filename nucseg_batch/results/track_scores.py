"""How well tracks agree with annotated ones, by the measures of the Cell Tracking Challenge, through py-ctcmetrics.

DET, SEG and TRA are those of the challenge (Maška et al. 2023, doi:10.1038/s41592-023-01879-y): detection and tracking
by the acyclic oriented graphs matching of Matula et al. 2015 (doi:10.1371/journal.pone.0144959), segmentation by the
mean Jaccard index; LNK is the part of TRA that only edges count for. Each is 0 to 1.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import io
import itertools
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tifffile

from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError, UsageError
from nucseg_batch.files.annotations import stem
from nucseg_batch.files.masks.store import is_ours
from nucseg_batch.files.names import printable
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.pipeline.pairing import pair
from nucseg_batch.plan import Assumption, PlaneStatus
from nucseg_batch.results.export.names import Names
from nucseg_batch.results.export.writing import export
from nucseg_batch.results.run import FinishedRun

MEASURES = ("DET", "SEG", "TRA", "LNK")
"""The measures, by their names in the challenge."""
_TRUTH, _RESULT = ("TRA", "man_track.txt"), ("res_track.txt",)
"""The file by which a folder is known, in it."""
_ENDINGS = ("_GT", "_RES")


@dataclass(frozen=True)
class Movie:
    """A movie in the layout of the challenge, or one of a run that can be written so."""

    name: str
    """Path of its folder below PRED or TRUTH without `_GT` or `_RES`; of a run the image without suffix, and `01` for
    its first z-slice, as `export --format ctc` names it."""
    folder: Path | None = None
    """Its folder; None for one of a run."""
    image: str = ""
    """Of a run: the image."""
    aliases: tuple[str, ...] = ()
    """Other names that mean it."""
    lone: bool = False
    """Whether its name need not be that of its truth: it was given itself."""


@dataclass(frozen=True)
class SequenceScore:
    """The scores of one annotated movie."""

    name: str
    """Name of the truth."""
    predicted: bool
    """Whether there is a prediction; without one all scores are 0."""
    frames: int
    """Time points."""
    annotated: int
    """Annotated tracks."""
    found: int
    """Predicted tracks; after a gap a track has a new number, as the layout has it."""
    measures: dict[str, float | None]
    """By name, see MEASURES; SEG is None where the truth has no annotated segmentation."""


@dataclass(frozen=True)
class TrackEvaluation:
    """Agreement of tracks with annotated ones."""

    sequences: tuple[SequenceScore, ...]
    """One for each annotated movie, by name."""
    notes: tuple[str, ...]
    """Lines on how movies were paired and what was left out."""
    assumptions: tuple[Assumption, ...] = ()
    """What was assumed of how they pair."""

    @property
    def mean(self) -> dict[str, float | None]:
        """Mean over movies of each measure; None where no movie has it."""
        known = {name: [one.measures[name] for one in self.sequences] for name in MEASURES}
        return {name: _mean([value for value in values if value is not None]) for name, values in known.items()}

    def worst(self, count: int) -> list[SequenceScore]:
        """The movies of the lowest TRA, the lowest first; of equals by name."""
        return sorted(self.sequences, key=lambda one: (one.measures["TRA"] or 0.0, one.name))[:count]

    def rows(self) -> Iterator[dict[str, Any]]:
        """A record for each movie: the columns of --csv.

        `sequence`, `status` (`ok`, or `missing` where there is no prediction), `frames`, `annotated` and `predicted`
        (numbers of tracks), and `det`, `seg`, `tra` and `lnk`.
        """
        for one in self.sequences:
            status = PlaneStatus.OK if one.predicted else PlaneStatus.MISSING
            counts = {"frames": one.frames, "annotated": one.annotated, "predicted": one.found}
            yield {"sequence": printable(one.name), "status": status, **counts} | _lower(one.measures)

    def as_json(self) -> dict[str, Any]:
        """The evaluation as plain data: `mean`, `sequences` as `rows`, `notes`, `assumptions` and `compared`."""
        return {
            "mean": _lower(self.mean),
            "sequences": list(self.rows()),
            "notes": list(self.notes),
            "assumptions": [asdict(one) for one in self.assumptions],
            "compared": "tracks",
        }


def check_ctcmetrics() -> None:
    """Raises UsageError, with what to install, where py-ctcmetrics is not installed."""
    if importlib.util.find_spec("ctc_metrics") is None:
        raise UsageError("--tracks needs py-ctcmetrics, which is not installed: pip install 'nucseg-batch[ctc]'")


def evaluate_tracks(prediction: Path, truth: Path, *, progress: Callable[[int, int], None]) -> TrackEvaluation:
    """Compares the tracks of every annotated movie with predicted ones.

    prediction: OUT.zarr of a run with --link t, or a folder with results in the layout of the challenge, such as
    `01_RES`, at any depth. truth: a folder with annotation in that layout, such as `01_GT`, likewise. Names without
    these endings pair them, as those of label images are paired; `a_GT` and `a/01_GT` are of the image `a.tif` of a
    run.

    `progress` receives the number of movies done and the total. Raises UsageError where py-ctcmetrics is not installed,
    InputMissingError where PRED or TRUTH is not there, NothingToDoError where one holds no movie or no name is on both
    sides, and ImageError where a movie cannot be read, is not valid, or does not fit its truth.
    """
    check_ctcmetrics()
    truths = _sequences(truth, "TRUTH", _TRUTH)
    own = is_ours(prediction) or (prediction.is_dir() and RunLayout.found(prediction).tracked)  # else --in-place
    with contextlib.ExitStack() as stack:
        predictions = _of_run(prediction) if own else _sequences(prediction, "PRED", _RESULT)
        exported = _Exported(prediction, Path(stack.enter_context(tempfile.TemporaryDirectory()))) if own else None
        pairing = pair(predictions, truths)
        scores = []
        for done, (annotated, predicted) in enumerate(pairing.pairs, start=1):
            folder = predicted.folder if predicted is not None else None
            if exported is not None and predicted is not None:
                folder = exported.folder(predicted)
            scores.append(_score(annotated, folder))
            progress(done, len(truths))
    return TrackEvaluation(tuple(scores), pairing.notes, pairing.assumptions)


def _sequences(place: Path, argument: str, known_by: tuple[str, ...]) -> list[Movie]:
    """The movies of a folder, sorted by name."""
    shown = "01_GT/TRA/man_track.txt" if argument == "TRUTH" else "01_RES/res_track.txt"
    if not place.is_dir():
        raise InputMissingError(f"{argument} {place}: there is no such folder; give one that holds {shown}.")
    found: dict[str, Movie] = {}
    for name, folders, _ in os.walk(place):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        folder = Path(name)
        if not folder.joinpath(*known_by).is_file():
            continue
        folders.clear()
        lone = folder == place
        path = folder.resolve().name if lone else folder.relative_to(place).as_posix()
        key = next((path.removesuffix(ending) for ending in _ENDINGS if path.endswith(ending)), path)
        if key in found:
            raise UsageError(f"{place} holds two movies named {key}; keep one of them.")
        found[key] = Movie(key, folder, lone=lone)
    if not found:
        raise NothingToDoError(
            f"{argument} {place}: no movie in the layout of the Cell Tracking Challenge was found; expected {shown}"
            f"{'' if argument == 'TRUTH' else ', or the OUT.zarr of a run with --link t'}."
        )
    alone = Counter(key.rpartition("/")[0] for key in found)
    return [
        replace(found[key], aliases=_aliases(key, alone=alone[key.rpartition("/")[0]] == 1)) for key in sorted(found)
    ]


def _aliases(name: str, *, alone: bool) -> tuple[str, ...]:
    """Other names of a movie `a.ome/01`, as `export --format ctc` names that of `a.ome.tif`.

    alone: whether no other is in its folder, whose name then means it.
    """
    folder, _, number = name.rpartition("/")
    if not folder:
        return ()
    plain = folder.removesuffix(".ome")
    return tuple(sorted({f"{plain}/{number}", *((folder, plain) if alone else ())} - {name}))


def _of_run(store: Path) -> list[Movie]:
    """The movies of a run, as `export --format ctc` names them."""
    with FinishedRun(store) as run:
        if not RunLayout.found(store).tracked:
            raise NothingToDoError(f"PRED {store}: the run has no tracks; segment with --link t.")
        names, found = Names(run.tables["images"]), list[Movie]()
        for image, group in itertools.groupby(run.planes(), key=lambda row: row.image):
            rows = list(group)
            if rows[0].t is None or not any(row.segmented for row in rows):
                continue
            place, depths = names.of(rows).as_posix(), sorted({row.depth for row in rows})
            for number in (f"{depth + 1:02}" for depth in depths):
                aliases = {f"{stem(image)}/{number}", *((place, stem(image)) if len(depths) == 1 else ())}
                found.append(Movie(f"{place}/{number}", None, image, tuple(sorted(aliases))))
    return [replace(one, lone=len(found) == 1) for one in found]


class _Exported:
    """Movies of a run, written in the layout of the challenge when they are asked for."""

    def __init__(self, store: Path, place: Path) -> None:
        self._store, self._place = store, place
        self._folders: dict[str, Path] = {}

    def folder(self, movie: Movie) -> Path:
        """The folder of a movie."""
        if movie.image not in self._folders:
            to = self._place / str(len(self._folders))
            with FinishedRun(self._store) as run:
                outcome = export(
                    run, to, ["ctc"], pattern=glob.escape(movie.image), progress=lambda what, done, total: None
                ).formats["ctc"]
            if outcome.refused:
                raise ImageError(outcome.reasons[0])
            self._folders[movie.image] = to
        return self._folders[movie.image] / "ctc" / f"{movie.name}_RES"


def _score(truth: Movie, folder: Path | None) -> SequenceScore:
    """The scores of one movie; without a folder, or without tracks, nothing was found."""
    assert truth.folder is not None
    annotated = _lines(truth.folder.joinpath(*_TRUTH), truth.name)
    frames = _masks(truth.folder / "TRA")
    if not annotated or not frames:
        raise ImageError(
            f"{truth.name}: {truth.folder} has no annotated tracks; expected TRA/man_track000.tif and so on."
        )
    names = [name for name in MEASURES if name != "SEG" or _masks(truth.folder / "SEG")]
    found = 0 if folder is None else _lines(folder / _RESULT[0], truth.name)
    measures: dict[str, float | None] = dict.fromkeys(MEASURES) | dict.fromkeys(names, 0.0)
    if folder is not None:
        _check_fit(truth.name, _masks(folder), frames)
        if found:
            measures |= _measured(truth, folder, names)
    return SequenceScore(truth.name, folder is not None, len(frames), annotated, found, measures)


def _measured(truth: Movie, folder: Path, names: Sequence[str]) -> dict[str, float | None]:
    from ctc_metrics import evaluate_sequence

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as told:  # it prints a lot
        warnings.simplefilter("always")
        found = evaluate_sequence(str(folder), str(truth.folder), metrics=["Valid", *names], threads=1)
    if not found["Valid"]:
        why = " ".join(str(told[0].message).split()) if told else "ctc_validate says why"
        raise ImageError(f"{truth.name}: {folder} is no valid result of the Cell Tracking Challenge ({why}).")
    return {name: float(found[name]) for name in names}


def _check_fit(name: str, masks: Sequence[Path], frames: Sequence[Path]) -> None:
    if len(masks) != len(frames):
        raise ImageError(
            f"{name}: the prediction has {len(masks)} time points and the truth {len(frames)}; tracks of the very "
            "movie that was annotated are needed."
        )
    sizes = []
    for path in (masks[0], frames[0]):
        try:
            with tifffile.TiffFile(path) as file:
                sizes.append(file.series[0].shape)
        except (OSError, ValueError, IndexError) as error:
            raise ImageError(f"{name}: {path} cannot be read ({error}).") from error
    if sizes[0] != sizes[1]:
        raise ImageError(f"{name}: masks of the prediction are {sizes[0]} pixels, and those of the truth {sizes[1]}.")


def _masks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.tif") if not path.name.startswith("."))


def _lines(path: Path, name: str) -> int:
    """Tracks of a file; ImageError where it cannot be read."""
    try:
        return sum(bool(line.strip()) for line in path.read_text(encoding="ascii").splitlines())
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: {path} cannot be read ({error}).") from error


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _lower(measures: dict[str, float | None]) -> dict[str, float | None]:
    return {name.lower(): value for name, value in measures.items()}
