"""What other programs leave among the images: outputs of segmentation tools, and folders of file servers.

A name alone proves little, since an image may well be called `mask`. An output is recognised by its name and by the
image that it was made from: `A01_cp_masks.png` beside `A01.tif`. Names that only one program writes need no image of
their own, as long as there are other images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from nucseg_batch.files.find.name_rules import IMAGE_ENDING

SYSTEM_FOLDERS = re.compile(
    r"@eadir|@tmp|@recycle|@recently-snapshot|@sharebin|#recycle|#snapshot|~?snapshot|\$recycle\.bin|recycler|recycled|"
    r"system volume information|found\.\d{3}|lost\+found|__macosx|network trash folder|temporary items|"
    r"thevolumesettingsfolder|__pycache__",
    re.IGNORECASE,
)
"""Folders that file systems, file servers and archives make: trash, snapshots, thumbnails."""
SYSTEM = "folder of the file system or file server (trash, snapshots, thumbnails)"
"""Reason for these."""
_TOOLS = (
    (
        "Cellpose",
        r"(?:outlines|flows|dP|cellprob|cp_output|cp_outlines|cp_flows)_cp_masks|cp_(?:masks|outlines|output|flows?)|"
        r"(?-i:dP)",
    ),
    ("StarDist", r"stardist"),
    ("InstanSeg", r"instanseg_prediction"),
)
"""Programs, and endings of names that only they write."""
_STRONG = {tool: re.compile(rf"(.*?)[._\- ](?:{endings})", re.IGNORECASE | re.DOTALL) for tool, endings in _TOOLS}
_ENDINGS = {
    "segmentation": r"masks?|labels?|lbls?|seg|segmented|segmentations?|labell?ed|predictions?|"
    r"probabilities|simple segmentation|object predictions|uncertainty|flows|cellprob|outlines?|instances|"
    r"annotations?|rois?|watershed|pred|overlay|contours|boundaries|preview|"
    r"thumb|thumbnail|predicted|mask[_\- ]?rois?|cellpose|mesmer|deepcell|omnipose|macrolabel",
    "derived": r"probs?|binary|gt",
}
_WEAK = "derived"
"""Kind of endings that real images may also have."""
_ENDING = {
    kind: re.compile(rf"(.+?)[._\- ](?:{endings})", re.IGNORECASE | re.DOTALL) for kind, endings in _ENDINGS.items()
}
_OBJECT = re.compile(r"[._\- ](?:nuclei|nucleus|nuclear|cells?|cyto)", re.IGNORECASE)
"""What may stand before an ending: `A01_nuclei_mask` is made from `A01_nuclei` or from `A01`."""
_BEGINNING = re.compile(
    r"(?:(?:masks?|labels?|seg|outlines?|flows|pred)[_\-]|(?:(?:count )?masks?|labels|outlines|drawing) of )(.+)",
    re.IGNORECASE | re.DOTALL,
)
OUTPUT_FOLDERS = re.compile(
    r"(?:nuclei|nuclear|cell|cellpose|stardist|instanseg)?[_\- ]?"
    r"(?:masks?|labels?|outlines?|flows?|seg|segmentations?|predictions?|overlays?|gt|ground[_\- ]?truths?|"
    r"annotations?|thumbs?|thumbnails?|previews?)|txt_outlines|cellpose|stardist|instanseg|mesmer|qc",
    re.IGNORECASE,
)
"""Names of folders that may hold what was made of the images beside them."""
ANNOTATION = "annotation beside its image"
"""Reason for label images, as `name_rules.label_images` knows them."""
BESIDE = "output of a segmentation tool beside its image"
"""Reason for files whose ending says that they were made from the image beside them."""
WEAK = "image that may have been made from the one beside it, by its name"
"""Of files whose ending real images may also have, which are taken for images."""
ONLY = "image that is called like an output of a segmentation tool, in a folder that holds nothing else"
"""Of files of which the folder has no others, which are taken for images, too."""
TAKEN = frozenset({WEAK, ONLY})
"""Reasons for which files are not skipped, but doubted."""
ALONE = "output of a segmentation tool without its image"
"""Reason for files that only one program writes, where the image that they were made from is not beside them."""
FOLDER = "folder of outputs of a segmentation tool beside the images"
"""Reason for whole folders."""
PARTLY = "folder of outputs of a segmentation tool, of some of the images beside it"
"""Reason for folders of which some files have no image beside them."""
_HINTS = (
    *("mask", "label", "lbl", "seg", "pred", "prob", "uncertain", "flow", "outline", "instance", "annot", "roi"),
    *(
        "watershed",
        "binary",
        "gt",
        "overlay",
        "contour",
        "boundar",
        "preview",
        "thumb",
        "drawing",
        "dist",
        "dp",
        "cp_",
        "pose",
        "mesmer",
    ),
    *("deepcell", "omnipose"),
)
"""What all names that the patterns match have in them; most names have nothing of it."""
MOST_STRIPPED = 4
"""Endings that are taken off a name, one after the other."""


@dataclass(frozen=True)
class SkipRule:
    """What is told of the files that were skipped for one reason."""

    evidence: str
    """Why they were."""
    doubtful: bool
    """Whether an image may be among them."""


RULES = {
    ANNOTATION: SkipRule("their names are those of images beside them with an ending of label images", False),
    BESIDE: SkipRule("their names end like outputs, and the images of these names lie beside them", False),
    WEAK: SkipRule("their names are those of images beside them with an ending that images may also have", True),
    ONLY: SkipRule("there are no other images", True),
    ALONE: SkipRule("only one program names files like this, and there are other images", True),
    FOLDER: SkipRule("the folder is called like outputs, and its files like the images beside it", False),
    PARTLY: SkipRule("the folder is called like outputs, and most of its files like the images beside it", True),
}
"""By reason."""


def stem_of(name: str) -> str:
    """The name of an image file without suffix."""
    return os.path.splitext(name)[0].removesuffix(".ome")


def tool_of(name: str) -> str | None:
    """The program that names its outputs like this, whatever lies beside it; None where none does."""
    stem = stem_of(name)
    if not _is_hinted(stem):
        return None
    return next((tool for tool, pattern in _STRONG.items() if pattern.fullmatch(stem)), None)


def leftovers(names: Iterable[str]) -> dict[str, str]:
    """Those of a folder's image files that another program may have left, each with the reason.

    They are skipped, but for reasons in TAKEN. Where there are no other images, these are what is meant.
    """
    names = list(names)
    hinted = [name for name in names if _is_hinted(name)]
    if not hinted:
        return {}
    stems = {stem_of(name) for name in names} | {os.path.splitext(name)[0] for name in names} | set(names)
    found = {name: reason for name in hinted if (reason := _beside(name, stems))}
    alone = [name for name in hinted if name not in found and tool_of(name)]
    others = len(names) - len(alone) - sum(reason not in TAKEN for reason in found.values())
    return found | dict.fromkeys(alone, ALONE if others else ONLY)


def is_output_folder(name: str, files: Sequence[str], beside: Set[str]) -> str | None:
    """The reason for which a folder is skipped as a whole; None for folders of images.

    name: of the folder. files: its image files. beside: stems of the images in its parent folder and in the folders
    next to it.
    """
    if not OUTPUT_FOLDERS.fullmatch(name) or not files:
        return None
    paired = sum(1 for file in files if not beside.isdisjoint(_stripped(stem_of(file))))
    if paired == len(files):
        return FOLDER
    return PARTLY if 2 * paired >= len(files) else None


def guessed(counts: Mapping[str, int]) -> list[tuple[str, int, SkipRule]]:
    """Of counts by reason those of files of which it was guessed whether they are images."""
    return [(reason, count, RULES[reason]) for reason, count in counts.items() if reason in RULES and count]


def _is_hinted(name: str) -> bool:
    lower = name.lower()
    return any(hint in lower for hint in _HINTS)


def _beside(name: str, stems: Set[str]) -> str | None:
    stem = stem_of(name)
    weak = False
    for start, kind in _cuts(stem):
        weak |= kind == _WEAK
        if not stems.isdisjoint({start, start + IMAGE_ENDING, start.removesuffix(".nii")}):
            return WEAK if weak else BESIDE
    return None


def _stripped(stem: str) -> set[str]:
    """A stem, and what is left of it without endings of outputs."""
    cuts = {start for start, _ in _cuts(stem)}
    return {stem, *cuts, *(start + IMAGE_ENDING for start in cuts)}


def _cuts(stem: str) -> list[tuple[str, str]]:
    """What is left of a stem as endings, or a beginning, are taken off one by one, and the kind of each."""
    found: list[tuple[str, str]] = []
    if not _is_hinted(stem):
        return found
    if begun := _BEGINNING.fullmatch(stem):
        found += [(begun[1], "segmentation"), (stem_of(begun[1]), "segmentation")]
    for _ in range(MOST_STRIPPED):
        cut = _cut(stem)
        if cut is None:
            break
        found.append(cut)
        stem = cut[0]
        if (object_ := list(_OBJECT.finditer(stem))) and object_[-1].end() == len(stem):
            found.append((stem[: object_[-1].start()], cut[1]))
    return found


def _cut(stem: str) -> tuple[str, str] | None:
    for pattern in _STRONG.values():
        if (match := pattern.fullmatch(stem)) and match[1]:
            return match[1], "segmentation"
    for kind, pattern in _ENDING.items():
        if match := pattern.fullmatch(stem):
            return match[1], kind
    return None
