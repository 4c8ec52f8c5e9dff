"""Annotated images in memory: reads and checks them all before anything is learnt, and holds some out."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.normalize import apply_range
from nucseg_batch.arrays.ranges import intensity_range
from nucseg_batch.arrays.scale import typical_diameter
from nucseg_batch.errors import ImageError, NothingToDoError
from nucseg_batch.files.annotations import MAX_IMAGE_PIXELS, Pair
from nucseg_batch.files.zarr.planes import ZarrPlane
from nucseg_batch.plan import Assumption, doubt_error, merged
from nucseg_batch.settings import Intensities
from nucseg_batch.training.targets import centres_and_areas

TYPICAL_DIAMETER = 24.0
"""Taken for the width of nuclei, in pixels, where an image has none to measure."""
NEGATIVE = "negative"
"""Modality of images that are known to show no nucleus."""
SHOWN = 10
"""Unusable images that an error names."""


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
    """(height, width): 0 is background, -1 is not annotated and has no weight."""
    centres: NDArray[np.float64]
    """(labels + 1, 2) centroids in pixels."""
    areas: NDArray[np.int64]
    """(labels + 1,) areas in pixels."""
    collection: str = ""
    """Data set that it belongs to, where there are several."""
    intensities: Intensities = "nuclei"
    """By which rule `image` was normalised."""

    @property
    def truth(self) -> NDArray[np.int32]:
        """(height, width), 0 is background: the nuclei, as labelled."""
        return np.maximum(self.labels, 0)

    def scored(self, found: NDArray[np.int32]) -> NDArray[np.int32]:
        """Labels found in it without those that lie for the most part where nothing is annotated."""
        ignored = self.labels < 0
        if not ignored.any():
            return found
        areas = np.bincount(found.ravel())
        hidden = np.bincount(found.ravel(), ignored.ravel(), areas.size)
        return np.where((hidden > areas / 2)[found], 0, found)

    @property
    def diameter(self) -> float:
        """Typical width of its nuclei in pixels; of an image without any, TYPICAL_DIAMETER."""
        return typical_diameter(self.areas[1:]) or TYPICAL_DIAMETER


def read_all(
    pairs: Sequence[Pair],
    tell: Callable[[str], None],
    *,
    semantic: bool = False,
    strict: bool = False,
    intensities: Intensities = "nuclei",
) -> list[Sample]:
    """Reads and checks all annotated images, before anything is learnt from any.

    `tell` gets a line for each image whose annotation is empty (it serves as background), for each unusable image and
    for each assumption. semantic: only the foreground is learnt, so a binary mask is not doubtful. intensities: the
    model's rule. Raises ImageError
    where images are unusable, since a model of fewer images than were given is not what was asked for,
    DoubtfulInputError where `strict` is set and an assumption is doubtful, and NothingToDoError where no image shows a
    nucleus.
    """
    samples, unusable = [], []
    assumptions: list[Assumption] = []
    for pair in pairs:
        try:
            sample, assumed = _read(pair, semantic=semantic, intensities=intensities)
        except ImageError as error:
            unusable.append(str(error))
            tell(str(error))
            continue
        samples.append(sample)
        assumptions += assumed
        if not sample.areas.any() and sample.modality != NEGATIVE:
            tell(f"{pair.key}: no nucleus is annotated; it serves as background")
    for one in merged(assumptions):
        tell(f"assumed{' (doubtful)' if one.doubtful else ''}: {one.text}")
    if unusable:
        more = f"; and {len(unusable) - SHOWN} more" if len(unusable) > SHOWN else ""
        raise ImageError(
            f"{len(unusable)} of {len(pairs)} annotated images cannot be used; mend them, or remove them with their "
            f"annotation: {'; '.join(unusable[:SHOWN])}{more}"
        )
    if strict and (refusal := doubt_error(merged(assumptions))):
        raise refusal
    if not any(sample.areas.any() for sample in samples):
        raise NothingToDoError(
            f"No nucleus is annotated in any of the {len(samples)} images; there is nothing to learn."
        )
    return samples


def _read(pair: Pair, *, semantic: bool, intensities: Intensities = "nuclei") -> tuple[Sample, list[Assumption]]:
    """One annotated image, and what was assumed of its annotation."""
    try:
        pixels, found = pair.read_pixels(), pair.read_labels(semantic=semantic)
        if found.labels.shape != pixels.shape[:2]:
            raise ImageError(f"the image is {pixels.shape[:2]} pixels and its annotation {found.labels.shape}.")
        ignored = pair.read_ignored()
        if ignored is not None and ignored.shape != pixels.shape[:2]:
            raise ImageError(f"the image is {pixels.shape[:2]} pixels and its mask to ignore {ignored.shape}.")
        if pair.modality == NEGATIVE and found.labels.any():
            raise ImageError(f"its modality is {NEGATIVE}, but {found.labels.max()} nuclei are annotated in it.")
    except ImageError as error:
        raise ImageError(f"{pair.key}: {error}") from error
    centres, areas = centres_and_areas(found.labels)
    labels = found.labels if ignored is None else np.where(ignored & (found.labels == 0), np.int32(-1), found.labels)
    image = apply_range(pixels, *intensity_range(pixels, intensities))
    sample = Sample(pair.key, pair.modality, pixels, image, labels, centres, areas, pair.collection, intensities)
    return sample, [dataclasses.replace(one, example=pair.key) for one in found.assumptions]


def split_pairs(
    pairs: Sequence[Pair], *, fraction: float, seed: int, validation: Sequence[Pair] = ()
) -> tuple[list[Pair], list[Pair]]:
    """Training and validation images.

    Where `validation` is given, it is all that is validated on, and what is in it or marked `val` is not trained on.
    Else images marked `val` by the data set are held out, and where there is none a random `fraction` of them, at least
    one, of which images of one group are on the same side. Raises NothingToDoError where one side stays empty.
    """
    if validation:
        held = {_place(pair) for pair in validation}
        training = [pair for pair in pairs if pair.split != "val" and _place(pair) not in held]
        return _both(training, list(validation))
    if any(pair.split == "val" for pair in pairs):
        chosen = {pair.key for pair in pairs if pair.split == "val"}
    else:
        chosen = _drawn(pairs, max(1, round(fraction * len(pairs))), seed)
    training = [pair for pair in pairs if pair.key not in chosen]
    return _both(training, [pair for pair in pairs if pair.key in chosen])


def _both(training: list[Pair], validation: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    if not training or not validation:
        raise NothingToDoError(
            f"Training needs images to learn from and others to validate on; there are {len(training)} for the one and "
            f"{len(validation)} for the other. Add images, or groups where they are split by group."
        )
    return training, validation


def _drawn(pairs: Sequence[Pair], wanted: int, seed: int) -> set[str]:
    """Keys of about `wanted` images, drawn by groups: never more than that, unless the smallest group is larger."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        groups[("group", pair.group) if pair.group else ("image", pair.key)].append(pair.key)
    members = list(groups.values())
    order = [members[i] for i in np.random.default_rng(seed).permutation(len(members))]
    chosen: set[str] = set()
    for keys in order:
        if len(chosen) + len(keys) <= wanted:
            chosen.update(keys)
    smallest: list[str] = min(order, key=len)
    return chosen or set(smallest)


def _place(pair: Pair) -> Path | ZarrPlane:
    """Where an image is, whatever way led there."""
    if isinstance(pair.image, ZarrPlane):
        return ZarrPlane(pair.image.group.resolve(), pair.image.index)
    return pair.image.resolve()


def fingerprint(pairs: Sequence[Pair]) -> str:
    """SHA-256 over keys and contents of files and planes, so that a model card can name its data."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(pair.key.encode(errors="surrogateescape"))
        annotation = pair.labels if isinstance(pair.labels, tuple) else (pair.labels,)
        for source in (pair.image, *annotation, *pair.ignore):
            digest.update(hashlib.sha256(_contents(source)).digest())
    return digest.hexdigest()


def _contents(source: Path | ZarrPlane) -> bytes:
    if isinstance(source, Path):
        return source.read_bytes()
    pixels = source.read(max_pixels=MAX_IMAGE_PIXELS)
    return f"{pixels.dtype} {pixels.shape} ".encode() + pixels.tobytes()
