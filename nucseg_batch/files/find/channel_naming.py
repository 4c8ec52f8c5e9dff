"""Which files are channels of one image, told by names alone.

Microscopes write `plate_B02_s1_w1.TIF`, `_w2`, ...; files that differ only in that token show the same place. Names
that only one kind of microscope writes are sure. Other tokens (`_ch00`, `_DAPI`, `_C1`) are taken for channels where
the other files of the folder bear it out: `C1` to `C12` may as well be wells, `red` and `blue` two samples.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nucseg_batch.files.find.name_rules import GUID

WELL = r"[A-Z]{1,2}\d{1,2}"
SURE = tuple(
    (microscope, re.compile(pattern, re.IGNORECASE))
    for microscope, pattern in (
        ("ImageXpress", rf"(?P<a>.+?)_(?P<channel>w\d{{1,2}}){GUID}(?P<b>\.tiff?)"),
        ("ImageXpress", rf"(?P<a>(?:.*_)?{WELL}(?:_s\d+)?)_(?P<channel>w\d{{1,2}})(?P<b>\.tiff?)"),
        ("Yokogawa", rf"(?P<a>.*{WELL}_T\d+F\d+L\d+)A\d+(?P<b>Z\d+)(?P<channel>C\d+)\.(?:tiff?|png)"),
        ("Operetta", r"(?P<a>r\d+c\d+f\d+p\d+)-(?P<channel>ch\d+)(?P<b>(?:sk|t)\d.*\.tiff?)"),
        ("IN Cell", r"(?P<a>.*\(fld \d+) wv (?P<channel>.+?)(?P<b>(?: z \d+| time .+)*\)\.tiff?)"),
        ("Cellomics", r"(?P<a>.*_[A-P]\d{2}f\d+)(?P<channel>d\d)(?P<b>\.tiff?)"),
    )
)
"""Names that only microscopes write; what lies outside the groups, such as GUIDs, differs between channels."""
_STAINS = (
    r"dapi|hoechst ?\d*|dna|draq[57]|nuclei|nucleus|[et]?gfp|[ecy]fp|[rb]fp|mcherry|tdtomato|fitc|tritc|"
    r"cy[2357](?:\.5)?|tx ?red|texas ?red|(?:alexa ?(?:fluor ?)?|af|a)\d{3}|phalloidin|actin|tubulin|er|rna|agp|mito|"
    r"wga|cona|bf|bright ?field|phase|dic|\d{3} ?nm"
)
TOKENS = {
    "number": r"(?:channel|chan|ch)[_ -]?\d{1,3}|w\d{1,2}(?:[A-Za-z ][^_.]*)?",
    "stain": _STAINS,
    "letter": r"c\d{1,2}",
    "colour": r"red|green|blue|yellow",
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

    @property
    def folder(self) -> str:
        """Path of its folder; empty at the root."""
        return self.key.rpartition("/")[0]


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
    folders: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        folders[key.rpartition("/")[0]].append(key)
    found: list[ChannelName] = []
    for members in folders.values():
        sure = [name for key in members if (name := _sure(key))]
        found.extend(sure)
        taken = {name.key for name in sure}
        found.extend(_borne_out([key for key in members if key not in taken]))
    return sorted(found, key=lambda name: name.key)


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
            site = f"{folder}{mark}{match['a']}*{match['b']}"
            return ChannelName(key, site, match["channel"], microscope)
    return None


def _borne_out(keys: Sequence[str]) -> list[ChannelName]:
    """Files of one folder by the first way of taking tokens out that leaves several channels and no two files alike."""
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
        if way in VAGUE and (
            len(several) < 2
            or len(kinds) > MOST_VAGUE_CHANNELS
            or 2 * len(names) < len(keys)
            or len(several) < len(sites)
        ):
            continue
        return names
    return []


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
