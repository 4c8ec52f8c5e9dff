"""Images that came to IN since a run was planned: those that can be added to it, as a portion of their own.

What was decided for the run stays as it is: its tables' columns, scales, flat fields and the channels of its images.
Images that would need it to be otherwise are not added.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from nucseg_batch.errors import ImageError, MismatchError, OutputError, UsageError
from nucseg_batch.executors.colours import colour_assumptions
from nucseg_batch.executors.existing import unplanned
from nucseg_batch.executors.plannable import plannable
from nucseg_batch.executors.progress import Progress
from nucseg_batch.files.find.entries import Discovery, FileEntry
from nucseg_batch.files.find.header_scan import scan_headers
from nucseg_batch.files.find.select import image_info
from nucseg_batch.files.masks.in_place import check_labels
from nucseg_batch.files.masks.pixels import storable
from nucseg_batch.files.names import counted
from nucseg_batch.files.opened import State
from nucseg_batch.files.run.plan_file import PlannedFiles
from nucseg_batch.files.run.records import RunSpec
from nucseg_batch.plan import Assumption, ImageInfo, Plan, channel_names, check_compartments, make_plan, merged
from nucseg_batch.settings import ESTIMATE, RunSettings, SegmentSettings

GROWN = "other time points or z-slices than when the run was planned"
"""What is said of images whose axes have another length now: a mask cannot grow, since it would not keep its bytes."""
UNWRITTEN = "none of its chunks is there yet; run the same command again when it is complete"
"""What is said of images in zarr stores of which only the metadata are there."""
ELSEWHERE = "segment them into another OUT, or start over with --overwrite"


def new_images(
    begun: RunSpec,
    found: Discovery,
    present: Mapping[str, State],
    options: RunSettings,
    settings: SegmentSettings,
    pattern: str | None,
    progress: Progress,
    *,
    dry: bool = False,
) -> tuple[RunSpec | None, list[str]]:
    """The portion that is to be added to a run, None where there is none; and lines for the user about new images.

    found: all of IN; present: size and time of what was found, by key; dry: whether nothing will be added. Raises
    MismatchError where `options.new` refuses new images, and UsageError where their pixels do not fit distances in
    micrometres.
    """
    new, mended = unplanned(begun.files, present, begun.plan)
    grown = _grown(begun.plan, found, settings)
    what = {"new": new, "could not be used when the run was planned, and changed since": mended, GROWN: grown}
    if not any(what.values()):
        return None, []
    reason = _refused(begun, options, pattern)
    if options.new == "refuse":
        first = "; ".join(f"{counted(keys)}: {text}" for text, keys in what.items() if keys)
        raise MismatchError(f"--new refuse: {first}. Use --new add or report, or another OUT.")
    lines = [f"{counted(grown)}: {GROWN}; what is new is not in this run; {ELSEWHERE}"] if grown else []
    if reason is not None:
        del what[GROWN]
        return None, [
            *lines,
            *(f"{counted(keys)}: {text}; not in this run; {reason}" for text, keys in what.items() if keys),
        ]
    portion, left_out = _portion(begun, found, new | mended, settings, progress)
    lines += [f"{counted(keys)}: new; not in this run; {reason}" for reason, keys in left_out.items()]
    if portion is not None:
        planned = {image.key for label_array in portion.plan.label_arrays for image in label_array.images}
        for text, keys in what.items():
            if keys & planned:
                lines.append(f"{counted(keys & planned)}: {text}; {'would be ' * dry}added to the run")
        if portion.plan.failures:
            refused = {failure.image for failure in portion.plan.failures}
            lines.append(f"{counted(refused)}: new, and cannot be used; see the table of failures")
    return portion, lines


def _refused(begun: RunSpec, options: RunSettings, pattern: str | None) -> str | None:
    """Why no image is added at all; None where images are."""
    if options.new == "report":
        return "add them with --new add"
    if options.share is not None:
        return "a share adds no images; add them with `nucseg-batch plan IN OUT.zarr --shares N`"
    if pattern != begun.pattern:
        asked = f"--pattern {begun.pattern}" if begun.pattern else "no --pattern"
        return f"the run was planned with {asked}; give that to add images, or {ELSEWHERE}"
    return None


def _portion(
    begun: RunSpec, found: Discovery, keys: set[str], settings: SegmentSettings, progress: Progress
) -> tuple[RunSpec | None, dict[str, set[str]]]:
    """The portion of some new images, and the keys of those that are left out by the reason."""
    left_out: dict[str, set[str]] = defaultdict(set)
    taken = {label_array.name for label_array in begun.plan.label_arrays}
    files = {file for image in _images(begun.plan) for file in (image.key, *image.files)}
    chosen: dict[str, FileEntry] = {}
    for entry in (entry for entry in found.entries if entry.key in keys):
        if entry.blank:
            left_out[UNWRITTEN].add(entry.key)
        elif entry.group in taken:
            left_out[f"masks of the run are in its place in OUT; {ELSEWHERE}"].add(entry.key)
        elif not files.isdisjoint((entry.key, *entry.files)):
            left_out[f"a file of it belongs to an image of the run; {ELSEWHERE}"].add(entry.key)
        else:
            chosen[entry.key] = entry
    missing = tuple(failure for failure in found.failures if failure.image in keys)
    here = replace(found, failures=missing, assumptions=_unknown(found.assumptions, begun.assumptions))
    total = len(chosen)
    scanned = scan_headers(
        here,
        replace(settings, with_images=False),
        lambda done: progress.headers(done, total),
        headers=False,
        only=chosen.keys(),
    )
    estimated = settings.flatfield == ESTIMATE
    images, failures = plannable(scanned, replace(settings, flatfield=None) if estimated else settings)
    if settings.with_images:
        images, refused = storable(images)
        failures = [*failures, *refused]
    kept, fit = [], _Fit(begun.plan, settings)
    for image in images:
        if (reason := fit.trouble(image)) is not None:
            left_out[f"{reason}; {ELSEWHERE}"].add(image.key)
        elif begun.in_place and (reason := _label_trouble(image, found.root, settings)) is not None:
            left_out[reason].add(image.key)
        else:
            kept.append(image)
    if not kept and not failures:
        return None, left_out
    plan = make_plan(
        kept,
        failures,
        region=settings.region,
        labels=settings.labels,
        linked=settings.link == "z",
        portion=begun.portions,
    )
    check_compartments(plan, settings)
    assumptions = merged([*scanned.found.assumptions, *colour_assumptions(plan, found.root, settings)])
    parts = chosen.keys() - {image.key for image in kept} - set[str]().union(*left_out.values())
    others = PlannedFiles(plan, _states({*parts, *(failure.image for failure in failures)}, chosen))
    return replace(begun, plan=plan, files=others, assumptions=assumptions, portions=1, discarded=0), left_out


def _grown(plan: Plan, found: Discovery, settings: SegmentSettings) -> set[str]:
    """Keys of images that changed and have other time points or z-slices than they were planned with."""
    entries = {entry.key: entry for entry in found.entries}
    planned: dict[str, ImageInfo] = {}
    now: list[ImageInfo] = []
    for image in _images(plan):
        entry = entries.get(image.key)
        if entry is None or entry.header is None:
            if (
                entry is not None
                and entry.group is None
                and (entry.size, entry.mtime_ns) != (image.size, image.mtime_ns)
            ):
                planned[image.key] = image
        elif (entry.header.size, entry.header.mtime_ns) != (image.size, image.mtime_ns):
            planned[image.key] = image
            with contextlib.suppress(ImageError):
                now.append(image_info(image.key, entry.header, settings, nuclei=image.nuclei, group=image.group))
    files = {key for key in planned if entries[key].header is None}
    if files:
        alone = replace(settings, with_images=False, flatfield=None)
        scanned = scan_headers(replace(found, failures=()), alone, lambda done: None, headers=False, only=files)
        now += plannable(scanned, alone)[0]
    return {image.key for image in now if (image.t, image.z) != (planned[image.key].t, planned[image.key].z)}


def _label_trouble(image: ImageInfo, root: str, settings: SegmentSettings) -> str | None:
    """Why an image in a store cannot take labels; None where it can."""
    try:
        check_labels(
            Path(root),
            make_plan([image], region=settings.region, labels=settings.labels, linked=settings.link == "z"),
            advice="delete them to add the image",
        )
    except (UsageError, OutputError) as error:
        return str(error).rstrip(".")
    return None


def _images(plan: Plan) -> Iterable[ImageInfo]:
    return (image for label_array in plan.label_arrays for image in label_array.images)


def _unknown(now: Iterable[Assumption], earlier: Iterable[Assumption]) -> tuple[Assumption, ...]:
    """What finding assumed of all images that it had not assumed when the run was planned."""
    known = {replace(one, images=1, example="") for one in earlier}
    return tuple(one for one in now if replace(one, images=1, example="") not in known)


def _states(keys: Iterable[str], chosen: Mapping[str, FileEntry]) -> dict[str, State]:
    """Size and time of what was found and is not segmented, by key; zeros for what was listed and is missing."""
    return {key: (chosen[key].size, chosen[key].mtime_ns) if key in chosen else (0, 0) for key in sorted(keys)}


class _Fit:
    """Which images fit what was decided for a run."""

    def __init__(self, plan: Plan, settings: SegmentSettings) -> None:
        sizes = (size for label_array in plan.label_arrays for size in label_array.pixel_sizes)
        self._channels = frozenset(plan.channel_names)
        self._micrometres = {settings.pixel_size, *sizes} != {None}
        self._fields: dict[tuple[int, int], set[str]] | None = None
        if settings.flatfield == ESTIMATE:
            self._fields = defaultdict(set)
            for image in _images(plan):
                self._fields[image.height, image.width].update(channel_names(image))

    def trouble(self, image: ImageInfo) -> str | None:
        """Why an image that can be segmented does not fit; None where it does."""
        other = next((name for name in image.names if name not in self._channels), None)
        if other is not None:
            return f"the tables have no columns for channel {other}"
        if image.pixel_size is not None and not self._micrometres:
            return "its pixel size is known, and the tables have no columns in micrometres"
        if self._fields is not None:
            known = self._fields.get((image.height, image.width), set())
            if not known.issuperset(channel_names(image)):
                return "the run has no flat field for it"
        return None
