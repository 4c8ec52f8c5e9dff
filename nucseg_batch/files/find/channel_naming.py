"""Which files are channels of one image, told by names alone.

Microscopes write `plate_B02_s1_w1.TIF`, `_w2`, ...; files that differ only in that token show the same place. Names
that only one kind of microscope writes are sure. Other tokens (`_ch00`, `_DAPI`, `_C1`) are taken for channels where
the other files of the folder bear it out: `C1` to `C12` may as well be wells, `red` and `blue` two samples.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nucseg_batch.files.find.channel_anchored import AnchoredChannels, anchored, counted_along, same_places
from nucseg_batch.files.find.channel_words import DNA as DNA_WORDS
from nucseg_batch.files.find.channel_words import STAINS, SUM, anchors, merges, word_of
from nucseg_batch.files.find.name_rules import GUID

WELL = r"[A-Z]{1,2}\d{1,2}"
SURE = tuple(
    (microscope, re.compile(pattern, re.IGNORECASE))
    for microscope, pattern in (
        ("ImageXpress", rf"(?P<a>.+?)_(?P<channel>w\d{{1,2}}){GUID}(?P<b>\.tiff?)"),
        ("ImageXpress", rf"(?P<a>(?:.*_)?{WELL}(?:_s\d+)?)_(?P<channel>w\d{{1,2}})(?P<b>\.tiff?)"),
        ("Yokogawa", rf"(?P<a>.*{WELL}_T\d+F\d+L\d+)A\d+(?P<b>Z\d+)(?P<channel>C\d+)\.(?:tiff?|png)"),
        ("Yokogawa", r"(?P<a>(?:.*_)?W\d+F\d+T\d+)(?P<b>Z\d+)(?P<channel>C\d+)\.(?:tiff?|png)"),
        ("Operetta", r"(?P<a>r\d+c\d+f\d+(?:p\d*)?)-(?P<channel>ch\d+)(?P<b>(?:(?:sk|t)\d.*)?\.tiff?)"),
        ("Columbus", r"(?P<a>\d{6}-\d{1,3}-\d{6})(?P<channel>\d{3})(?P<b>\.tiff?)"),
        (
            "CellDIVE",
            r"(?P<a>.+?)_(?P<round>\d+\.\d+\.\d+)(?P<b>_R\d{3})_(?P<channel>[A-Z].*?)(?:_FINAL)?(?:_AFR)?_F(?P<c>\.tiff?)",
        ),
        ("Gen5", rf"(?P<a>{WELL}_-?\d+)_\d+(?P<b>_\d+)_(?P<channel>[^_]*[A-Za-z][^_]*)(?P<c>_\d+\w*\.tiff?)"),
        ("Nikon", r"(?P<a>.*(?:xy|(?<![A-Za-z])[tzm])\d{1,5})(?P<channel>c\d{1,2})(?P<b>\.tiff?)"),
        (
            "Zeiss",
            r"(?P<a>.+?[_-](?:[bstzmhrp]\d+)*)(?P<channel>c\d{1,2})(?P<b>(?:[bstzmhrp]\d+)*_ORG\.(?:tiff?|png|jpe?g))",
        ),
        (
            "Zeiss",
            r"(?P<a>.+?[_-](?:[bstzmhrp]\d+)*)(?P<channel>c\d{1,2})(?P<b>(?:[bstzmhrp]\d+)*x\d+-\d+y\d+-\d+\.tiff?)",
        ),
        ("IN Cell", r"(?P<a>.*\(fld \d+) wv (?P<channel>.+?)(?P<b>(?: z \d+| time .+)*\)\.tiff?)"),
        ("Cellomics", r"(?P<a>.*_[A-P]\d{2}f\d+)(?P<channel>d\d)(?P<b>\.tiff?)"),
    )
)
"""Names that only microscopes write; what lies outside the groups, such as GUIDs, differs between channels."""
TOKENS = {
    "number": r"(?:channel|chan|ch)[_ -]?\d{1,3}|w\d{1,2}(?:[A-Za-z ][^_.]*)?",
    "stain": f"{DNA_WORDS}|{STAINS}",
    "letter": r"c\d{1,2}",
    "colour": r"red|green|blue|yellow|far ?red|phase",
}
"""Kinds of tokens between separators that may name a channel."""
_TOKEN = {
    kind: re.compile(rf"(?<![A-Za-z0-9])(?:{pattern})(?![A-Za-z0-9])", re.IGNORECASE)
    for kind, pattern in TOKENS.items()
}
WAYS = (("number", "stain"), ("number",), ("stain",), ("letter", "stain"), ("letter",), ("colour",))
"""Kinds that are taken out of names together to find files that differ in nothing else, the surest first."""
VAGUE = frozenset({("letter",), ("colour",), ("letter", "stain")})
"""Of these, those that need two images, or more, to be believed."""
STAINED = "the names differ in one place, where one of them names a stain of DNA"
COUNTED = "the names differ in the stain and in a number that goes with it"
ALIKE = "the names differ in nothing else"
"""Evidence for channels."""
FEW = 5
"""Up to so many files `c1`, `c2`, ... may be channels of one image or wells of one row."""
MOST_VAGUE_CHANNELS = 8
"""With more values than this, a vague token is no channel."""
ACQUISITION_PARTS = re.compile(r"(?:TimePoint|ZStep)_\d+", re.IGNORECASE)
"""Folders that MetaXpress makes below a plate's own."""
ONLY = "w1"
"""Channel of files that MetaXpress writes without one, as it does where a plate has only that."""
_ONLY = re.compile(rf"(?:.+_)?{WELL}(?:_s\d+)?(?:{GUID})?\.tiff?", re.IGNORECASE)
_DEPTH = re.compile(r"(?<![A-Za-z])(?:[tz]\d+|p\d+(?=\*)|sk\d+| z \d+| time \d+)", re.IGNORECASE)
"""Parts of names that say when and at which depth an image was taken."""


@dataclass(frozen=True)
class ChannelName:
    """What a file's name says of the channel in it."""

    key: str
    """Key of the file."""
    site: str
    """The key without what differs between channels: the same for all channels of one image."""
    token: str
    """The channel as the name has it, such as `w1`, `C01` or `DAPI`."""
    microscope: str = ""
    """Whose names look like this, where that is sure."""
    alias: str = ""
    """Another name of the channel that the file's name has."""
    evidence: str = ""
    """Why it is taken for a channel; empty where the microscope is known."""
    doubtful: bool = False
    """Whether that is weak evidence."""

    @property
    def folder(self) -> str:
        """Path of the folder that holds all channels of the image; empty at the root."""
        return self.site.partition("*")[0].rpartition("/")[0]


@dataclass(frozen=True)
class NamingScheme:
    """What the names of some files say of channels."""

    names: tuple[ChannelName, ...] = ()
    """Files that are channels kept apart, each image's at least in part; in the order of their keys."""
    merges: tuple[str, ...] = ()
    """Keys of pictures in which channels of these images were put together."""
    rejected: tuple[tuple[ChannelName, ...], ...] = ()
    """Files, by folder, whose names look like channels and are not believed."""


def acquisition(folder: str) -> str:
    """The folder of the plate that a folder belongs to: without those for single time points and depths."""
    parts = folder.split("/")
    while parts and ACQUISITION_PARTS.fullmatch(parts[-1]):
        parts.pop()
    return "/".join(parts)


def depth_of(site: str) -> str:
    """What of a site's name says when and at which depth it was taken: sites that share it have the same channels."""
    folder, _, name = site.rpartition("/")
    return "/".join((folder, *_DEPTH.findall(name)))


def projections(keys: Iterable[str]) -> dict[str, int]:
    """Files that lie beside folders of single depths, as MetaXpress puts projections: how many, by their folder."""
    single: set[str] = set()
    beside: dict[str, int] = defaultdict(int)
    for key in keys:
        folder = key.rpartition("/")[0]
        beside[folder] += 1
        above, _, last = folder.rpartition("/")
        if re.fullmatch(r"ZStep_\d+", last, re.IGNORECASE):
            single.add(above)
    return {folder: beside[folder] for folder in sorted(single) if folder in beside}


def without_channel(key: str) -> bool:
    """Whether a file is called as MetaXpress calls those of a plate with one wavelength."""
    return _ONLY.fullmatch(key.rpartition("/")[2]) is not None


def channel_names(keys: Iterable[str]) -> list[ChannelName]:
    """Those of some files that are channels kept apart, each image's at least in part; in the order of their keys."""
    return list(read_names(keys).names)


def read_names(keys: Iterable[str]) -> NamingScheme:
    """What the names of some files say of channels, the surest names first."""
    keys = list(keys)
    found = {key: name for key in keys if (name := _sure(key))}
    left = [key for key in keys if key not in found]
    by_stain = anchored(left)
    found |= _named(by_stain, STAINED)
    left = [key for key in left if key not in found]
    if by_stain.sites:
        found |= _named(AnchoredChannels(same_places(left, by_stain)), STAINED)
    folders: dict[str, list[str]] = defaultdict(list)
    for key in left:
        if key not in found and not SUM.search(key, key.rfind("/") + 1):
            folders[key.rpartition("/")[0]].append(key)
    rejected = []
    for members in folders.values():
        names, doubted = _borne_out(members)
        found |= {name.key: name for name in names}
        rejected += [tuple(doubted)] * bool(doubted)
    in_folders = [key for key in keys if key.rpartition("/")[0] in by_stain.folders]
    found |= _named(counted_along([key for key in in_folders if key not in found]), COUNTED)
    rejected = [group for group in rejected if not any(name.key in found for name in group)]
    together = sorted(
        {
            *_merges(keys if found else in_folders, found),
            *(key for key, name in found.items() if word_of(name.token) == "merge"),
        }
    )
    names = sorted((found[key] for key in found.keys() - set(together)), key=lambda name: name.key)
    return NamingScheme(tuple(names), tuple(together), tuple(rejected))


def _named(found: AnchoredChannels, evidence: str) -> dict[str, ChannelName]:
    return {
        key: ChannelName(key, f"{site[0]}*{site[1]}", piece, evidence=evidence, doubtful=site in found.doubtful)
        for site, members in found.sites.items()
        for piece, key in members.items()
    }


def _merges(keys: Iterable[str], found: Mapping[str, ChannelName]) -> Iterator[str]:
    """Files called like images of which channels were found, with a word for a merge in place of the channel."""
    words = {key: spans for key in keys if key not in found and (spans := merges(key, key.rfind("/") + 1))}
    if not words:
        return
    sites = {os.path.splitext(name.site)[0] for name in found.values()}
    sites |= {os.path.splitext(f"{key[:start]}*{key[end:]}")[0] for key in keys for start, end in anchors(key)}
    for key, spans in words.items():
        for start, end in spans:
            if os.path.splitext(f"{key[:start]}*{key[end:]}")[0] in sites:
                yield key
                break


def named_by_token(keys: Iterable[str], token: str) -> list[ChannelName]:
    """Files with a token that the user gave, and those that differ from them in nothing else; none where two are alike.

    The token stands between separators: `405` in `a_405_1.tif`, whose others are `a_488_1.tif` and the like.
    """
    splits: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key in keys:
        start = key.rfind("/") + 1
        for piece in re.finditer(r"[A-Za-z0-9]+", key[start:]):
            site = f"{key[: start + piece.start()]}*{key[start + piece.end() :]}"
            splits[site].append((piece[0], key))
    found: list[ChannelName] = []
    for site, members in splits.items():
        if any(piece.lower() == token.lower() for piece, _ in members):
            found.extend(ChannelName(key, site, piece) for piece, key in members)
    return found if len({name.key for name in found}) == len(found) else []


def _sure(key: str) -> ChannelName | None:
    folder, mark, name = key.rpartition("/")
    for microscope, pattern in SURE:
        if match := pattern.fullmatch(name):
            site = f"{folder}{mark}{match['a']}*{match['b']}{match.groupdict().get('c') or ''}"
            token = " ".join(filter(None, (match.groupdict().get("round"), match["channel"].strip("_"))))
            return ChannelName(key, site, token, microscope)
    return None


def _borne_out(keys: Sequence[str]) -> tuple[list[ChannelName], list[ChannelName]]:
    """Files of one folder by the first way of taking tokens out that leaves several channels and no two files alike.

    Also those for which another way does so that is not believed, since too little in the folder bears it out.
    """
    doubted: list[ChannelName] = []
    having = {kind: [key for key in keys if token.search(key, key.rfind("/") + 1)] for kind, token in _TOKEN.items()}
    for way in WAYS:
        names = [name for key in having[way[0]] if (name := _without(key, way))]
        sites: dict[str, list[str]] = defaultdict(list)
        for name in names:
            sites[name.site].append(name.token.lower())
        several = [tokens for tokens in sites.values() if len(tokens) > 1]
        if not several or any(len(set(tokens)) < len(tokens) for tokens in sites.values()):
            continue
        kinds = {token for tokens in sites.values() for token in tokens}
        if way[0] == "number" and len(several) < 2 and 2 * len(names) < len(keys):
            doubted = doubted or names  # two of seven files: chambers 1 and 2 of a slide, perhaps
            continue
        if way in VAGUE and (
            len(several) < 2
            or len(kinds) > MOST_VAGUE_CHANNELS
            or 2 * len(names) < len(keys)
            or len(several) < len(sites)
        ):
            alone = len(several) == len(sites) == 1 and len(kinds) <= FEW and 2 * len(names) >= len(keys)
            words = [name.alias.lower() for name in names]
            stained = bool(anchors(names[0].site)) or any(word_of(word) == "dna" for word in words)
            if alone and stained and len(set(words)) == len(words) > 1:
                return [replace(name, evidence=STAINED) for name in names], []
            doubted = doubted or (names if alone and not stained else [])  # all of one stain: wells
            continue
        return [replace(name, evidence=ALIKE) for name in names], []
    return [], doubted


def _without(key: str, way: tuple[str, ...]) -> ChannelName | None:
    """A file's name with the tokens of some kinds taken out; None where it has none of the first kind."""
    folder, mark, name = key.rpartition("/")
    tokens: list[str] = []
    for kind in way:
        matches = list(_TOKEN[kind].finditer(name))
        if not matches and kind == way[0]:
            return None
        tokens.extend(match[0] for match in matches)
        name = _TOKEN[kind].sub("*", name)
    first = re.match(r"w\d{1,2}", tokens[0], re.IGNORECASE) if way[0] == "number" else None
    token = first[0] if first else tokens[0]
    alias = tokens[0][len(token) :].strip(" -") or (tokens[1] if len(tokens) > 1 else "")
    return ChannelName(key, f"{folder}{mark}{name}", token, alias=alias)
