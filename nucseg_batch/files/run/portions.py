"""The plans of a run: that with which it was begun, and one for each portion of images that was added since.

The images of a plan are never changed, so that what was done of it stays as it is. A portion exists as soon as its
file does. It has label arrays of its own, and the run is all portions together, in their order. A run of which a later
plan is lost is not read: its images would be missing in the tables without a word. That a plan is lost shows in a gap
in the numbers, and in records of units that no plan has.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucseg_batch.errors import LostPlanError, MismatchError
from nucseg_batch.files.run.plan_file import PlannedFiles, read_plan, write_plan
from nucseg_batch.files.run.records import RunSpec
from nucseg_batch.files.run_layout import ADDED, PLAN
from nucseg_batch.plan import Assumption, Plan, earlier_names, file_stem, joined, merged, with_links
from nucseg_batch.settings import SegmentSettings

UNITS = "units"
"""Folder of a run folder with a record of each unit that is done."""
_NAME = re.compile(r"plan-(\d{6,})\.json")
_ADDED_ARRAY = re.compile(r".+-added(\d{1,6})")
"""Names of label arrays of files that were added."""


def is_portion(name: str) -> bool:
    """Whether a file in a run folder is the plan of images that were added."""
    return _NAME.fullmatch(name) is not None


def portion_count(folder: Path) -> int:
    """In how many portions the images of a run came; 0 without a plan."""
    return sum(1 for _ in _paths(folder))


def portions_state(folder: Path) -> tuple[int, ...]:
    """Changes when a plan is rewritten or added; zeros if there is none."""
    try:
        found = [path.stat() for path in _paths(folder)]
    except OSError:
        found = []
    return tuple(itertools.chain.from_iterable((s.st_ino, s.st_size, s.st_mtime_ns) for s in found)) or (0, 0, 0)


def portions_sha256(folder: Path) -> str:
    """The hash of all plans, one after the other; raises FileNotFoundError where there is none."""
    digest, paths = hashlib.sha256(), list(_paths(folder))
    if not paths:
        raise FileNotFoundError(folder / PLAN)
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def write_portion(folder: Path, number: int, begun: RunSpec) -> None:
    """Writes the plan of a portion, 0 for that of a new run; it is whole and on disk when this returns."""
    files = begun.files
    if not isinstance(files, PlannedFiles):
        planned = {image.key for label_array in begun.plan.label_arrays for image in label_array.images}
        files = PlannedFiles(begun.plan, {key: state for key, state in files.items() if key not in planned})
    record = {
        "fingerprint": begun.fingerprint,
        "root": begun.root,
        "model": begun.model,
        "settings": dataclasses.asdict(begun.settings),
        "pattern": begun.pattern,
        "in_place": begun.in_place,
        "shares": begun.shares,
        "others": files.others,
        "assumptions": [dataclasses.asdict(one) for one in begun.assumptions],
    }
    if begun.discarded:
        record["discarded"] = begun.discarded
    write_plan(_path(folder, number), begun.plan, record, number)


def replace_first(folder: Path, settings: SegmentSettings, fingerprint: dict[str, Any]) -> None:
    """Writes the first plan of a run again, with other settings, by which what was done stays as it is.

    They are those of the whole run: nothing but the images is read of later plans.
    """
    write_portion(folder, 0, dataclasses.replace(_read(_path(folder, 0)), settings=settings, fingerprint=fingerprint))


def read_portions(folder: Path) -> RunSpec:
    """A run with all its portions.

    Raises MismatchError where the first plan is damaged or any is of another format, and LostPlanError where a later
    one is damaged or lost.
    """
    lost = lost_portions(folder)
    if lost.numbers:
        names = ", ".join(ADDED.format(number) for number in lost.numbers)
        what = "a plan of added images is" if len(lost.numbers) == 1 else "plans of added images are"
        raise LostPlanError(
            f"{folder}: {what} lost or damaged ({names}). Restore it from a copy, or discard what was made of these "
            "images with `nucseg-batch verify OUT.zarr --redo`; the same `segment` then adds them again."
        )
    return lost.portions[0] if len(lost.portions) == 1 else joined_run(lost.portions)


@dataclass(frozen=True)
class LostPortions:
    """Which plans of a run are there, and which are not."""

    portions: tuple[RunSpec, ...]
    """Those that can be read, in order; the first is that with which the run was begun."""
    numbers: tuple[int, ...]
    """Numbers of later ones that are lost or damaged."""
    stems: frozenset[str]
    """What the names of records of units begin with that no plan has."""


def lost_portions(folder: Path) -> LostPortions:
    """Reads all plans of a run, and finds out which are lost; MismatchError as `read_portions`, for others."""
    while True:
        stems = _stems(folder)  # before the plans: the plan of a portion is there before any of its units
        first, read, lost = _read(_path(folder, 0)), dict[int, RunSpec](), set[int]()
        state = portions_state(folder)
        for number in _numbers(folder):
            try:
                later = _read(_path(folder, number))
                read[number] = dataclasses.replace(
                    later, plan=with_links(later.plan, joined=first.settings.link == "z")
                )
            except LostPlanError:
                lost.add(number)
        portions = (first, *(read[number] for number in sorted(read)))
        arrays = (label_array for portion in portions for label_array in portion.plan.label_arrays)
        stray = stems - {file_stem(label_array.name) for label_array in arrays}
        if not stray or (stray <= _stems(folder) and portions_state(folder) == state):
            break  # else the run was begun again meanwhile
    if stray:
        lost |= {int(found[1]) for stem in stray if (found := _ADDED_ARRAY.fullmatch(stem))} - read.keys()
        lost |= set() if lost else {max(read, default=0) + 1}
    lost |= set(range(1, max((*read, *lost), default=0))) - read.keys()
    return LostPortions(portions, tuple(sorted(lost)), frozenset(stray))


def discard_portions(folder: Path, lost: LostPortions, records: Mapping[str, str]) -> int:
    """Deletes the records of units of lost portions, and puts empty plans in their place; how many units it were.

    records: folders of records, and what stands in names there between that of a label array and the number. Nobody
    else may be at the run, whose note that it is finished is gone. The images of these portions are new again.
    """
    units = 0
    for name, between in records.items():
        for path in sorted((folder / name).glob("*")):
            found = re.fullmatch(rf"(.+){between}-\d{{6,}}(\..+)?", path.name)
            if found is not None and found[1] in lost.stems:
                path.unlink(missing_ok=True)
                units += name == UNITS
    count = len(lost.portions) + len(lost.numbers)
    for number in lost.numbers:
        empty = dataclasses.replace(lost.portions[0], plan=Plan((), ()), files={}, assumptions=(), discarded=count)
        write_portion(folder, number, empty)
    return units


def joined_run(portions: Sequence[RunSpec]) -> RunSpec:
    """A run of which portions are known, in their order; the first may be several that were joined."""
    plan, others = joined([portion.plan for portion in portions]), dict[str, tuple[int, int]]()
    for portion in portions:
        for label_array in portion.plan.label_arrays if others else ():
            for image in label_array.images:
                for key in earlier_names(image):
                    others.pop(key, None)
        others |= portion.files.others if isinstance(portion.files, PlannedFiles) else portion.files
    return dataclasses.replace(
        portions[0],
        root=portions[-1].root,
        plan=plan,
        files=PlannedFiles(plan, others),
        assumptions=merged(one for portion in portions for one in portion.assumptions),
        portions=sum(portion.portions for portion in portions),
        discarded=max(portion.discarded for portion in portions),
    )


def remove_portions(folder: Path) -> None:
    """Deletes the plans of images that were added."""
    for path in folder.glob("plan-*.json"):
        if is_portion(path.name):
            path.unlink(missing_ok=True)


def _path(folder: Path, number: int) -> Path:
    return folder / (ADDED.format(number) if number else PLAN)


def _paths(folder: Path) -> Iterator[Path]:
    """The plans that are there, in order, to the first that is not."""
    return itertools.takewhile(Path.is_file, (_path(folder, number) for number in itertools.count()))


def _numbers(folder: Path) -> list[int]:
    """The numbers of all plans of added images that are there."""
    found = map(_NAME.fullmatch, os.listdir(folder))
    return sorted(int(name[1]) for name in found if name is not None)


def _stems(folder: Path) -> set[str]:
    """What the names of all records of units begin with: those of their label arrays."""
    try:
        names = os.listdir(folder / UNITS)
    except FileNotFoundError:
        return set()
    return {name.rpartition("-")[0] for name in names if name.endswith(".json") and not name.startswith(".")}


def _read(path: Path) -> RunSpec:
    try:
        plan, record = read_plan(path)
        settings = SegmentSettings(**record["settings"])
        others = {key: (int(size), int(mtime_ns)) for key, (size, mtime_ns) in record["others"].items()}
        return RunSpec(
            root=record["root"],
            model=record["model"],
            settings=settings,
            plan=plan,
            fingerprint=record["fingerprint"],
            files=PlannedFiles(plan, others),
            shares=int(record["shares"]),
            in_place=record["in_place"],
            pattern=record["pattern"],
            assumptions=tuple(Assumption(**one) for one in record["assumptions"]),
            discarded=int(record.get("discarded", 0)),
        )
    except MismatchError:  # another format
        raise
    except (ValueError, KeyError, TypeError) as error:
        if path.name != PLAN:
            raise LostPlanError(f"{path} is damaged ({type(error).__name__}).") from error
        raise MismatchError(f"{path} is damaged ({type(error).__name__}); start over with --overwrite.") from error
