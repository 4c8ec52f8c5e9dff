"""Images whose channels a microscope wrote as separate files: put together by name, and read as one.

One file shows the nuclei and is segmented; its key is the image's. The others of its place are measured. Which shows
the nuclei is said by `--channel`, by a `--pattern` that only one channel's files match, or by a name that tells of a
stain of DNA. Where none of these decides the whole input is refused, since to segment every channel would be wrong.
An image whose file with the nuclei is missing fails; one that lacks another file has no values for that channel.

Each depth that is a file of its own is an image by itself; so is each time point.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nucseg_batch.errors import ImageError, UsageError
from nucseg_batch.files.find.channel_metadata import MAX_PIXELS, KnownChannel, known_channels
from nucseg_batch.files.find.channel_naming import (
    ONLY,
    ChannelName,
    acquisition,
    depth_of,
    named_by_token,
    projections,
    read_names,
    without_channel,
)
from nucseg_batch.files.find.channel_words import word_of
from nucseg_batch.files.find.discover import UNMATCHED
from nucseg_batch.files.find.entries import Discovery, FileEntry
from nucseg_batch.files.find.select import COLOURS, EACH, choose_channel
from nucseg_batch.files.find.skipped import first_names
from nucseg_batch.files.images import open_file
from nucseg_batch.files.source import ChannelInfo
from nucseg_batch.files.tiff.ome import files_of_set
from nucseg_batch.files.zarr.store import is_url
from nucseg_batch.plan import Assumption, Failure

WITHOUT = "image at a depth without the channel of the nuclei"
"""Why images of a plate are passed over."""
MERGE = "merge of channels that lie beside it"
"""Why pictures of several channels together are passed over."""
SHOWN_TOKENS = 8
"""Channels that a line for the user names."""


def with_channels(found: Discovery, wanted: str) -> Discovery:
    """What was found, with files that are channels of one image put together.

    wanted: `settings.channel`; `each` leaves every file an image by itself. Images of which the file that shows the
    nuclei is missing become failures of stage `plan`. Raises UsageError where it is not clear which channel that is.
    """
    if wanted.lower() == EACH or is_url(found.root):
        return found
    files = {entry.key: entry for entry in (*found.entries, *found.unmatched) if entry.kind == "file"}
    matched = {entry.key for entry in found.entries}
    reading = read_names(files)
    names = _agreeing(found.root, reading.names, files)
    for group in reading.rejected:
        if wanted.lower() in {name.token.lower() for name in group}:
            names = sorted([*names, *group], key=lambda name: name.key)
    if not names and re.fullmatch(r"[A-Za-z0-9]+", wanted) and wanted.lower() not in ("auto", *COLOURS):
        names = named_by_token(files, wanted)
    names = _without_sets(found.root, names)
    plates: dict[str, list[ChannelName]] = defaultdict(list)
    for name in names:
        plates[acquisition(name.folder)].append(name)
    joined = _Joined()
    joined.merges = [key for key in reading.merges if key in matched]
    joined.notes += [
        f"{folder or 'IN'}: {count} files beside folders ZStep_, most likely projections; these and the depths are all "
        "images by themselves"
        for folder, count in projections(matched).items()
    ]
    if wanted.lower() == ONLY:
        joined.choose(key for key in matched if without_channel(key) and acquisition(_folder(key)) not in plates)
    for folder, members in sorted(plates.items()):
        asked = {name.token.lower() for name in members if name.key in matched}
        if not asked or len({name.token.lower() for name in members}) < 2:
            joined.choose(name.key for name in members if wanted.lower() in (name.token.lower(), name.alias.lower()))
            continue  # one channel: its files are images like any others
        if len(asked) > 1:
            members = [name for name in members if name.key in matched]
        plate = _plate(found.root, folder, members, asked, wanted)
        joined.assume(plate, wanted)
        joined.add(plate, files, matched)
    if wanted.lower() == "auto":
        joined.assumptions += [one for group in reading.rejected if (one := _by_themselves(group, matched))]
    return joined.applied_to(found)


def _agreeing(root: str, names: Sequence[ChannelName], files: Mapping[str, FileEntry]) -> list[ChannelName]:
    """Without images joined on weak evidence whose files differ in size or type: these are not channels."""
    doubted: dict[str, list[ChannelName]] = defaultdict(list)
    for name in names:
        if name.doubtful:
            doubted[name.site].append(name)
    apart = {site for site, members in doubted.items() if len({_look(root, one.key) for one in members}) > 1}
    return [name for name in names if name.site not in apart]


def _look(root: str, key: str) -> tuple[Any, ...] | None:
    """What files of channels have in common; None where the header cannot be read."""
    try:
        header = open_file(Path(root, key), max_pixels=MAX_PIXELS).header
    except ImageError:
        return None
    return header.axes, header.shape, header.dtype


def _by_themselves(names: Sequence[ChannelName], matched: set[str]) -> Assumption | None:
    """The assumption that files whose names may be channels are none."""
    asked = [name for name in names if name.key in matched]
    if len({name.token.lower() for name in asked}) < 2:
        return None
    tokens = list(dict.fromkeys(name.token for name in asked))
    shown = ", ".join(tokens[:SHOWN_TOKENS]) + ", ..." * (len(tokens) > SHOWN_TOKENS)
    return Assumption(
        "channels",
        f"{asked[0].folder or 'IN'}: the {len(asked)} files that differ in {shown} are images of their own",
        "too few files of the folder have such names to take them for channels",
        f"--channel {tokens[0]} if they are channels and this one shows the nuclei; --channel {EACH} if not",
        doubtful=True,
        images=len(asked),
        example="",
    )


def _without_sets(root: str, names: Sequence[ChannelName]) -> list[ChannelName]:
    """Without files of OME-TIFFs that say themselves which files belong to one image.

    Every file of a folder is asked only where the first one, or the first one called `.ome.tif`, is part of a set.
    """
    folders: dict[str, list[ChannelName]] = defaultdict(list)
    for name in names:
        folders[name.folder].append(name)
    in_sets: set[str] = set()
    for members in folders.values():
        first = [members[0].key, *(name.key for name in members if ".ome." in name.key.lower())][:2]
        if not any(files_of_set(Path(root, key)) for key in first):
            continue
        known: set[Path] = set()
        for name in members:
            path = Path(root, name.key)
            if path not in known:
                known.update(files_of_set(path))
            if path in known:
                in_sets.add(name.key)
    return [name for name in names if name.key not in in_sets]


@dataclass(frozen=True)
class _Plate:
    """The channels of one plate, or of a folder."""

    folder: str
    """Its path below the root."""
    names: tuple[ChannelName, ...]
    """Its files."""
    tokens: tuple[str, ...]
    """Its channels in order, in lower case."""
    shown: tuple[str, ...]
    """The same as files have them."""
    channels: tuple[ChannelInfo, ...]
    """What is known of them."""
    nuclei: str
    """Token of the one that shows the nuclei."""


def _plate(root: str, folder: str, names: Sequence[ChannelName], asked: set[str], wanted: str) -> _Plate:
    first = {name.token.lower(): name for name in reversed(names)}
    tokens = tuple(sorted(first, key=_natural))
    base = Path(root)
    known = known_channels(base / folder, {token: base / name.key for token, name in first.items()})
    known = {token: replace(one, name=one.name or first[token].alias) for token, one in known.items()}
    given = [known[token].name for token in tokens]
    named = all(given) and len(set(given)) == len(given)
    channels = tuple(
        ChannelInfo(known[token].name if named else first[token].token, known[token].wavelength) for token in tokens
    )
    nuclei = _nuclei(folder, wanted, {token: first[token].token for token in tokens if token in asked}, known)
    return _Plate(folder, tuple(names), tokens, tuple(first[token].token for token in tokens), channels, nuclei)


def _nuclei(folder: str, wanted: str, shown: dict[str, str], known: dict[str, KnownChannel]) -> str:
    """Which of the tokens, given with how files have them, shows the nuclei; UsageError where that is not clear."""
    asked = list(shown)
    if len(asked) == 1 and wanted.lower() == "auto":
        return asked[0]
    channels = [ChannelInfo(known[token].name or shown[token], known[token].wavelength) for token in asked]
    where = f"In {folder or 'IN'} each channel is a file of its own ({_described(list(shown.values()), channels)})"
    if wanted.lower() in shown:
        return wanted.lower()
    if wanted.isdecimal():
        counted = [asked[int(wanted)]] if int(wanted) < len(asked) else []
        meant = {*counted, *(token for token in asked if _digits(token) == int(wanted))}
        if len(meant) > 1:
            both = " or ".join(shown[token] for token in sorted(meant))
            raise UsageError(f"{where}: --channel {wanted} may mean {both}; write one of these.")
        if meant:
            return meant.pop()
    try:
        return asked[choose_channel(wanted, channels, [(token, *known[token].aliases) for token in asked])]
    except ImageError as error:
        if wanted.lower() == "auto":
            raise UsageError(
                f"{where}; say which shows the nuclei, as in --channel {shown[asked[0]]}: the others are measured. If "
                f"each file is a separate image, use --channel {EACH}."
            ) from error
        raise UsageError(f"{where}: {error}") from error


class _Joined:
    """Files put together, and what could not be."""

    def __init__(self) -> None:
        self._images: list[FileEntry] = []
        self._used: set[str] = set()
        self._failures: list[Failure] = []
        self.notes: list[str] = []
        self.assumptions: list[Assumption] = []
        self.merges: list[str] = []
        """Pictures of several channels together, which are skipped."""
        self._chosen: set[str] = set()
        self._without: list[str] = []
        """A file of each place at whose depth there is no channel of the nuclei."""
        self._missing: list[tuple[str, str]] = []
        """Key and channel of each file that a place of the plate at hand lacks."""

    def choose(self, keys: Iterable[str]) -> None:
        """Notes files whose names say that they are of the channel that was asked for, and which stay by themselves."""
        self._chosen.update(keys)

    def assume(self, plate: _Plate, wanted: str) -> None:
        """Notes by what evidence files are channels, unless the microscope is known."""
        evidence = next((name.evidence for name in plate.names if name.evidence), "")
        if not evidence:
            return
        shown = ", ".join(plate.shown[:SHOWN_TOKENS]) + ", ..." * (len(plate.shown) > SHOWN_TOKENS)
        others = [name.token for name in plate.names if name.doubtful and word_of(name.token) not in ("dna", "stain")]
        places = {token: {name.site for name in plate.names if name.token == token} for token in others}
        lone = [token for token, sites in places.items() if len(sites) == 1]
        weak = f"; only one image has {', '.join(lone[:SHOWN_TOKENS])}" if lone else ""
        if others and not lone:
            weak = f"; {plate.shown[plate.tokens.index(plate.nuclei)]} may also say what the images show"
        self.assumptions.append(
            Assumption(
                "channels",
                f"{plate.folder or 'IN'}: {shown} are channels of one image each, with the nuclei in "
                f"{plate.shown[plate.tokens.index(plate.nuclei)]}",
                evidence + weak,
                f"--channel {EACH}, or --channel NAME for another one",
                doubtful=wanted.lower() == "auto" and any(name.doubtful for name in plate.names),
                images=len({name.site for name in plate.names}),
            )
        )

    def add(self, plate: _Plate, files: dict[str, FileEntry], matched: set[str]) -> None:
        """Puts the files of a plate together."""
        sites: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        expected: dict[str, set[str]] = defaultdict(set)
        for name in plate.names:
            sites[name.site][name.token.lower()].append(name.key)
            expected[depth_of(name.site)].add(name.token.lower())
        before = len(self._images)
        self._missing = []
        for site, channels in sites.items():
            keys = {key for members in channels.values() for key in members}
            if not keys & matched:
                continue
            self._used |= keys
            due = expected[depth_of(site)]
            if plate.nuclei not in due:
                self._without.append(min(keys & matched))
                continue
            self._join(plate, channels, due, files)
        place = plate.tokens.index(plate.nuclei)
        others = [channel.name for i, channel in enumerate(plate.channels) if i != place]
        count = len(self._images) - before
        self.notes.append(
            f"{plate.folder or 'IN'}: {count} image{'s' * (count != 1)} of {len(plate.tokens)} channels in files of "
            f"their own; nuclei in {_described([plate.shown[place]], [plate.channels[place]])}, measured too: "
            f"{', '.join(others)}"
        )
        if self._missing:
            key, token = self._missing[0]
            count = len({image for image, _ in self._missing})
            images = "1 image lacks files" if count == 1 else f"{count} images lack files"
            self.notes.append(
                f"{plate.folder or 'IN'}: {images} of channels that others have ({key}: {token}"
                f"{', ...' * (len(self._missing) > 1)}); they have no values for these"
            )

    def _join(self, plate: _Plate, channels: dict[str, list[str]], due: set[str], files: dict[str, FileEntry]) -> None:
        tokens = [token for token in plate.tokens if token in due]
        missing = [token for token in tokens if token not in channels]
        double = [token for token in tokens if len(channels.get(token, ())) > 1]
        key = min(channels.get(plate.nuclei) or [keys[0] for keys in channels.values()])
        if plate.nuclei in missing or double:
            trouble = (
                f"the file of its channel {plate.nuclei}, which shows the nuclei, is missing."
                if plate.nuclei in missing
                else f"there are several files of its channel {', '.join(double)}; leave some out with --pattern."
            )
            self._failures.append(Failure(key, "plan", "ImageError", trouble))
            return
        self._missing += [(key, token) for token in missing]
        tokens = [token for token in tokens if token in channels]
        members = [files[channels[token][0]] for token in tokens]
        infos = tuple(plate.channels[plate.tokens.index(token)] for token in tokens)
        size, mtime_ns = sum(member.size for member in members), max(member.mtime_ns for member in members)
        keys = tuple(member.key for member in members)
        nuclei = tokens.index(plate.nuclei)
        self._images.append(FileEntry(key, size, mtime_ns, files=keys, channels=infos, nuclei=nuclei))

    def applied_to(self, found: Discovery) -> Discovery:
        """The discovery with these images in place of their files."""
        loose = [
            entry if (entry.key in self._chosen) == entry.chosen else replace(entry, chosen=not entry.chosen)
            for entry in found.entries
            if entry.key not in self._used and entry.key not in self.merges
        ]
        others = tuple(entry for entry in found.unmatched if entry.key not in self._used)
        left = {UNMATCHED: [entry.key for entry in others], WITHOUT: self._without, MERGE: self.merges}
        skipped = {reason: count for reason, count in found.skipped.items() if reason != UNMATCHED}
        skipped |= {reason: len(keys) for reason, keys in left.items() if keys}
        passed = {reason: one for reason, one in found.passed.items() if reason != UNMATCHED}
        passed |= {reason: first_names(keys) for reason, keys in left.items() if keys}
        return replace(
            found,
            entries=tuple(sorted((*loose, *self._images), key=lambda entry: entry.key)),
            skipped=skipped,
            failures=tuple(sorted((*found.failures, *self._failures), key=lambda failure: failure.image)),
            unmatched=others,
            notes=(*found.notes, *self.notes),
            passed=passed,
            assumptions=(*found.assumptions, *self.assumptions, *self._of_merges()),
        )

    def _of_merges(self) -> list[Assumption]:
        if not self.merges:
            return []
        evidence = "they are called like images of which the channels lie beside them"
        skipped = f"skipped {len(self.merges)} x {MERGE}"
        return [Assumption("skipped", skipped, evidence, f"--channel {EACH}", images=len(self.merges))]


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _natural(token: str) -> tuple[str, int, str]:
    number = _digits(token)
    return re.sub(r"\d+.*", "", token), -1 if number is None else number, token


def _digits(token: str) -> int | None:
    found = re.search(r"\d+", token)
    return int(found[0]) if found else None


def _described(tokens: Sequence[str], channels: Sequence[ChannelInfo]) -> str:
    """Channels for the user, such as `w1 DAPI, w2`."""
    return ", ".join(
        token + (f" {channel.name}" if channel.name.lower() != token.lower() else "")
        for token, channel in zip(tokens, channels, strict=True)
    )
