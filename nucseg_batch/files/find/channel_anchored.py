"""Channels by a stain of DNA: files whose names differ in one piece, which names such a stain in one of them.

`a_DAPI.tif`, `a_CD3.tif` and `a_CD8.tif` are channels of one image, whatever CD3 is; `a_2.tif` and `a_control.tif`
beside them are not. Pieces that say nothing by themselves, such as CD3, are believed where several images have them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from nucseg_batch.files.find.channel_words import DNA, STAINS, anchors, word_of

MOST_PIECES = 6
"""Words of which the name of a channel may consist."""
MOST_LETTERS = 40
"""Letters that it may have."""
MOST_CHANNELS = 60
"""Files of one image; with more the pieces are no channels."""
_WEAK = frozenset({"nuclei", "nucleus", "nuclear", "nuc", "dna"})
"""Words that may as well say what images are of."""
_PIECE = re.compile(r"[A-Za-z0-9]+")
_WITHIN = re.compile(r"(?<=[0-9])(?=[A-Za-z])|(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=[0-9])")
"""Places within a piece where a stain may begin or end: `sample1GFP`."""
_WORD = re.compile(rf"(?<![A-Za-z0-9])(?:{DNA}|{STAINS})(?![A-Za-z0-9])", re.IGNORECASE)
Site = tuple[str, str]
"""What the keys of an image's files have before and after the channel."""


@dataclass(frozen=True)
class AnchoredChannels:
    """Files that were recognised, by their image."""

    sites: Mapping[Site, Mapping[str, str]] = field(default_factory=dict)
    """Keys of the files by the channel as the names have it, in an order of their own."""
    doubtful: frozenset[Site] = frozenset()
    """Images of which a file's channel is told by nothing but its place in the name."""
    folders: frozenset[str] = frozenset()
    """Folders that hold any file whose key names a stain of DNA."""


def anchored(keys: Sequence[str]) -> AnchoredChannels:
    """The images among files that have a channel named like a stain of DNA, and what differs from it in one piece."""
    ends: dict[str, set[str]] = defaultdict(set)
    folders: set[str] = set()
    for key in keys:
        for start, end in anchors(key):
            ends[key[:start]].add(key[end:])
            folders.add(key.rpartition("/")[0])
    if not ends:
        return AnchoredChannels()
    found: dict[Site, dict[str, str]] = defaultdict(dict)
    for key in keys:
        for site, piece in _splits(key, ends):
            found[site][piece] = key
    seen = Counter(piece for members in found.values() for piece in members)
    repeated = {piece for piece, count in seen.items() if count > 1}
    sites = {site: kept for site, one in found.items() if (kept := _channels(site, one, repeated))}
    sites = _taken_once(sites, repeated)
    return AnchoredChannels(sites, _doubtful(sites), frozenset(folders))


def same_places(keys: Iterable[str], found: AnchoredChannels) -> dict[Site, dict[str, str]]:
    """Other files that have a channel of these images in their names: of images that lack the stain of DNA."""
    by_folder: dict[str, set[str]] = defaultdict(set)
    for (before, after), members in found.sites.items():
        if "/" not in after and (before, after) not in found.doubtful:
            by_folder[before.rpartition("/")[0]].update(members)
    words = {
        folder: re.compile(
            "(?<![A-Za-z0-9])(?:" + "|".join(map(re.escape, sorted(pieces, key=len, reverse=True))) + ")(?![A-Za-z0-9])"
        )
        for folder, pieces in by_folder.items()
    }
    others: dict[Site, dict[str, str]] = defaultdict(dict)
    for key in keys:
        folder = key.rpartition("/")[0]
        if folder in words:
            matches = list(words[folder].finditer(key, len(folder)))
            if len(matches) == 1:
                others[key[: matches[0].start()], key[matches[0].end() :]][matches[0][0]] = key
    return others


def counted_along(keys: Sequence[str]) -> AnchoredChannels:
    """Images whose files differ in a channel's name and in a number that goes with it: `a_0_DAPI.tif`, `a_1_GFP.tif`.

    Two images or more must have several channels, or the number may as well count samples.
    """
    alike: dict[str, list[tuple[str, list[str], str]]] = defaultdict(list)
    for key in keys:
        start = key.rfind("/") + 1
        words = list(_WORD.finditer(key, start))
        if len(words) != 1:
            continue
        name = f"{key[start : words[0].start()]}*{key[words[0].end() :]}"
        alike[key[:start] + re.sub(r"\d+", "#", name)].append((words[0][0], re.findall(r"\d+", name), key))
    sites: dict[Site, dict[str, str]] = {}
    for shape, files in alike.items():
        if not any(word_of(word) == "dna" for word, _, _ in files):
            continue
        for place in range(shape.count("#")):
            values = defaultdict(set)
            for word, numbers, _ in files:
                values[word].add(numbers[place])
            if len(values) < 2 or any(len(one) > 1 for one in values.values()):
                continue
            if len({next(iter(one)) for one in values.values()}) < len(values):
                continue
            groups: dict[Site, dict[str, str]] = defaultdict(dict)
            for word, numbers, key in files:
                rest = [number for i, number in enumerate(numbers) if i != place]
                groups[shape.split("*")[0] + " ".join(rest), shape.split("*")[1]][word] = key
            if sum(map(len, groups.values())) == len(files) and sum(len(one) > 1 for one in groups.values()) > 1:
                sites |= groups
                break
    return AnchoredChannels(sites)


def _splits(key: str, ends: Mapping[str, set[str]]) -> list[tuple[Site, str]]:
    """How a key is a site and a channel, for sites of which a stain of DNA is known."""
    pieces = [match.span() for match in _PIECE.finditer(key)]
    name = key.rfind("/") + 1
    whole, stops = {start for start, _ in pieces}, {stop for _, stop in pieces}
    within = {match.start() for match in _WITHIN.finditer(key)}
    stops |= within | {stop for _, stop in anchors(key)}
    found = []
    for start in whole | within:
        for tail in ends.get(key[:start], ()):
            end = len(key) - len(tail)
            if end > start and end in stops and key.endswith(tail):
                piece = key[start:end]
                if _may_be_channel(piece, in_name=start >= name and start in whole):
                    found.append(((key[:start], tail), piece))
    return found


def _may_be_channel(piece: str, *, in_name: bool) -> bool:
    word = word_of(piece)
    if word in ("dna", "stain", "laser") or piece.isdecimal():
        return True
    if word != "other" or not in_name or "/" in piece or len(piece) > MOST_LETTERS:
        return False
    return len(_PIECE.findall(piece)) <= MOST_PIECES and not anchors(piece)


def _channels(site: Site, members: Mapping[str, str], repeated: Set[str]) -> dict[str, str]:
    """The channels among pieces found at one place; none where they are no channels. repeated: those of several."""
    words = {piece: word_of(piece) for piece in members}
    if "dna" in words.values():  # any other number counts something
        words = {piece: word for piece, word in words.items() if word == "laser" or not piece.isdecimal()}
    elif any(word not in ("laser", "stain") for word in words.values()):
        return {}
    if _is_bare(site) and "stain" not in words.values():
        words = {piece: word for piece, word in words.items() if word != "other" or piece in repeated}
    if len(words) < 2 or len(words) > MOST_CHANNELS or len({piece.lower() for piece in words}) < len(words):
        return {}
    return {piece: members[piece] for piece in words}


def _is_bare(site: Site) -> bool:
    """Whether the files have nothing in common but their folder and suffix, as `DAPI.tif` and `GFP.tif`."""
    before, after = site
    return before[-1:] in ("", "/") and not _PIECE.search(after.rpartition(".")[0])


def _taken_once(sites: Mapping[Site, Mapping[str, str]], repeated: Set[str]) -> dict[Site, dict[str, str]]:
    """The same with each file in the largest image only that has it."""
    taken: set[str] = set()
    found: dict[Site, dict[str, str]] = {}
    for site in sorted(sites, key=lambda site: (-len(sites[site]), site)):
        left = _channels(site, {piece: key for piece, key in sites[site].items() if key not in taken}, repeated)
        if left:
            found[site] = left
            taken.update(left.values())
    return found


def _doubtful(sites: Mapping[Site, Mapping[str, str]]) -> frozenset[Site]:
    """Which images rest on a piece that says little by itself and that no other image has, or on a weak word."""
    images = Counter(piece.lower() for members in sites.values() for piece in members)
    doubtful = set()
    for site, members in sites.items():
        words = {piece: word_of(piece) for piece in members}
        lone = any(images[piece.lower()] < 2 for piece, word in words.items() if word in ("other", "laser"))
        weak = all(piece.lower() in _WEAK for piece, word in words.items() if word == "dna")
        if lone or (weak and "other" in words.values()):
            doubtful.add(site)
    return frozenset(doubtful)
