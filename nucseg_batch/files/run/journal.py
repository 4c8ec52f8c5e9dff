"""What a run remembers, in `out.run/` beside the store: its plan, which units are done, and who is writing.

A unit is committed in this order: its shard is on disk, then its rows of nuclei.csv, then a marker that names every
plane of the unit. Files appear whole, by writing a temporary name and renaming it. Without a marker the unit does not
exist and is done again from scratch; a crash at any moment therefore costs only units that were in flight.

A region of a large plane keeps what it found here instead of in a shard. When all regions of the plane are done, their
shards are written, then the plane's rows, then a marker of the plane.
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
from nucseg_batch.files.whole import write_whole
from nucseg_batch.plan import Failure, ImageInfo, LargePlane, Plan, Scales, Unit, make_plan
from nucseg_batch.settings import REGION

OWN_NAMES = frozenset(
    {
        "plan.json",
        "machine.json",
        "scales.json",
        "log.txt",
        "lock",
        "units",
        "parts",
        "regions",
        "planes",
        ".plan.json.partial",
    }
)
FOLDERS = ("units", "parts", "regions", "planes")
"""Folders of a run folder."""
"""All that a run folder can hold."""


@dataclass(frozen=True)
class PlaneResult:
    """A segmented plane: its row of images.csv and how much of the unit's part is its own."""

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
    """What a finished unit says of itself, an entry for each of its planes in their order."""

    planes: tuple[PlaneResult | Failure, ...]
    """Results, and failures for the planes that have none."""
    shard_bytes: int
    """Size of the unit's shards, of masks and of pixels; 0 where no nucleus was found, and so no file written."""

    @property
    def failures(self) -> list[Failure]:
        """The planes that failed."""
        return [plane for plane in self.planes if isinstance(plane, Failure)]


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

    def create(
        self, plan: Plan, fingerprint: dict[str, Any], files: dict[str, tuple[int, int]], *, region: int = REGION
    ) -> None:
        """Begins a run; files: size and time of last change, in nanoseconds, of everything that was found, by key."""
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        images = [_record(image) for stack in plan.stacks for image in stack.images]
        failures = [dataclasses.astuple(failure) for failure in plan.failures]
        planned = {image.key for stack in plan.stacks for image in stack.images}
        others = {key: state for key, state in files.items() if key not in planned}
        record = {
            "fingerprint": fingerprint,
            "region": region,
            "images": images,
            "failures": failures,
            "others": others,
        }
        write_whole(self._plan, json.dumps(record, indent=0, sort_keys=True))

    def load(self) -> tuple[Plan, dict[str, Any], dict[str, tuple[int, int]]]:
        """The plan, the fingerprint and the files that `create` was given; MismatchError where they cannot be read."""
        try:
            record = json.loads(self._plan.read_text(encoding="utf-8"))
            images = [ImageInfo(*map(_tuple, values)) for values in record["images"]]
            failures = [Failure(*values) for values in record["failures"]]
            files = {image.key: (image.size, image.mtime_ns) for image in images}
            files |= {key: (size, mtime_ns) for key, (size, mtime_ns) in record["others"].items()}
            return make_plan(images, failures, region=record["region"]), record["fingerprint"], files
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
        planes = [dataclasses.asdict(plane) for plane in marker.planes]
        record = {"planes": planes, "shard_bytes": marker.shard_bytes}
        write_whole(self._marker(unit), json.dumps(record, indent=0, sort_keys=True))

    def marker(self, unit: Unit) -> Marker | None:
        """The marker of a unit; None where the unit is not done, or its marker or part is damaged."""
        try:
            record = json.loads(self._marker(unit).read_text(encoding="utf-8"))
            planes = tuple(Failure(**plane) if "stage" in plane else PlaneResult(**plane) for plane in record["planes"])
            results = [plane for plane in planes if isinstance(plane, PlaneResult)]
            part_bytes = sum(plane.part_bytes for plane in results)
            whole = [plane.image for plane in planes] == [plane.image.key for plane in unit.planes] and self.part(
                unit
            ).stat().st_size == part_bytes
            return Marker(planes, int(record["shard_bytes"])) if whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_region(self, unit: Unit, found: bytes) -> None:
        """Keeps what was found in a region of a large plane; its marker is committed after it."""
        write_whole(self._region(unit), found)

    def has_region(self, unit: Unit) -> bool:
        """Whether what was found in a region is there."""
        return self._region(unit).is_file()

    def region(self, unit: Unit) -> bytes:
        """What `keep_region` kept; raises OSError where it is gone."""
        return self._region(unit).read_bytes()

    def commit_plane(self, large: LargePlane, result: PlaneResult, shard_bytes: list[int]) -> None:
        """Records a large plane whose shards and rows are on disk; shard_bytes: sizes of its units' shards."""
        record = {"result": dataclasses.asdict(result), "shard_bytes": shard_bytes}
        write_whole(self._plane(large), json.dumps(record, indent=0, sort_keys=True))

    def plane(self, large: LargePlane) -> tuple[PlaneResult, list[int]] | None:
        """What `commit_plane` recorded; None where the plane is not joined yet, or its record or rows are damaged."""
        try:
            record = json.loads(self._plane(large).read_text(encoding="utf-8"))
            result, sizes = PlaneResult(**record["result"]), [int(size) for size in record["shard_bytes"]]
            whole = self.plane_part(large).stat().st_size == result.part_bytes and len(sizes) == len(large.units)
            return (result, sizes) if whole and result.image == large.plane.image.key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def plane_part(self, large: LargePlane) -> Path:
        """The rows of nuclei.csv of a large plane."""
        return self.folder / "planes" / f"{large.name}.nuclei.csv"

    def plane_committed_ns(self, large: LargePlane) -> int:
        """When a large plane was joined, in nanoseconds."""
        return self._plane(large).stat().st_mtime_ns

    def _plane(self, large: LargePlane) -> Path:
        return self.folder / "planes" / f"{large.name}.json"

    def _region(self, unit: Unit) -> Path:
        return self.folder / "regions" / f"{unit.name}.found"

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
        for name in FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)


def _record(image: ImageInfo) -> list[Any]:
    """An image as a list, without the last fields where these are what they are for most images."""
    values = list(dataclasses.astuple(image))
    while len(values) > 1 and values[-1] == _DEFAULTS[len(values) - 1]:
        values.pop()
    return values


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_DEFAULTS = [field.default for field in dataclasses.fields(ImageInfo)]
