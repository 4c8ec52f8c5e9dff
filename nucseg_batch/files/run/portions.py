"""The plans of a run: that with which it was begun, and one for each portion of images that was added since.

A plan is never changed, so that what was done of it stays as it is. A portion exists as soon as its file does. It has
label arrays of its own, and the run is all portions together, in their order.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from nucseg_batch.errors import MismatchError
from nucseg_batch.files.run.plan_file import PlannedFiles, read_plan, write_plan
from nucseg_batch.files.run.records import RunSpec
from nucseg_batch.files.run_layout import ADDED, PLAN
from nucseg_batch.plan import Assumption, joined, merged
from nucseg_batch.settings import SegmentSettings

_NAME = re.compile(r"plan-\d{6,}\.json")


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
    write_plan(_path(folder, number), begun.plan, record, number)


def read_portions(folder: Path) -> RunSpec:
    """A run with all its portions; MismatchError where a plan is damaged or of another format."""
    portions = [_read(path) for path in _paths(folder)] or [_read(_path(folder, 0))]
    return portions[0] if len(portions) == 1 else joined_run(portions)


def joined_run(portions: Sequence[RunSpec]) -> RunSpec:
    """A run of which portions are known, in their order; the first may be several that were joined."""
    plan, others = joined([portion.plan for portion in portions]), dict[str, tuple[int, int]]()
    for portion in portions:
        for label_array in portion.plan.label_arrays if others else ():
            for image in label_array.images:
                for key in (image.key, *image.files):
                    others.pop(key, None)
        others |= portion.files.others if isinstance(portion.files, PlannedFiles) else portion.files
    return dataclasses.replace(
        portions[0],
        root=portions[-1].root,
        plan=plan,
        files=PlannedFiles(plan, others),
        assumptions=merged(one for portion in portions for one in portion.assumptions),
        portions=sum(portion.portions for portion in portions),
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
        )
    except MismatchError:  # another format
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise MismatchError(f"{path} is damaged ({type(error).__name__}); start over with --overwrite.") from error
