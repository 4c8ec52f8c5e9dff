"""Naming rules of annotated data: which file is the label image of which image, and which folders hold either.

Names are compared by their core: the name without suffix, without `.ome`, and without the word that says what the file
is. `a.tif`, `a_img.png` and `a.ome.tif` are images with the core `a`; `a_masks.tif`, `a-labels.png`, `A_GT.tif` and
`mask_a.png` are label images. Words are recognised in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from nucseg_batch.files.kinds import IMAGE_SUFFIXES

LABEL_WORDS = (
    *("masks", "mask", "labels", "label", "instances", "instance", "gt", "ground_truth", "groundtruth", "truth"),
    *("annotations", "annotation", "segmentation", "lbl", "cp_masks", "seg", "stardist", "instanseg_prediction"),
)
"""Words at either end of a label image's name; of several label images of one image the first of these counts."""
_OBJECTS = ("nuclei", "nuclear", "nucleus", "cell", "cells", "instance", "label", "image", "images")
"""Words that may stand on either side of these, as in `a_instance_mask`, `a_nuclei_labels` and `a_label_image`."""
IMAGE_WORDS = ("img", "image", "raw", "original", "dapi", "hoechst", "dna", "0000")
"""Words at either end of an image's name that its label image may lack; 0000 is nnU-Net's first channel."""
FOLDERS_OF_LABELS = (
    *("labels", "label", "masks", "mask", "gt", "groundtruth", "truth", "ground", "annotations", "annotation"),
    *("segmentations", "segmentation", "seg", "instances", "targets", "target"),
)
"""Words in the name of a folder of label images; of several such folders the first of these counts."""
FOLDERS_OF_IMAGES = frozenset({"images", "image", "imgs", "img", "raw", "inputs", "input", "originals"})
"""Words in the name of a folder of images that has a folder of label images beside it."""
FOLDERS_TO_IGNORE = ("ignore", "micronuclei")
"""Folders of masks, beside those of images and label images, of pixels that are neither nucleus nor background."""

_SEPARATOR = r"[ _.-]+"


def _either(words: Iterable[str]) -> str:
    return "|".join(word.replace("_", "[ _-]?") for word in sorted(words, key=len, reverse=True))


_LABEL = (
    rf"(?:(?:{_either(_OBJECTS)}){_SEPARATOR})?(?P<word>{_either(LABEL_WORDS)})(?:{_SEPARATOR}(?:{_either(_OBJECTS)}))?"
)
_LABEL_END = re.compile(rf"(?P<core>.+?){_SEPARATOR}{_LABEL}", re.IGNORECASE)
_LABEL_START = re.compile(rf"{_LABEL}{_SEPARATOR}(?P<core>.+)", re.IGNORECASE)
_IMAGE_END = re.compile(rf"(?P<core>.+?){_SEPARATOR}(?:{_either(IMAGE_WORDS)})", re.IGNORECASE)
_IMAGE_START = re.compile(rf"(?:{_either(IMAGE_WORDS)}){_SEPARATOR}(?P<core>.+)", re.IGNORECASE)
CHALLENGE = "/SEG"
"""Folder in that of annotation that holds the label images, in the Cell Tracking Challenge's data."""
_CHALLENGE_LABEL = re.compile(r"man_seg_?(?P<number>\d+)")
_CHALLENGE_FOLDER = re.compile(r"(?P<images>.+)_(?:GT|ST)")
_TOKENS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


@dataclass(frozen=True)
class AnnotationName:
    """What the name of a file says."""

    stem: str
    """Path in its folder without suffix and without `.ome`."""
    core: str
    """The same without the word for label images or images."""
    label_rank: int | None
    """Place in LABEL_WORDS of the word that makes it a label image; None where there is none."""

    @property
    def image_core(self) -> str:
        """The core of an image of this name: `a` for `a_img`, but `a_masks` for an image called `a_masks`."""
        return self.core if self.label_rank is None else self.stem


def stem(key: str) -> str:
    """A path without the suffix of its last part."""
    return str(PurePosixPath(key).with_suffix(""))


def read_name(name: str) -> AnnotationName:
    """What the name of a file, or a path that ends in one, says; it has no suffix any more."""
    folder, slash, last = name.rpartition("/")
    last = re.sub(r"\.ome$", "", last, flags=re.IGNORECASE) or last
    before = f"{folder}{slash}"
    if challenge := _CHALLENGE_LABEL.fullmatch(last):
        return AnnotationName(before + last, f"{before}t{challenge['number']}", LABEL_WORDS.index("seg"))
    for pattern in (_LABEL_END, _LABEL_START):
        found = pattern.fullmatch(last)
        if found:
            word = re.sub(r"[ _-]", "", found["word"].lower())
            rank = next(rank for rank, known in enumerate(LABEL_WORDS) if known.replace("_", "") == word)
            core = re.sub(r"\.ome$", "", found["core"], flags=re.IGNORECASE)
            return AnnotationName(before + last, before + _image_core(core), rank)
    return AnnotationName(before + last, before + _image_core(last), None)


def _image_core(last: str) -> str:
    for pattern in (_IMAGE_END, _IMAGE_START):
        found = pattern.fullmatch(last)
        if found:
            return found["core"]
    return last


def is_image_name(name: str) -> bool:
    """Whether a file name is that of an image, by its suffix; hidden files are not."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def folder_kind(name: str) -> tuple[Literal["images", "labels"] | None, tuple[str, ...], int]:
    """What the name of a folder says that it holds, the other words of the name, and how good a name it is (0: best).

    `labelsTr` holds labels and has the other word `tr`, as `imagesTr` has; `label_images` holds labels.
    """
    words = [word.lower() for word in _TOKENS.findall(name)]
    label_words = [word for word in words if word in FOLDERS_OF_LABELS]
    others = tuple(word for word in words if word not in FOLDERS_OF_LABELS and word not in FOLDERS_OF_IMAGES)
    if label_words:
        return "labels", others, min(FOLDERS_OF_LABELS.index(word) for word in label_words)
    if len(others) < len(words):
        return "images", others, 0
    return None, others, 0


@dataclass(frozen=True)
class FolderPair:
    """A folder of images and the folder of their label images beside it."""

    images: str
    labels: str
    unused: tuple[str, ...] = ()
    """Further folders of label images of the same images."""


def folder_pairs(names: Sequence[str]) -> tuple[FolderPair, ...]:
    """Which of the folders in one place belong together: those whose names differ in the word for images and labels.

    One folder of images and one of label images belong together whatever else their names say. `01/` and `01_GT/SEG/`
    are those of the Cell Tracking Challenge.
    """
    challenge = [(found["images"], name) for name in sorted(names) if (found := _CHALLENGE_FOLDER.fullmatch(name))]
    gold = {images: name for images, name in reversed(challenge) if images in names}
    if gold:
        return tuple(FolderPair(images, name + CHALLENGE) for images, name in sorted(gold.items()))
    images: dict[tuple[str, ...], list[str]] = {}
    labels: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for name in sorted(names):
        kind, others, rank = folder_kind(name)
        if kind == "images":
            images.setdefault(others, []).append(name)
        elif kind == "labels":
            labels.setdefault(others, []).append((rank, name))
    pairs = []
    for others, folders in images.items():
        if others in labels:
            ranked = [name for _, name in sorted(labels[others])]
            pairs.append(FolderPair(folders[0], ranked[0], tuple(ranked[1:])))
    if not pairs and len(images) == 1 and len(labels) == 1:
        (image_folders,), (ranked_labels,) = images.values(), labels.values()
        if len(image_folders) == 1:
            ranked = [name for _, name in sorted(ranked_labels)]
            pairs.append(FolderPair(image_folders[0], ranked[0], tuple(ranked[1:])))
    return tuple(pairs)


def label_folders(names: Iterable[str]) -> list[str]:
    """Those of the folders in one place that hold label images by their names, the best first."""
    ranked = [(folder_kind(name)[2], name) for name in names if folder_kind(name)[0] == "labels"]
    return [name for _, name in sorted(ranked)]
