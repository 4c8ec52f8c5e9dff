"""What is already at OUT, and what that means for a new call: go on with it, start over, or refuse. Writes nothing."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from nucseg_batch import __version__
from nucseg_batch.errors import InputMissingError, MismatchError, OutputError
from nucseg_batch.files.atomic_write import file_sha256
from nucseg_batch.files.find.entries import Discovery
from nucseg_batch.files.flat_field_file import check_flat_field_file
from nucseg_batch.files.masks.store import is_ours
from nucseg_batch.files.opened import State
from nucseg_batch.files.run.dataset import is_own_dataset, pyarrow
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run_layout import PARQUET, PLAN, RunLayout
from nucseg_batch.files.zarr.folders import is_store
from nucseg_batch.plan import Plan
from nucseg_batch.settings import TABLE_FORMATS, SegmentSettings

_MODEL, _FLAT_FIELD = "--model (sha256)", "--flatfield (sha256)"
"""What a fingerprint calls the content of files."""


def default_model() -> Path:
    """The model that ships with the package."""
    return Path(str(resources.files("nucseg_batch"))) / "models" / "default.keras"


def fingerprint(model: Path, settings: SegmentSettings, *, in_place: bool = False) -> dict[str, Any]:
    """All that can change a result and can be known without loading Keras; InputMissingError without a model."""
    if not model.is_file():
        raise InputMissingError(f"--model {model}: there is no such file. Make one with `nucseg-batch train`.")
    options = {f"--{name.replace('_', '-')}": value for name, value in settings.result_options().items()}
    packages = {name: metadata.version(name) for name in ("keras", "zarr")}
    place = {"--in-place": True} if in_place else {}
    if settings.flatfield_file is not None:
        check_flat_field_file(settings.flatfield_file)
        options[_FLAT_FIELD] = file_sha256(settings.flatfield_file)
    return {"nucseg-batch": __version__, _MODEL: file_sha256(model), **place, **options, **packages}


def check_formats(store: Path, settings: SegmentSettings) -> None:
    """Raises UsageError where the tables need a library that is not installed, OutputError where one is not ours."""
    if PARQUET not in settings.table_formats:
        return
    pyarrow("--tables parquet")
    folder = RunLayout(store, (PARQUET,)).tables["nuclei"]
    if folder.exists() and not is_own_dataset(folder):
        raise OutputError(f"{store}: {folder} belongs to no run of ours; move it, or give another name.")


def check_output(store: Path, journal: Journal, overwrite: bool) -> None:
    """Raises OutputError where OUT, or a file that belongs beside it, is not ours to go on with or delete."""
    if store.is_symlink() or (store.exists() and not store.is_dir()):
        raise OutputError(f"{store}: there is a file or link of that name; give another name.")
    around = next((parent for parent in store.absolute().parents if is_store(parent)), None)
    if around is not None:
        raise OutputError(
            f"{store}: it lies inside the zarr store {around.name}; give a place outside, or use --in-place."
        )
    if is_store(store) and not is_ours(store):  # also where a run folder says that labels were written into it
        raise OutputError(f"{store}: it exists and was not made by nucseg-batch; give another name.")
    if journal.exists():
        return
    if store.exists() and any(store.iterdir()):
        if not is_ours(store):
            raise OutputError(f"{store}: it exists and was not made by nucseg-batch; give another name.")
        if not overwrite:
            folder = journal.folder
            lost = f"{PLAN} in its run folder {folder.name}" if folder.is_dir() else f"its run folder {folder.name}"
            raise OutputError(
                f"{store}: it exists without {lost}, so nothing can be added to it; "
                "give another OUT, or start over with --overwrite."
            )
        return
    check_beside(store, journal)


def _check_room(store: Path, folder: Path) -> None:
    """Raises OutputError where the run folder, beside which the tables lie, cannot be made, as far as can be told."""
    place = next(parent for parent in folder.absolute().parents if parent.exists())
    room = os.statvfs(place)
    if not place.is_dir():
        why = "Not a directory"
    elif room.f_blocks == 0 and not place.stat().st_mode & 0o222:  # such as /proc, where root seems to have access
        why = "Not a file system on a disk"
    elif os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return
    else:
        why = "Read-only file system" if room.f_flag & os.ST_RDONLY else "Permission denied"
    raise OutputError(f"{store}: cannot write in {place} ({why}); give another place.")


def check_beside(store: Path, journal: Journal) -> None:
    """Raises OutputError where no tables can be written beside OUT, or others, or a run folder, are in the way."""
    if journal.exists():
        return
    _check_room(store, journal.folder)
    beside = [
        path for path in RunLayout(store, TABLE_FORMATS, linked=True, tracked=True).results.values() if path.exists()
    ]
    if journal.is_foreign():
        beside.append(journal.folder)
    if beside:
        raise OutputError(f"{store}: {beside[0]} belongs to no run of ours; move it, or give another name.")


def check_fingerprint(journal: Journal, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises MismatchError where a run was begun with another model, other settings or another version."""
    names = [name for name in dict.fromkeys([*now, *earlier]) if earlier.get(name) != now.get(name)]
    if "--flatfield" in names and _FLAT_FIELD in names:  # another file has another content
        names.remove(_FLAT_FIELD)
    if "--link" in names and set(names) <= {"--link", "--z-step"} and earlier["--link"] and now["--link"]:
        raise MismatchError(_not_linked(journal, earlier, now))
    different = [_difference(name, earlier.get(name), now.get(name)) for name in names]
    if different:
        raise MismatchError(
            f"{journal.folder} has other settings ({'; '.join(different)}). Use the settings of the run, "
            "give another OUT, or start over with --overwrite."
        )


def starts_linking(earlier: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a call differs from a run that was begun without --link in this alone.

    Tracks are a table of their own, and volumes a table and label images of their own, so such a run can get them:
    nothing that it has written changes.
    """
    if earlier.get("--link") is not None or now["--link"] is None:
        return False
    return {**earlier, "--link": now["--link"], "--z-step": now["--z-step"]} == now


def check_no_links(store: Path, link: str | None) -> None:
    """Raises OutputError where a table is in the way of that of a run that was begun without --link."""
    layout = RunLayout(store)
    path = layout.volumes_csv if link == "z" else layout.tracks_csv
    if path.exists():
        raise OutputError(f"{store}: {path} belongs to no run of ours; move it, or give another name.")


def _not_linked(journal: Journal, earlier: dict[str, Any], now: dict[str, Any]) -> str:
    """Why a run cannot be linked in another way, and the command that does that in another OUT."""
    start = f"{journal.folder} has --link {earlier['--link']}, and a run is linked in one way."
    if earlier.get("--in-place") or not journal.config.is_file():
        return f"{start} Give another OUT, or start over with --overwrite."
    step = "" if now["--z-step"] is None else f" --z-step {now['--z-step']:g}"
    again = f"nucseg-batch segment NEW.zarr --config {shlex.quote(str(journal.config))} --link {now['--link']}{step}"
    return f"{start} Segment into another OUT with `{again}`, or start over in this one with --overwrite."


def _difference(name: str, earlier: Any, now: Any) -> str:
    """What is not as it was; of files, no hashes."""
    if name == _MODEL:
        return "--model: another file than in the run, or one that has changed since the run began"
    if name == _FLAT_FIELD:
        return "--flatfield: the file has changed since the run began"
    return f"{name}: {_said(earlier)} in the run, {_said(now)} now"


def _said(value: Any) -> str:
    return "not given" if value is None else str(value)


def check_shares(journal: Journal, planned: int, shares: int | None, share: int | None) -> None:
    """Raises MismatchError where a run is divided in another way than was asked, or has no such share."""
    if shares is not None and shares != planned:
        raise MismatchError(
            f"{journal.folder} was planned for {planned} shares, not {shares}; ask for those, give another OUT, or "
            "start over with --overwrite."
        )
    if share is not None and share >= planned:
        raise MismatchError(
            f"--share {share}: {journal.folder} has {planned} share{'s' * (planned > 1)}, counted from 0, so the last "
            f"is {planned - 1}."
        )


def unplanned(earlier: Mapping[str, State], present: Mapping[str, State], plan: Plan) -> tuple[set[str], set[str]]:
    """What is not in a plan: keys of images that came since, and of those that could not be used and have changed."""
    new = present.keys() - earlier.keys()
    others = earlier.keys() - {image.key for label_array in plan.label_arrays for image in label_array.images}
    return set(new), {key for key in others if present.get(key, (0, 0)) not in ((0, 0), earlier[key])}


def found_files(found: Discovery) -> dict[str, State]:
    """Size and time of last change of everything that was found, by key; zeros for what was listed and is missing."""
    return {
        **{failure.image: (0, 0) for failure in found.failures},
        **{entry.key: (entry.size, entry.mtime_ns) for entry in found.entries},
    }


def other_files(found: Discovery, plan: Plan) -> dict[str, State]:
    """The same of what is no image of a plan that was made of all that was found."""
    others: dict[str, State] = {failure.image: (0, 0) for failure in found.failures}
    planned = sorted(image.key for label_array in plan.label_arrays for image in label_array.images)
    following = iter(planned)
    expected = next(following, None)
    for entry in found.entries:  # sorted, too
        if entry.key == expected:
            others.pop(expected, None)
            expected = next(following, None)
        else:
            others[entry.key] = entry.size, entry.mtime_ns
    return others
