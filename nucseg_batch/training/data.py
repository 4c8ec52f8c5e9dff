"""Finds annotated images, reads them and draws training crops.

Two layouts are understood: sibling folders `images/` and `labels/` anywhere below the folder given, files paired by
stem, with an optional `index.csv` (columns `id` and `split`: rows of `train` and `val` are used as such, others never;
`modality` is optional); and Kaggle's `<id>/images/*.png` with one binary picture a nucleus in `<id>/masks/*.png`.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.normalize import apply_range, percentile_range
from nucseg_batch.arrays.scale import typical_diameter
from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError
from nucseg_batch.files.images import IMAGE_SUFFIXES, read_image
from nucseg_batch.training.targets import centres_and_areas

TYPICAL_DIAMETER = 24.0
"""Taken for the width of nuclei, in pixels, where an image has none to measure."""
MAX_PIXELS = 100_000_000
"""Annotated images with more pixels are refused."""


@dataclass(frozen=True)
class Pair:
    """One annotated image, as files."""

    key: str
    """Name that is unique in the data set."""
    image: Path
    """The image."""
    labels: tuple[Path, ...]
    """One label image, or one binary mask for each nucleus."""
    split: str | None = None
    """`train` or `val` where the data set says so."""
    modality: str = "unknown"
    """Kind of microscopy, where the data set says so."""


@dataclass(frozen=True)
class Sample:
    """One annotated image, in memory."""

    key: str
    """Name that is unique in the data set."""
    modality: str
    """Kind of microscopy, or `unknown`."""
    pixels: NDArray[Any]
    """(height, width) or (height, width, 3), as read."""
    image: NDArray[np.float32]
    """The same, normalised."""
    labels: NDArray[np.int32]
    """(height, width), 0 is background."""
    centres: NDArray[np.float64]
    """(labels + 1, 2) centroids in pixels."""
    areas: NDArray[np.int64]
    """(labels + 1,) areas in pixels."""

    @property
    def diameter(self) -> float:
        """Typical width of its nuclei in pixels; of an image without any, TYPICAL_DIAMETER."""
        return typical_diameter(self.areas[1:]) or TYPICAL_DIAMETER


def find_pairs(folder: Path) -> list[Pair]:
    """Lists the annotated images below a folder, sorted by key.

    Raises InputMissingError where there is no such folder and NothingToDoError where nothing in it pairs.
    """
    if not folder.is_dir():
        raise InputMissingError(f"{folder} is not a folder; give the folder that holds the annotated images.")
    pairs = _paired_folders(folder) + _kaggle_folders(folder)
    if not pairs:
        raise NothingToDoError(
            f"No annotated images were found in {folder}: expected sibling folders images/ and labels/ with files of "
            "the same names, or <id>/images/ and <id>/masks/ as Kaggle ships them."
        )
    return sorted(pairs, key=lambda pair: pair.key)


def _paired_folders(folder: Path) -> list[Pair]:
    pairs: list[Pair] = []
    for labels in sorted([folder / "labels", *folder.rglob("labels")]):
        images = labels.parent / "images"
        if not labels.is_dir() or not images.is_dir() or any(p.image.parent == images for p in pairs):
            continue
        index = _index(labels.parent, folder)
        by_stem = {path.stem: path for path in _image_files(labels)}
        for image in _image_files(images):
            row = index.get(image.stem, {})
            wanted = not index or (row.get("split", "train") in ("train", "val") and bool(row))
            if wanted and image.stem in by_stem:
                key = image.relative_to(folder).as_posix()
                modality = row.get("modality") or "unknown"
                pairs.append(Pair(key, image, (by_stem[image.stem],), row.get("split"), modality))
    return pairs


def _kaggle_folders(folder: Path) -> list[Pair]:
    pairs = []
    for masks in sorted(folder.rglob("masks")):
        images = _image_files(masks.parent / "images")
        if masks.is_dir() and len(images) == 1:
            key = masks.parent.relative_to(folder).as_posix()
            pairs.append(Pair(key, images[0], tuple(_image_files(masks))))
    return pairs


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def _index(folder: Path, top: Path) -> dict[str, dict[str, str]]:
    """Rows of the nearest index.csv by id: beside the folders, or up to one level above the folder given."""
    for place in (folder, *folder.parents):
        if (place / "index.csv").is_file():
            with open(place / "index.csv", newline="", encoding="utf-8-sig", errors="replace") as file:
                return {row["id"]: row for row in csv.DictReader(file) if "id" in row}
        if place == top.parent:
            break
    return {}


def read_labels(paths: tuple[Path, ...]) -> NDArray[np.int32]:
    """Reads annotation as one label image: a label file as it is, several binary masks numbered in order of name.

    Pixels claimed by two masks belong to the later one. Raises ImageError where files are colour or differ in shape.
    """
    if not paths:
        raise ImageError("there are no masks.")
    layers: list[NDArray[Any]] = []
    for path in paths:
        layer = read_image(path, max_pixels=MAX_PIXELS)
        if layer.ndim == 3 and len(paths) > 1:
            layer = layer.max(axis=2)
        if layer.ndim != 2 or layer.shape != (layers[0].shape if layers else layer.shape):
            raise ImageError(f"{path.name} has shape {layer.shape}; annotation must be one plane of the image's shape.")
        layers.append(layer)
    if len(layers) == 1:
        if layers[0].dtype.kind not in "ui" or layers[0].min() < 0:
            raise ImageError(f"{paths[0].name} is {layers[0].dtype}; labels are whole numbers, 0 for background.")
        _, numbers = np.unique(np.append(layers[0], layers[0].dtype.type(0)), return_inverse=True)
        return numbers[:-1].reshape(layers[0].shape).astype(np.int32)
    labels = np.zeros(layers[0].shape, np.int32)
    for number, layer in enumerate(layers, start=1):
        labels[layer > 0] = number
    return labels


def read_sample(pair: Pair) -> Sample:
    """Reads one annotated image; raises ImageError naming it where files cannot be read or shapes differ."""
    try:
        pixels = read_image(pair.image, max_pixels=MAX_PIXELS)
        labels = read_labels(pair.labels)
        if labels.shape != pixels.shape[:2]:
            raise ImageError(f"the image is {pixels.shape[:2]} pixels and its annotation {labels.shape}.")
    except ImageError as error:
        raise ImageError(f"{pair.key}: {error}") from error
    centres, areas = centres_and_areas(labels)
    low, high = percentile_range(pixels)
    return Sample(pair.key, pair.modality, pixels, apply_range(pixels, low, high), labels, centres, areas)


def split_pairs(pairs: list[Pair], *, fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Training and validation images: as the data set says, else a random `fraction` (at least one) held out.

    Raises NothingToDoError where fewer than two images leave one side empty.
    """
    if any(pair.split == "val" for pair in pairs):
        training = [pair for pair in pairs if pair.split == "train"]
        validation = [pair for pair in pairs if pair.split == "val"]
    else:
        order = np.random.default_rng(seed).permutation(len(pairs))
        held = max(1, round(fraction * len(pairs)))
        chosen = set(order[:held].tolist())
        training = [pair for i, pair in enumerate(pairs) if i not in chosen]
        validation = [pair for i, pair in enumerate(pairs) if i in chosen]
    if not training or not validation:
        raise NothingToDoError(f"Training needs images to learn from and to validate on; found {len(pairs)} in all.")
    return training, validation


def fingerprint(pairs: list[Pair]) -> str:
    """SHA-256 over keys and file contents, so that a model card can name its data."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(pair.key.encode())
        for path in (pair.image, *pair.labels):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
