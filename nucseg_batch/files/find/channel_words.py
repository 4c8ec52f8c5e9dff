"""Words by which file names call channels: stains, filters, lasers, transmitted light, merges; and other words."""

from __future__ import annotations

import functools
import re
from typing import Literal

Word = Literal["dna", "laser", "stain", "merge", "other", "no"]
"""What a piece of a name says: a stain of DNA, a wavelength, another stain or filter, a merge of channels, something
that may be a marker, or something that is no channel."""
UV = r"35[0-9]|36[0-9]|37[0-9]|38[0-9]|39[0-9]|40[0-9]|410"
"""Wavelengths in nanometres that excite DAPI and Hoechst."""
_FILTERS = r"(?: \d{3},\d{3})?"
"""What Gen5 writes after a filter: the middles of excitation and emission."""
DNA = (
    r"dapi|hoechst(?:[ _-]?(?:33342|33258|34580))?|h[ _-]?3(?:3342|3258)|draq[ -]?[57]|"
    r"sytox(?:[ _-]?(?:green|orange|blue|red|deep ?red))?|nuc(?:blue|spot|light)(?:[ _-]?(?:red|green|\d{3}))?|"
    r"to-?pro-?[135]|sir-?dna|spy\d{3}-?dna|h2b(?:-?[a-z]+)?|propidium(?:[ _-]?iodide)?|nuclei|nucleus|nuclear|nuc|dna"
)
"""Words for stains of whole nuclei."""
NANOMETRES = r"(?:fluorescence[ _])?\d{3}[ _]?nm(?:[ _](?:ex|em)(?:citation|ission)?)?"
_TRANSMITTED = (
    r"(?:bf|bright ?field|trans(?:mitted|mission)?|tl|dia|phase(?:[ _-]?contrast)?|ph\d?|dic|tpmt|t-pmt|esid)"
    r"(?:[ _-](?:led|matrix|full|left|right|half|low|na|dark|image|light|\d+x))*"
)
STAINS = (
    r"[et]?gfp|[ecy]fp|[rb]fp|mcherry|mscarlet|mkate\d?|mruby\d?|mneongreen|tdtomato|dsred|venus|mcerulean|mturquoise\d?|"
    r"fitc|tritc|rhod(?:amine)?|cy[2357](?:[.,_]5)?|tx ?red|texas ?red|"
    r"(?:alexa[ _-]?(?:fluor[ _-]?)?|af[ _-]?|a|atto[ _-]?|dylight[ _-]?|cf|ifluor[ _-]?)\d{3}|"
    r"phalloidin|f-?actin|actin|tubulin|er|rna|agp|mito(?:tracker)?|wga|cona|golgi|opal[ _-]?\d{3}|"
    r"cd\d{1,3}[a-z]?|ck\d{1,2}|p(?:16|21|27|53|63)|s100[ab]?\d*|foxp3|pd-?l?1|her2|sma|"
    r"ki-?67|pan-?ck|(?:pan-?)?cyto(?:keratin)?|vimentin|lamin\w?|edu|brdu|gh?2ax|h2ax|autofluorescence|"
    rf"hellfeld|durchlicht|{_TRANSMITTED}|{NANOMETRES}"
)
"""Words for other channels that mean nothing else."""
MERGE = (
    r"merge[ds]?|overlays?|(?:ü|ue)berlagerung|composite[s]?|comp|rgb|combined|blend|all[ _-]?channels|"
    r"multi(?:channel)?|"
    r"\(?ch?\d{1,2}(?:[+-](?:ch?)?\d{1,2})+\)?|(?<=[A-P]\d\df\d\d)o\d"
)
"""Words for pictures in which channels were put together."""
_LASERS = frozenset(
    (
        *(355, 365, 375, 380, 385, 390, 395, 405, 408, 410, 430, 440, 445, 450, 455, 457, 458, 460, 461, 470, 473, 475),
        *(480, 485, 488, 490, 491, 495, 505, 509, 510, 514, 515, 519, 520, 525, 530, 532, 535, 540, 543, 545, 546, 549),
        *(550, 552, 555, 560, 561, 565, 568, 570, 575, 576, 580, 585, 588, 590, 591, 593, 594, 595, 600, 605, 610, 615),
        *(617, 620, 624, 625, 628, 630, 632, 633, 635, 637, 638, 639, 640, 642, 645, 647, 650, 655, 660, 665, 667, 670),
        *(673, 675, 680, 685, 690, 700, 705, 710, 720, 730, 735, 740, 747, 748, 750, 755, 770, 775, 780, 785, 790, 800),
    )
)
_COUNTED = (
    r"img|image|im|pos|position|fov|field|site|tile|well|row|col|series|scene|slice|stack|frame|time|tp|timepoint|day|"
    r"week|month|hour|hr|min|sec|sample|slide|section|region|roi|rep|replicate|repeat|exp|experiment|batch|plate|patient|"
    r"case|mouse|rat|human|donor|animal|cells?|group|run|scan|crop|part|cond|condition|no|nr|num|[xyztsfprndh]"
)
_COMPARED = (
    r"(?:un|non)?(?:treated|stained|infected|stimulated|transfected|labell?ed)|(?:pos|neg)?[ _-]?(?:control|ctrl|ctl)s?"
    r"|mock|vehicle|dmso|wild ?type|wt|ko|kd|mut(?:ant)?|before|after|pre|post|left|right|top|bottom|old|new|first"
    r"|second|raw|copy|orig(?:inal)?|final|test|train|val(?:idation)?|small|large|crop(?:ped)?|high|low|cells?|images?|"
    r"background|blank|empty|dark|flat(?:field)?|stitched|deconvolved|denoised|mip|max|projection"
)
_NO = re.compile(
    rf"[\W\d_]+|[a-z]|[a-h](?:0?[1-9]|1[0-2])|(?:{_COUNTED})[ _#-]*\d+(?:[a-z]|[._-]\d+)*|(?:{_COMPARED})[ _-]?\d*|"
    r"\d+(?:h|hr|min|d|um|x|px)",
    re.IGNORECASE,
)
"""Pieces that count, place, time or compare images, and so name no channel."""


COMPANION = (
    r"(?:blue|green|red|yellow|orange|cyan|magenta|violet|purple|white|far-?red|blau|grün|gruen|rot|gelb|bleu|vert|rouge)"
    r"(?![A-Za-z])|\d{2}([-._]?)\d{2}\1\d{2}(?!\d)"
)
"""Words that may follow the name of a channel and go with it: its colour, or the time at which it was taken."""
_COMPANION_AFTER = re.compile(rf"[ _-]+(?:{COMPANION})", re.IGNORECASE)
_COMPANION_END = re.compile(rf"(?<=\w)[ _-]+(?:{COMPANION})$", re.IGNORECASE)


def _whole(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_DNA, _STAIN, _MERGE = (_whole(one) for one in (DNA, STAINS, MERGE))
_ANCHOR = re.compile(
    rf"(?<![A-Za-z])(?:{DNA}){_FILTERS}(?![A-Za-z])|"
    rf"(?<![A-Za-z0-9])(?:fluorescence[ _])?(?:{UV})(?:[ _]?nm(?:[ _]ex)?)?(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_JOINED = re.compile(r"(?<=[a-z])(?:DAPI|Hoechst)(?![A-Za-z])")
_MERGED = re.compile(rf"(?:(?<![A-Za-z0-9])|(?<=f\d\d))(?:{MERGE})(?![A-Za-z0-9])", re.IGNORECASE)
_HINTS = ("dapi", "hoechst", "3342", "3258", "draq", "sytox", "nuc", "dna", "pro", "h2b")
_UV_HINT = re.compile(rf"(?<![A-Za-z0-9])(?:{UV})")
_MERGE_HINTS = ("lagerung", "merge", "overlay", "comp", "rgb", "combined", "blend", "channel", "multi")
_SUM_HINT = re.compile(r"[Cc][Hh]?\d{1,2}[+-]|f\d\do\d")
"""What all names that the patterns match have in them."""
SUM = re.compile(r"ch?\d{1,2}(?:\+(?:ch?)?\d{1,2})+", re.IGNORECASE)
"""A merge that is called by the numbers of its channels."""


def anchors(name: str) -> list[tuple[int, int]]:
    """Where a name says that it shows DNA, or light that excites its stains: starts and ends."""
    lower = name.lower()
    if not any(hint in lower for hint in _HINTS) and not _UV_HINT.search(name):  # ten times as quick as the patterns
        return []
    spans = [match.span() for pattern in (_ANCHOR, _JOINED) for match in pattern.finditer(name)]
    with_companions = [(start, match.end()) for start, end in spans if (match := _COMPANION_AFTER.match(name, end))]
    return spans + with_companions


def merges(name: str, start: int) -> list[tuple[int, int]]:
    """Where a name, from `start` on, has a word for a merge, or what Cellomics calls its overlays: starts and ends."""
    lower = name.lower()
    if not any(hint in lower for hint in _MERGE_HINTS) and not _SUM_HINT.search(name, start):
        return []
    return [match.span() for match in _MERGED.finditer(name, start)]


@functools.lru_cache(maxsize=4096)  # a folder has few different ones
def word_of(piece: str) -> Word:
    """What a piece of a name says."""
    plain = _COMPANION_END.sub("", re.sub(_FILTERS + "$", "", piece))
    if _MERGE.fullmatch(plain):
        return "merge"
    if _DNA.fullmatch(plain):
        return "dna"
    if plain.isdecimal():
        return "laser" if int(plain) in _LASERS else "no"
    if _STAIN.fullmatch(plain):
        return "stain"
    if _NO.fullmatch(plain):
        return "no"
    parts = [part for part in re.split(r"[\W_]+", plain) if part]
    if len(parts) < 2:
        return "other"
    words = {word_of(part) for part in parts}
    if words & {"no", "merge"}:
        return "no"
    return "stain" if "stain" in words else "other"
