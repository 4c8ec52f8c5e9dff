"""What a call is to do, before anything is written: a new run, one that goes on, or a share of one.

Keras is not needed, so that refusing, planning and finding everything done are quick.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nucseg_batch.arrays.tracks import check_tracker
from nucseg_batch.errors import ImageError, InputMissingError, MismatchError, UsageError
from nucseg_batch.executors.colours import colour_assumptions
from nucseg_batch.executors.existing import (
    check_beside,
    check_fingerprint,
    check_formats,
    check_no_links,
    check_output,
    check_shares,
    default_model,
    fingerprint,
    found_files,
    other_files,
    starts_linking,
)
from nucseg_batch.executors.new_images import new_images
from nucseg_batch.executors.plannable import plannable
from nucseg_batch.executors.progress import Progress
from nucseg_batch.files.find.channel_files import with_channels
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.entries import Discovery
from nucseg_batch.files.find.header_scan import none_usable, scan_headers
from nucseg_batch.files.masks.in_place import check_labels
from nucseg_batch.files.masks.store import Metadata
from nucseg_batch.files.names import name_beside
from nucseg_batch.files.opened import state_of
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.plan_file import PlannedFiles
from nucseg_batch.files.run.portions import joined_run
from nucseg_batch.files.run.records import RunSpec
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.files.run.used_config import used_config
from nucseg_batch.files.run_layout import ONE_LOG, PLAN, SHARE_LOG, RunLayout, check_is_store
from nucseg_batch.plan import (
    Assumption,
    LargePlane,
    Plan,
    Unit,
    check_compartments,
    check_movies,
    check_stacks,
    doubt_error,
    make_plan,
    merged,
    with_links,
)
from nucseg_batch.settings import RunSettings, SegmentSettings

TOLD_ASSUMPTIONS = 20
"""Assumptions that are printed when a run begins; `inspect` and the provenance have all."""


@dataclass(frozen=True)
class Job:
    """A run, and which part of it this process does, before anything is written."""

    store: Path
    """OUT."""
    begun: RunSpec
    """The plan and all that it was made with."""
    settings: SegmentSettings
    """How to segment: those of the plan, but for what only changes the speed."""
    options: RunSettings
    """How to go on."""
    resumed: bool
    """Whether the plan is that of an earlier call."""
    overwrite: bool = False
    """Whether what is at OUT may be deleted."""
    mirror: Metadata = field(default_factory=dict)
    """OME-Zarr attributes of what IN holds, whose structure OUT keeps."""
    known: Mapping[str, tuple[int, int]] | None = None
    """Size and time of last change of the images as they are now, by key; None where nobody has looked."""
    plan_state: tuple[int, ...] = (0, 0, 0)
    """`Journal.plan_state` from before the plan was read."""
    added: RunSpec | None = None
    """Images that are to be added to the run; they are in `begun`, too."""
    config: str = ""
    """Of a new run, the file for `--config` that does the same again."""
    starts_linking: bool = False
    """Whether a run that was begun without --link has one from now on."""
    leaves_tables: bool = False
    """Whether a share leaves the tables to `finish`, also if it is the last."""

    @property
    def plan(self) -> Plan:
        """What is to be done in all."""
        return self.begun.plan

    @property
    def model(self) -> Path:
        """The model file."""
        return Path(self.begun.model) if self.begun.model else default_model()

    @property
    def journal(self) -> Journal:
        """The run folder."""
        share = self.options.share
        return Journal(self.store, ONE_LOG if share is None else SHARE_LOG.format(share))

    @cached_property
    def table(self) -> NucleiTable:
        """The columns of nuclei.csv, which depend on all images."""
        sizes = {
            self.begun.settings.pixel_size,
            *(size for label_array in self.plan.label_arrays for size in label_array.pixel_sizes),
        }
        return NucleiTable(self.plan.channel_names, sizes != {None}, self.begun.settings.extra_columns)

    @property
    def layout(self) -> RunLayout:
        """Where its results are."""
        return layout_of(self.store, self.begun.settings)

    @property
    def shares(self) -> list[int]:
        """The shares that this process does."""
        return list(range(self.begun.shares)) if self.options.share is None else [self.options.share]

    def units(self) -> Iterator[Unit]:
        """The units that are this process's to do, done or not."""
        if self.options.share is None:
            return self.plan.units()
        return self.plan.share(self.options.share, self.begun.shares)

    def own_planes(self) -> Iterator[LargePlane]:
        """Large planes all of whose regions are this process's to do."""
        own = {unit.name for unit in self.units() if unit.label_array.regional}
        return (large for large in self.plan.large_planes() if all(unit.name in own for unit in large.units))


def prepare(
    place: str | Path,
    store: Path,
    model: Path | None,
    settings: SegmentSettings,
    progress: Progress,
    *,
    overwrite: bool = False,
    pattern: str | None = None,
    in_place: bool = False,
    shares: int | None = None,
    options: RunSettings | None = None,
    select: Callable[[Discovery], Discovery] = lambda found: found,
    dry: bool = False,
) -> Job:
    """Finds out all that can be known without Keras and without writing anything.

    place: IN, as `discover` takes it; pattern: which files of it are meant; in_place: `store` is IN itself; shares:
    into how many the run is divided, None for one, or as many as an earlier call said; select: what of all that was
    found is meant; dry: the job will not be done, which changes what is said of new images.

    Images that are new in IN are added to a resumed run as `options.new` says, but by no share.

    Raises InputMissingError without images or model, UsageError where a library is missing that an option needs,
    NothingToDoError where no image can be used, DoubtfulInputError where `settings.strict` forbids what would be
    assumed, OutputError where OUT is not ours, and MismatchError where it was made with other settings or is divided in
    another way.
    """
    place, options = str(place), options or RunSettings()
    if settings.flatfield_file is not None:
        settings = replace(settings, flatfield=os.path.abspath(settings.flatfield_file))
    check_formats(store, settings)
    if settings.link == "t":
        check_tracker()
    found = discover(place, pattern=pattern, axes=settings.axes, flat_field=settings.flatfield_file)
    found = with_channels(found, settings.channel)
    if in_place and os.path.isfile(place):
        raise UsageError(f"--in-place: IN {place} is an archive, which cannot be changed; give OUT instead.")
    if in_place and found.root != place:
        raise UsageError(f"--in-place: IN {place} is no zarr store, so it cannot hold labels; give OUT instead.")
    journal = Journal(store)
    added: RunSpec | None = None
    linking = False
    resumed, plan_state = journal.exists() and not overwrite, journal.plan_state()
    if not in_place:
        check_output(store, journal, overwrite)
    now = fingerprint(model or default_model(), settings, in_place=in_place)
    if resumed:
        begun = journal.load()
        if linking := starts_linking(begun.fingerprint, now):
            begun, options = _linked(store, begun, settings, now, options)
            what = "stacks of this run {} joined" if settings.link == "z" else "movies of this run {} linked"
            will = "would be" if dry else "are"
            progress.note(f"--link {settings.link}: {what.format(will)}; masks of planes stay as they are")
        check_fingerprint(journal, begun.fingerprint, now)
        check_shares(journal, begun.shares, shares, options.share)
        found = _with_stores(select(found), found, begun.plan)
        begun = replace(begun, root=_absolute(found.root))  # a folder that was moved, or is mounted elsewhere here
        present = found_files(found)
        if begun.files.keys().isdisjoint(present):
            raise MismatchError(
                f"None of the images that {journal.folder} was planned for is in {place}; give that IN, or another OUT."
            )
        added, lines = new_images(begun, found, present, options, settings, pattern, progress, dry=dry)
        begun = begun if added is None else joined_run([begun, added])
        _tell(replace(found, assumptions=begun.assumptions), progress)
        for line in lines:
            progress.note(line)
    else:
        found = select(found)
        plan, assumptions = _plan(place, found, settings, progress)
        begun = RunSpec(
            root=_absolute(found.root),
            model="" if model is None else str(model.absolute()),
            settings=settings,
            plan=plan,
            fingerprint=now,
            files=PlannedFiles(plan, other_files(found, plan)),
            shares=shares or 1,
            in_place=in_place,
            pattern=pattern,
            assumptions=assumptions,
        )
        check_shares(journal, begun.shares, None, options.share)
    if settings.strict and (refusal := doubt_error(begun.assumptions)):
        raise refusal
    if in_place:
        check_labels(store, begun.plan, resumed=resumed, overwrite=overwrite)
        check_beside(store, journal)
    known = _present(begun, found, settings, progress) if resumed else begun.files
    overwriting = overwrite and not resumed
    config = "" if resumed and not linking else used_config(place, begun)
    return Job(
        store,
        begun,
        settings,
        options,
        resumed,
        overwriting,
        found.metadata,
        known,
        plan_state,
        added,
        config,
        linking,
    )


def _linked(
    store: Path, begun: RunSpec, settings: SegmentSettings, now: dict[str, Any], options: RunSettings
) -> tuple[RunSpec, RunSettings]:
    """A run that was begun without --link as it is with one, and options with which no images are added.

    Raises UsageError for a share, which cannot change its run, or without stacks or movies, and OutputError where a
    table is in the way.
    """
    if options.share is not None:
        raise UsageError(
            f"--link {settings.link}: a share cannot have its run linked; give the same command without --share, or "
            f"`plan` with --link {settings.link}."
        )
    plan = with_links(begun.plan, joined=settings.link == "z")
    check_stacks(plan, settings.link)
    check_movies(plan, settings.link)
    check_no_links(store, settings.link)
    changed = replace(begun.settings, link=settings.link, z_step=settings.z_step)
    linked = replace(begun, settings=changed, plan=plan, fingerprint=now)
    return linked, replace(options, new="report" if options.new == "add" else options.new)


def layout_of(store: Path, settings: SegmentSettings) -> RunLayout:
    """Where the results of a run with these settings are."""
    return RunLayout(store, settings.table_formats, linked=settings.link == "z", tracked=settings.link == "t")


def journal_at(store: Path) -> Journal:
    """The run folder of OUT; raises InputMissingError where no run was planned there."""
    check_is_store(store)
    journal = Journal(store)
    if not journal.exists():
        lost = "is missing" if not journal.folder.is_dir() else f"has no {PLAN}"
        raise InputMissingError(
            f"{store}: no run was planned there ({journal.folder.name} {lost})"
            + (name_beside(str(store), ".zarr") or "; begin one with `nucseg-batch segment IN OUT.zarr`, or `plan`.")
        )
    return journal


def planned(
    store: Path,
    options: RunSettings | None = None,
    speed: Mapping[str, Any] | None = None,
    *,
    shares: int | None = None,
    otherwise: Callable[[int], int | None] = lambda shares: None,
) -> Job:
    """The run that was planned at OUT.

    speed: options that only change how fast it goes; shares: into how many it is expected to be divided, None for any;
    otherwise: the share where the options have none, from the number of shares.

    Raises InputMissingError where none was, and MismatchError where the model, the version or what else counts is no
    longer what it was planned with, or there is no such share.
    """
    journal = journal_at(store)
    plan_state = journal.plan_state()
    begun, options = journal.load(), options or RunSettings()
    if options.share is None:
        options = replace(options, share=otherwise(begun.shares))
    check_shares(journal, begun.shares, shares, options.share)
    model = Path(begun.model) if begun.model else default_model()
    check_fingerprint(journal, begun.fingerprint, fingerprint(model, begun.settings, in_place=begun.in_place))
    check_formats(store, begun.settings)
    now = begun.settings.with_speed(speed or {})
    return Job(store, begun, now, options, resumed=True, mirror=journal.mirror(), plan_state=plan_state)


def _present(
    begun: RunSpec, found: Discovery, settings: SegmentSettings, progress: Progress
) -> dict[str, tuple[int, int]]:
    """Size and time of last change of the planned images that are there, as they are now, by key.

    Of an image whose channels are files those count that were planned, whatever other channels it has by now.
    """
    entries, present, other = {entry.key: entry for entry in found.entries}, {}, 0
    for image in (image for label_array in begun.plan.label_arrays for image in label_array.images):
        entry = entries.get(image.key)
        if entry is None:
            continue
        if entry.files == image.files:
            present[image.key] = (entry.size, entry.mtime_ns)
            continue
        other += 1
        with contextlib.suppress(ImageError):
            present[image.key] = state_of(begun.root, image, settings)
    if other:
        images = "1 image has" if other == 1 else f"{other} images have"
        progress.note(
            f"{images} other files of channels than when the run was planned; this run measures those of then, so "
            "segment into another OUT, or start over with --overwrite"
        )
    return present


def _with_stores(selected: Discovery, found: Discovery, plan: Plan) -> Discovery:
    """What was selected, and images of the run in zarr stores, which are not gone when they are not selected."""
    if selected is found:
        return found
    known = {image.key for one in plan.label_arrays if one.group is not None for image in one.images}
    stores = (entry for entry in found.entries if entry.key in known)
    entries = {entry.key: entry for entry in (*stores, *selected.entries)}
    return replace(selected, entries=tuple(entries[key] for key in sorted(entries)))


def _absolute(root: str) -> str:
    return root if "://" in root else os.path.abspath(root)


def _tell(found: Discovery, progress: Progress) -> None:
    """Says what was passed over, and what else the user should know of what was found."""
    if found.skipped:
        what = ", ".join(f"{count} x {reason}" for reason, count in sorted(found.skipped.items()))
        progress.note(f"skipped: {what}")
    for note in found.notes:
        progress.note(note)
    for one in found.assumptions[:TOLD_ASSUMPTIONS]:
        progress.note(f"assumed: {one.text}")
    if len(found.assumptions) > TOLD_ASSUMPTIONS:
        progress.note(f"... and {len(found.assumptions) - TOLD_ASSUMPTIONS} more assumptions; inspect lists all")


def _plan(
    place: str, found: Discovery, settings: SegmentSettings, progress: Progress
) -> tuple[Plan, tuple[Assumption, ...]]:
    """The plan of all that was found, and what was assumed of it."""
    total = len(found.entries)
    scanned = scan_headers(found, settings, lambda done: progress.headers(done, total), headers=False)
    images, failures = plannable(scanned, settings)
    linked = settings.link == "z"
    plan = make_plan(images, failures, region=settings.region, labels=settings.labels, linked=linked)
    check_compartments(plan, settings)
    check_stacks(plan, settings.link)
    check_movies(plan, settings.link)
    assumptions = merged([*scanned.found.assumptions, *colour_assumptions(plan, found.root, settings)])
    _tell(replace(scanned.found, assumptions=assumptions), progress)
    if not images:
        raise none_usable(place, failures)
    return plan, assumptions
