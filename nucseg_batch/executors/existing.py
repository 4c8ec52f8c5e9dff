"""What is already at OUT, and what that means for a new call: go on with it, start over, or refuse. Writes nothing."""

from __future__ import annotations

import hashlib
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from nucseg_batch import __version__
from nucseg_batch.errors import InputMissingError, MismatchError, OutputError
from nucseg_batch.files.find.entries import Discovery
from nucseg_batch.files.find.stores import is_store
from nucseg_batch.files.masks.store import is_ours, masks_changed_ns, shard_bytes
from nucseg_batch.files.run.finish import table_paths
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.plan import LargePlane, Plan, Unit
from nucseg_batch.settings import SegmentSettings


def default_model() -> Path:
    """The model that ships with the package."""
    return Path(str(resources.files("nucseg_batch"))) / "models" / "default.keras"


def fingerprint(model: Path, settings: SegmentSettings, *, in_place: bool = False) -> dict[str, Any]:
    """All that can change a result and can be known without loading Keras; InputMissingError without a model."""
    if not model.is_file():
        raise InputMissingError(f"--model {model}: there is no such file. Make one with `nucseg-batch train`.")
    with open(model, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    options = {f"--{name.replace('_', '-')}": value for name, value in settings.result_options().items()}
    packages = {name: metadata.version(name) for name in ("keras", "zarr")}
    place = {"--in-place": True} if in_place else {}
    return {"nucseg-batch": __version__, "--model (sha256)": digest, **place, **options, **packages}


def check_output(store: Path, journal: Journal, overwrite: bool) -> None:
    """Raises OutputError where OUT, or a file that belongs beside it, is not ours to go on with or delete."""
    if store.is_symlink() or (store.exists() and not store.is_dir()):
        raise OutputError(f"OUT {store}: there is a file or link of that name; give another name.")
    around = next((parent for parent in store.absolute().parents if is_store(str(parent))), None)
    if around is not None:
        raise OutputError(
            f"OUT {store}: it lies inside the zarr store {around.name}; give a place outside, or use --in-place."
        )
    if is_store(str(store)) and not is_ours(store):  # also where a run folder says that labels were written into it
        raise OutputError(f"OUT {store}: it exists and was not made by nucseg-batch; give another name.")
    if journal.exists():
        return
    if store.exists() and any(store.iterdir()):
        if not is_ours(store):
            raise OutputError(f"OUT {store}: it exists and was not made by nucseg-batch; give another name.")
        if not overwrite:
            raise OutputError(
                f"OUT {store}: it exists without its run folder {journal.folder.name}, so nothing can be added to it; "
                "give another OUT, or start over with --overwrite."
            )
        return
    check_beside(store, journal)


def check_beside(store: Path, journal: Journal) -> None:
    """Raises OutputError where tables or a run folder that are no run of ours are in the way of a new one."""
    if journal.exists():
        return
    beside = [path for path in table_paths(store).values() if path.exists()]
    if journal.is_foreign():
        beside.append(journal.folder)
    if beside:
        raise OutputError(f"OUT {store}: {beside[0]} belongs to no run of ours; move it, or give another name.")


def resumed_plan(journal: Journal, found: Discovery, now: dict[str, Any]) -> Plan:
    """The plan of the run at OUT; MismatchError where settings or images differ from those it was begun with."""
    plan, earlier, files = journal.load()
    different = [
        f"{name}: {earlier.get(name)!r} -> {now.get(name)!r}"
        for name in dict.fromkeys([*now, *earlier])
        if earlier.get(name) != now.get(name)
    ]
    if different:
        raise MismatchError(
            f"{journal.folder} was made with other settings ({'; '.join(different)}). Use those again, give another "
            "OUT, or start over with --overwrite."
        )
    present = found_files(found)
    changes = {
        "new": sorted(present.keys() - files.keys()),
        "gone": sorted(files.keys() - present.keys()),
        "changed": sorted(key for key in files.keys() & present.keys() if files[key] != present[key]),
    }
    parts = [f"{len(keys)} {word} ({keys[0]}{', ...' * (len(keys) > 1)})" for word, keys in changes.items() if keys]
    if parts:
        raise MismatchError(
            f"The images are no longer those that {journal.folder} was planned for: {', '.join(parts)}. Give another "
            "OUT, or start over with --overwrite."
        )
    return plan


def found_files(found: Discovery) -> dict[str, tuple[int, int]]:
    """Size and time of last change of everything that was found, by key; zeros for what was listed and is missing."""
    return {
        **{failure.image: (0, 0) for failure in found.failures},
        **{entry.key: (entry.size, entry.mtime_ns) for entry in found.entries},
    }


def missing_units(store: Path, plan: Plan, journal: Journal) -> list[Unit]:
    """Units that are not done, whose masks are not all there any more, or in which an image failed.

    Raises MismatchError where masks were changed after they were written: somebody corrected them, and to do them again
    would lose that.
    """
    missing = []
    for unit in plan.units():
        marker = journal.marker(unit)
        if marker is None or marker.failures or (unit.stack.regional and not journal.has_region(unit)):
            missing.append(unit)
        elif not unit.stack.regional and marker.shard_bytes != shard_bytes(store, unit):
            _check_unchanged(store, unit, journal, journal.committed_ns(unit))
            missing.append(unit)
    return missing


def planes_apart(store: Path, plan: Plan, journal: Journal) -> list[LargePlane]:
    """Large planes whose regions are not joined, or whose masks are not all there any more; raises as above."""
    apart = []
    for large in plan.large_planes():
        joined = journal.plane(large)
        if joined is None:
            apart.append(large)
            continue
        changed = [unit for unit, size in zip(large.units, joined[1], strict=True) if size != shard_bytes(store, unit)]
        for unit in changed:
            _check_unchanged(store, unit, journal, journal.plane_committed_ns(large))
        if changed:
            apart.append(large)
    return apart


def _check_unchanged(store: Path, unit: Unit, journal: Journal, committed_ns: int) -> None:
    if masks_changed_ns(store, unit) > committed_ns:
        raise MismatchError(
            f"OUT {store}: the masks of {unit.stack.name or 'its image'} were changed after they were written. To keep "
            f"the changes delete {journal.folder.name}; to segment again use --overwrite, or another OUT."
        )
