"""What a run remembers, in `out.run/` beside the store: its plan, and which units are done.

A unit is committed in this order: its shard is on disk, then its rows of nuclei.csv, then a marker that names every
plane of the unit and says what its shard and rows are. Files appear whole, by writing a temporary name and renaming it.
Without a marker the unit does not exist and is done again from scratch; a crash at any moment therefore costs only
units that were in flight. A unit that is done again loses its marker first.

A region of a large plane keeps what it found here instead of in a shard. When all regions of the plane are done, their
shards are written, then the plane's rows, then a marker of the plane.

Nothing here but the log and `verified` depends on the clock, the machine or the order of work. Locks are in `locks`,
tries at units that were begun in `attempts`, what was verified in `verified`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nucseg_batch.errors import MismatchError, OutputError
from nucseg_batch.files.atomic_write import PARTIAL, file_state, remove_leftovers, write_whole
from nucseg_batch.files.flat_fields import FLAT_FIELDS
from nucseg_batch.files.names import readable
from nucseg_batch.files.run.attempts import BEGUN
from nucseg_batch.files.run.locks import LOCKS
from nucseg_batch.files.run.portions import (
    UNITS,
    is_portion,
    portion_count,
    portions_sha256,
    portions_state,
    read_portions,
    remove_portions,
    write_portion,
)
from nucseg_batch.files.run.records import (
    FinishRecord,
    Marker,
    MergedPlane,
    PlaneFingerprint,
    PlaneResult,
    RegionOutcome,
    RunSpec,
)
from nucseg_batch.files.run.verified import VERIFIED
from nucseg_batch.files.run_layout import CONTROLS, ONE_LOG, PLAN, TIMINGS, RunLayout
from nucseg_batch.plan import Failure, LargePlane, Scales, Unit

VOLUME_RECORDS = "volumes"
"""Folder of a run folder with what stacks left whose nuclei are joined, see `stack_records`."""
TRACK_RECORDS = "tracks"
"""The same of movies whose nuclei are linked, see `track_records`."""
FOLDERS = (UNITS, "parts", "regions", "planes")
"""Folders of a run folder that hold what units left."""
OWN_NAMES = frozenset(
    {PLAN, "config.toml", "mirror.json", "machine.json", "scales.json", "finished.json", CONTROLS, ONE_LOG}
    | {LOCKS, BEGUN, TIMINGS, FLAT_FIELDS, VOLUME_RECORDS, TRACK_RECORDS, VERIFIED, *FOLDERS}
)
"""All that a run folder can hold, but for the logs of shares, plans of added images, and temporary names."""


class Journal:
    """The run folder of one output store.

    log: name of the log in it; each share has its own, since they may run on different machines.
    """

    def __init__(self, store: Path, log: str = ONE_LOG) -> None:
        self.folder = RunLayout(store).folder
        self._log = self.folder / log
        self._plan = self.folder / PLAN
        self.config = self.folder / "config.toml"
        """What the run was begun with, as a file for `--config`; not in runs that were begun without its text."""
        self._mirror = self.folder / "mirror.json"
        self._machine = self.folder / "machine.json"
        self._scales = self.folder / "scales.json"
        self._finished = self.folder / "finished.json"

    def exists(self) -> bool:
        """Whether a run was planned here."""
        return self._plan.is_file()

    def is_foreign(self) -> bool:
        """Whether the run folder is there and holds anything that no run of ours, begun or finished, leaves."""
        if not self.folder.exists():
            return False
        return not self.folder.is_dir() or not all(_is_own(path.name) for path in self.folder.iterdir())

    def make_place(self) -> None:
        """Makes the run folder; raises OutputError where that is not possible."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise OutputError(f"{self.folder} cannot be made ({error.strerror}); give another place.") from error

    def create(self, begun: RunSpec, mirror: Mapping[str, Any] | None = None, config: str = "") -> None:
        """Begins a run. mirror: attributes of the input store, as `mask_store.create_store` takes them.

        config: text of the file that tells people, and `--config`, what the run was begun with. The plan is written
        last: without it there is no run, and what another one left is deleted.
        """
        self.clear()
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        if config:
            write_whole(self.config, config)
        write_whole(self._mirror, json.dumps(mirror or {}, sort_keys=True))
        write_portion(self.folder, 0, begun)

    def add(self, portion: RunSpec, mirror: Mapping[str, Any] | None = None) -> None:
        """Adds images to a run. portion: as the run was begun, but with their plan and files alone.

        mirror: attributes of the input store as it is now; of groups that are not there any more, those of then stay.
        """
        if mirror and (known := self.mirror()) != (now := {**known, **mirror}):
            write_whole(self._mirror, json.dumps(now, sort_keys=True))
        write_portion(self.folder, portion_count(self.folder), portion)

    def load(self) -> RunSpec:
        """What `create` was given, and what was added since; MismatchError where it is damaged or of another format."""
        return read_portions(self.folder)

    def plan_state(self) -> tuple[int, ...]:
        """Changes when the plan is rewritten or images are added; zeros if there is no plan."""
        return portions_state(self.folder)

    def finish_state(self) -> tuple[int, int, int]:
        """Changes when `finish` writes a new note; zeros if there is no note."""
        return file_state(self._finished)

    def plan_sha256(self) -> str:
        """The hash of the plan, with all that was added to it; raises OSError without one."""
        return portions_sha256(self.folder)

    @property
    def portions(self) -> int:
        """In how many portions the images came; 0 without a plan."""
        return portion_count(self.folder)

    def mirror(self) -> dict[str, Any]:
        """What `create` was given of the input store."""
        return dict(json.loads(self._mirror.read_text(encoding="utf-8")))

    def bind(self, machine: dict[str, str]) -> None:
        """Notes how results are computed; MismatchError where it was another way before.

        What `auto` stands for depends on the machine, and a run must not mix two ways in silence.
        """
        if self._machine.is_file():
            earlier = json.loads(self._machine.read_text(encoding="utf-8"))
            names = dict.fromkeys([*machine, *earlier])
            different = [
                f"{k}: {earlier.get(k)} -> {machine.get(k)}" for k in names if earlier.get(k) != machine.get(k)
            ]
            if different:
                raise MismatchError(
                    f"{self.folder} was begun another way ({'; '.join(different)}). Ask for that with --precision, "
                    "--device and the same variables, give another OUT, or start over with --overwrite."
                )
            return
        write_whole(self._machine, json.dumps(machine, sort_keys=True))

    def machine(self) -> dict[str, str]:
        """What `bind` noted; empty before that."""
        try:
            return dict(json.loads(self._machine.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

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
        """Adds a line to the run's log, with the time; the log is for people; no run reads it."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        with open(self._log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{moment} {' '.join(readable(line).split())}\n")

    def commit(self, unit: Unit, marker: Marker, nuclei: str) -> None:
        """Records a unit whose shard is on disk: its rows of nuclei.csv first, its marker last."""
        self._take_apart(unit)
        rows = nuclei.encode("utf-8", "surrogateescape")
        write_whole(self.part(unit), rows)
        self.note_seen(unit, dataclasses.replace(marker, part_sha256=hashlib.sha256(rows).hexdigest()))

    def note_seen(self, unit: Unit, marker: Marker) -> None:
        """Writes a unit's marker alone, where nothing but the times of its images is new."""
        record = {
            "planes": [_fields(plane) for plane in marker.planes],
            "shard_bytes": marker.shard_bytes,
            "sha256": marker.sha256,
            "seen": [None if seen is None else list(_fields(seen).values()) for seen in marker.seen],
            "part_sha256": marker.part_sha256,
        }
        write_whole(self._marker(unit), json.dumps(record, sort_keys=True))

    def retract(self, unit: Unit) -> None:
        """Takes the marker of a unit away, before its files are written again or because they are damaged."""
        self._finished.unlink(missing_ok=True)
        self._take_apart(unit)
        self._marker(unit).unlink(missing_ok=True)

    def marker(self, unit: Unit, digests: dict[str, bytes] | None = None) -> Marker | None:
        """The marker of a unit; None where the unit is not done, or its marker or part is damaged.

        digests: takes the hash of what was read, by the name of its file, for `state`.
        """
        try:
            record = json.loads(_read(self._marker(unit), digests))
            done = RegionOutcome if unit.label_array.regional else PlaneResult
            planes = tuple(Failure(**plane) if "stage" in plane else done(**plane) for plane in record["planes"])
            seen = tuple(
                None if one is None else PlaneFingerprint(*one[:3], *map(_nested, one[3:])) for one in record["seen"]
            )
            part_bytes = sum(plane.part_bytes for plane in planes if isinstance(plane, PlaneResult))
            if [plane.image for plane in planes] != unit.keys:
                return None
            if self.part(unit).stat().st_size != part_bytes or len(seen) != len(planes):
                return None
            rest = str(record["sha256"]), seen, str(record["part_sha256"])
            return Marker(planes, int(record["shard_bytes"]), *rest)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def marker_count(self) -> int:
        """How many units have markers, read or not."""
        return sum(1 for path in (self.folder / "units").glob("*.json") if not path.name.startswith("."))

    def keep_region(self, unit: Unit, found: bytes) -> str:
        """Keeps what was found in a region of a large plane, and returns its sha256; its marker is committed after."""
        write_whole(self.region_file(unit), found)
        return hashlib.sha256(found).hexdigest()

    def has_region(self, unit: Unit) -> bool:
        """Whether what was found in a region is there."""
        return self.region_file(unit).is_file()

    def region(self, unit: Unit) -> bytes:
        """What `keep_region` kept; raises OSError where it is gone."""
        return self.region_file(unit).read_bytes()

    def commit_plane(self, large: LargePlane, joined: MergedPlane) -> None:
        """Records a large plane whose shards and rows are on disk."""
        write_whole(self._plane(large), json.dumps(dataclasses.asdict(joined), indent=0, sort_keys=True))

    def retract_plane(self, large: LargePlane) -> None:
        """Takes the record of a large plane away, before its shards are written again or because they are damaged."""
        self._finished.unlink(missing_ok=True)
        self._plane(large).unlink(missing_ok=True)

    def plane(self, large: LargePlane, digests: dict[str, bytes] | None = None) -> MergedPlane | None:
        """What `commit_plane` recorded; None where the plane is not joined yet, or its record or rows are damaged.

        digests: as for `marker`.
        """
        try:
            record = json.loads(_read(self._plane(large), digests))
            result = PlaneResult(**record["result"])
            sizes, hashes = tuple(map(int, record["shard_bytes"])), tuple(map(str, record["sha256"]))
            joined = MergedPlane(result, sizes, hashes, str(record["part_sha256"]))
            whole = self.plane_part(large).stat().st_size == result.part_bytes
            whole &= len(sizes) == len(hashes) == len(large.units)
            return joined if whole and result.image == large.plane.image.key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def plane_part(self, large: LargePlane) -> Path:
        """The rows of nuclei.csv of a large plane."""
        return self.folder / "planes" / f"{large.name}.nuclei.csv"

    def plane_committed_ns(self, large: LargePlane) -> int:
        """When a large plane was joined, in nanoseconds."""
        return self._plane(large).stat().st_mtime_ns

    def committed_ns(self, unit: Unit) -> int:
        """When a unit that is done was committed, in nanoseconds."""
        return self._marker(unit).stat().st_mtime_ns

    def part(self, unit: Unit) -> Path:
        """The unit's rows of nuclei.csv."""
        return self.folder / "parts" / f"{unit.name}.nuclei.csv"

    def state(
        self, units: Iterable[Unit], planes: Iterable[LargePlane], digests: Mapping[str, bytes] | None = None
    ) -> str:
        """A hash of all markers, which tells whether anything was committed since it was last computed.

        digests: hashes of markers that were read already; it is then the state of when they were read.
        """
        state, known = hashlib.sha256(), dict(digests or {})
        for path in itertools.chain(map(self._marker, units), map(self._plane, planes)):
            if path.name not in known:
                with contextlib.suppress(FileNotFoundError):
                    _read(path, known)
            state.update(known.pop(path.name, b"") + b"|")
        return state.hexdigest()

    def finish(self, finished: FinishRecord) -> None:
        """Notes that the tables are written."""
        write_whole(self._finished, json.dumps(dataclasses.asdict(finished), sort_keys=True))

    def finished(self) -> FinishRecord | None:
        """What `finish` noted last; None where anything was begun after it."""
        try:
            return FinishRecord(**json.loads(self._finished.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def reopen(self) -> None:
        """Forgets that the tables are written."""
        self._finished.unlink(missing_ok=True)

    def remove_leftovers(self, units: Iterable[Unit]) -> None:
        """Deletes what killed processes left of some units under temporary names; nobody else may be at the units."""
        names = {path.name for unit in units for path in (self._marker(unit), self.part(unit), self.region_file(unit))}
        for folder in ("units", "parts", "regions"):
            remove_leftovers(self.folder / folder, names)

    def remove_common_leftovers(self) -> None:
        """The same of what all shares have in common; only under the root lock."""
        remove_leftovers(self.folder)
        for name in ("planes", VOLUME_RECORDS, TRACK_RECORDS):
            remove_leftovers(self.folder / name)

    def clear(self) -> None:
        """Forgets the run; the plan goes first, so that half a clearing is no run at all. Locks and logs stay."""
        own = self._plan, self.config, self._mirror, self._machine, self._scales, self._finished
        for path in (*own, self.folder / CONTROLS):
            path.unlink(missing_ok=True)
        remove_portions(self.folder)
        for name in (*FOLDERS, VOLUME_RECORDS, TRACK_RECORDS, VERIFIED, BEGUN, TIMINGS, FLAT_FIELDS):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _take_apart(self, unit: Unit) -> None:
        """Forgets that the plane of a region was joined: what it was joined from is not what is there."""
        if unit.label_array.regional:
            self.retract_plane(LargePlane.of(unit))

    def _marker(self, unit: Unit) -> Path:
        return self.folder / "units" / f"{unit.name}.json"

    def _plane(self, large: LargePlane) -> Path:
        return self.folder / "planes" / f"{large.name}.json"

    def region_file(self, unit: Unit) -> Path:
        """What was found in a region of a large plane."""
        return self.folder / "regions" / f"{unit.name}.found"


def _is_own(name: str) -> bool:
    """Whether a name in a run folder is one that a run of ours leaves."""
    return (
        name in OWN_NAMES
        or is_portion(name)
        or (name.startswith("log-") and name.endswith(".txt"))
        or name.endswith(PARTIAL)
    )


def _read(path: Path, digests: dict[str, bytes] | None) -> bytes:
    """The content of a file, whose hash is noted; of one that is not there, that it is not."""
    if digests is not None:
        digests[path.name] = b""
    content = path.read_bytes()
    if digests is not None:
        digests[path.name] = hashlib.sha256(content).digest()
    return content


def _fields(record: PlaneResult | RegionOutcome | Failure | PlaneFingerprint) -> dict[str, Any]:
    """The fields of a record by name; unlike dataclasses.asdict it copies nothing."""
    return {name: getattr(record, name) for name in type(record).__dataclass_fields__}


def _nested(value: Any) -> Any:
    return tuple(map(tuple, value)) if isinstance(value, list) else value
