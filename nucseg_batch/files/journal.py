"""What a run remembers, in `out.run/` beside the store: its plan, which units are done, and who is writing.

A unit is committed in this order: its shard is on disk, then its rows of nuclei.csv, then a marker that names every
image of the unit. Files appear whole, by writing a temporary name and renaming it. Without a marker the unit does not
exist and is done again from scratch; a crash at any moment therefore costs only units that were in flight.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucseg_batch.errors import LockedError, MismatchError, OutputError
from nucseg_batch.files.mask_store import sync
from nucseg_batch.files.tables import SUMMARY_COLUMNS
from nucseg_batch.plan import Failure, ImageInfo, Plan, Scales, Unit, make_plan

OWN_NAMES = frozenset(
    {"plan.json", "machine.json", "scales.json", "log.txt", "lock", "units", "parts", ".plan.json.partial"}
)
"""All that a run folder can hold."""


@dataclass(frozen=True)
class ImageResult:
    """A segmented image: its row of images.csv and how much of the unit's part is its own."""

    image: str
    """Key of the image."""
    nuclei: int
    """Nuclei found."""
    summary: dict[str, Any]
    """Values of tables.SUMMARY_COLUMNS."""
    part_bytes: int
    """Length in bytes of its rows in the unit's part of nuclei.csv."""


@dataclass(frozen=True)
class Marker:
    """What a finished unit says of itself, an entry for each of its images in their order."""

    images: tuple[ImageResult | Failure, ...]
    """Results, and failures for the images that have none."""
    shard_bytes: int
    """Size of the unit's shards, of masks and of pixels; 0 where no nucleus was found, and so no file written."""

    @property
    def failures(self) -> list[Failure]:
        """The images that failed."""
        return [image for image in self.images if isinstance(image, Failure)]


class Journal:
    """The run folder of one output store."""

    def __init__(self, store: Path) -> None:
        self.folder = store.with_suffix(".run")
        self._plan = self.folder / "plan.json"
        self._machine = self.folder / "machine.json"
        self._scales = self.folder / "scales.json"

    def exists(self) -> bool:
        """Whether a run was planned here."""
        return self._plan.is_file()

    def is_foreign(self) -> bool:
        """Whether the run folder is there and holds anything that no run of ours, begun or finished, leaves."""
        return self.folder.exists() and not (
            self.folder.is_dir() and {path.name for path in self.folder.iterdir()} <= OWN_NAMES
        )

    def make_place(self) -> None:
        """Makes the run folder; raises OutputError where that is not possible."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise OutputError(f"{self.folder} cannot be made ({error.strerror}); give another place.") from error

    def create(self, plan: Plan, fingerprint: dict[str, Any], files: dict[str, tuple[int, int]]) -> None:
        """Begins a run; `files` has size and time of last change, in nanoseconds, of every image file by key."""
        for folder in (self.folder / "units", self.folder / "parts"):
            folder.mkdir(parents=True, exist_ok=True)
        images = [dataclasses.astuple(image) for stack in plan.stacks for image in stack.images]
        failures = [dataclasses.astuple(failure) for failure in plan.failures]
        refused = {failure.image: files[failure.image] for failure in plan.failures}
        record = {"fingerprint": fingerprint, "images": images, "failures": failures, "refused": refused}
        write_whole(self._plan, json.dumps(record, indent=0, sort_keys=True))

    def load(self) -> tuple[Plan, dict[str, Any], dict[str, tuple[int, int]]]:
        """The plan, the fingerprint and the files that `create` was given; MismatchError where they cannot be read."""
        try:
            record = json.loads(self._plan.read_text(encoding="utf-8"))
            images = [ImageInfo(*values) for values in record["images"]]
            failures = [Failure(*values) for values in record["failures"]]
            files = {image.key: (image.size, image.mtime_ns) for image in images}
            files |= {key: (size, mtime_ns) for key, (size, mtime_ns) in record["refused"].items()}
            return make_plan(images, failures), record["fingerprint"], files
        except (ValueError, KeyError, TypeError) as error:
            raise MismatchError(
                f"{self._plan} is damaged ({type(error).__name__}); start again with --overwrite."
            ) from error

    def bind(self, machine: dict[str, str]) -> None:
        """Notes how results are computed (precision, device, backend); MismatchError where it was another way before.

        What `auto` stands for depends on the machine, and a run must not mix two ways in silence.
        """
        if self._machine.is_file():
            earlier = json.loads(self._machine.read_text(encoding="utf-8"))
            different = [f"{k}: {earlier.get(k)} -> {v}" for k, v in machine.items() if earlier.get(k) != v]
            if different:
                raise MismatchError(
                    f"{self.folder} was begun another way ({'; '.join(different)}). Ask for that with --precision and "
                    "--device, give another OUT, or start over with --overwrite."
                )
            return
        write_whole(self._machine, json.dumps(machine, sort_keys=True))

    def scales(self) -> Scales | None:
        """The scales that the run settled on; None where it has not yet, or they cannot be read."""
        try:
            return Scales(**json.loads(self._scales.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def keep_scales(self, scales: Scales) -> None:
        """Notes the scales, so that a run that goes on later uses the same."""
        write_whole(self._scales, json.dumps(dataclasses.asdict(scales), sort_keys=True))

    def log(self, line: str) -> None:
        """Adds a line to the run's log, with the time; the log is for people and is never read back."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        with open(self.folder / "log.txt", "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{moment} {' '.join(line.split())}\n")

    def commit(self, unit: Unit, marker: Marker, nuclei: str) -> None:
        """Records a unit whose shard is on disk: its rows of nuclei.csv first, its marker last."""
        write_whole(self.part(unit), nuclei)
        images = [dataclasses.asdict(image) for image in marker.images]
        record = {"images": images, "shard_bytes": marker.shard_bytes}
        write_whole(self._marker(unit), json.dumps(record, indent=0, sort_keys=True))

    def marker(self, unit: Unit) -> Marker | None:
        """The marker of a unit; None where the unit is not done, or its marker or part is damaged."""
        try:
            record = json.loads(self._marker(unit).read_text(encoding="utf-8"))
            images = tuple(Failure(**image) if "stage" in image else ImageResult(**image) for image in record["images"])
            results = [image for image in images if isinstance(image, ImageResult)]
            part_bytes = sum(image.part_bytes for image in results)
            whole = (
                [image.image for image in images] == [image.key for image in unit.images]
                and all(image.summary.keys() == set(SUMMARY_COLUMNS) for image in results)
                and self.part(unit).stat().st_size == part_bytes
            )
            return Marker(images, int(record["shard_bytes"])) if whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def committed_ns(self, unit: Unit) -> int:
        """When a unit that is done was committed, in nanoseconds."""
        return self._marker(unit).stat().st_mtime_ns

    def part(self, unit: Unit) -> Path:
        """The unit's rows of nuclei.csv."""
        return self.folder / "parts" / f"{unit.name}.nuclei.csv"

    def _marker(self, unit: Unit) -> Path:
        return self.folder / "units" / f"{unit.name}.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process; LockedError, naming the holder, where another process has it."""
        path = self.folder / "lock"
        with open(path, "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise LockedError(
                    f"{self.folder} is in use by {file.read().strip() or 'another process'}; wait for it, or stop it "
                    "and run the same command again."
                ) from error
            except OSError:
                yield  # no locks on this file system: two runs at once then waste work, but write equal bytes whole
                return
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            yield

    def clear(self) -> None:
        """Forgets the run; the plan goes first, so that half a clearing is no run at all. The lock stays."""
        self._plan.unlink(missing_ok=True)
        self._machine.unlink(missing_ok=True)
        self._scales.unlink(missing_ok=True)
        for folder in (self.folder / "units", self.folder / "parts"):
            shutil.rmtree(folder, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file so that it appears complete, on disk, or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(path.parent)
