"""The flat fields of a run, in its run folder: how bright each place of an image is shown, mean 1.

They are written once, before the first image is segmented, and read by every process, so that all divide by the same
numbers. Each is a plain .npy file, of which windows are read as they are needed.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import OutputError
from nucseg_batch.files.atomic_write import file_sha256, remove_leftovers, whole_file, write_whole
from nucseg_batch.plan import ImageInfo, channel_names

FLAT_FIELDS = "flatfield"
"""Folder in the run folder."""
INDEX = "fields.json"
"""File in it that is written last and says what the others are."""


@dataclass(frozen=True)
class FlatField:
    """One flat field of a run."""

    height: int
    """Rows of the images that it is for."""
    width: int
    """Their columns."""
    channel: str | int | None
    """Name of their channel, `""` in grey images; its number, if fields were given by number; None for all channels."""
    planes: int
    """Planes from which it was estimated; 0 where it was given."""
    lowest: float
    """Its lowest value; the mean is 1."""
    highest: float
    """Its highest value."""
    file: str
    """Name of its file, (height, width) float32."""
    sha256: str
    """Of that file."""


class FlatFields:
    """The flat fields of a run, to divide pixels by. Threads may ask at once."""

    def __init__(self, folder: Path, fields: Sequence[FlatField]) -> None:
        self.fields = tuple(fields)
        """What there is."""
        arrays: dict[str, NDArray[np.float32]] = {
            one.file: np.load(folder / one.file, mmap_mode="r", allow_pickle=False) for one in fields
        }
        self._found = {(one.height, one.width, one.channel): arrays[one.file] for one in fields}

    def corrected(self, pixels: NDArray[Any], info: ImageInfo, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Pixels divided by the fields of their channels, as float32 of the same shape.

        pixels: the window `rows`, `columns` of a plane of this image, as `Source.read` returns it. A channel without a
        field, because it was too dark to estimate one, stays as it is.
        """
        result = np.empty(pixels.shape, np.float32)
        for number, name in enumerate(channel_names(info)):
            own: Any = number if info.names else (..., number) if pixels.ndim == 3 else ...
            keys = ((info.height, info.width, key) for key in (None, number, name))
            field = next((self._found[key] for key in keys if key in self._found), None)
            result[own] = pixels[own]
            if field is not None:
                result[own] /= field[rows, columns]
        return result


GivenFields = tuple[tuple[int, ...], str | int | None, int, NDArray[np.float32]]
"""(height, width), channel and planes of a field, as `FlatField` has them, and its values."""


def write_flat_fields(run_folder: Path, fields: Iterable[GivenFields]) -> None:
    """Writes the fields of a run; the caller holds the root lock.

    What an earlier call left without an index is written again.
    """
    folder = run_folder / FLAT_FIELDS
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    written = []
    for number, ((height, width), channel, planes, values) in enumerate(fields):
        path = folder / f"{number}.npy"
        with whole_file(path) as file:
            np.save(file, np.ascontiguousarray(values), allow_pickle=False)
        extremes = float(values.min()), float(values.max())
        written.append(FlatField(height, width, channel, planes, *extremes, path.name, file_sha256(path)))
    write_whole(folder / INDEX, json.dumps([dataclasses.asdict(one) for one in written], indent=0, sort_keys=True))


def listed_flat_fields(run_folder: Path) -> tuple[FlatField, ...] | None:
    """The fields of a run, without their values; None where they are not written yet."""
    try:
        text = (run_folder / FLAT_FIELDS / INDEX).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return tuple(FlatField(**one) for one in json.loads(text))
    except (ValueError, TypeError) as error:
        raise _damaged(run_folder, INDEX) from error


def read_flat_fields(run_folder: Path) -> FlatFields | None:
    """The fields of a run; None where they are not written yet. Raises OutputError where they are damaged."""
    fields = listed_flat_fields(run_folder)
    if fields is None:
        return None
    folder = run_folder / FLAT_FIELDS
    for one in fields:
        if not (folder / one.file).is_file() or file_sha256(folder / one.file) != one.sha256:
            raise _damaged(run_folder, one.file)
    return FlatFields(folder, fields)


def remove_flat_fields(run_folder: Path) -> None:
    """Deletes the fields of a run."""
    shutil.rmtree(run_folder / FLAT_FIELDS, ignore_errors=True)


def _damaged(run_folder: Path, name: str) -> OutputError:
    return OutputError(
        f"{run_folder / FLAT_FIELDS / name}: it is missing or damaged, so images would be corrected in two ways; start "
        "over with --overwrite."
    )
