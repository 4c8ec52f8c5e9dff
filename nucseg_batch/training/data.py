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

from nucseg_batch.arrays.normalize import apply_range, percentile_range
from nucseg_batch.arrays.scale import typical_diameter
from nucseg_batch.errors import ImageError, NothingToDoError
from nucseg_batch.files.annotations import MAX_IMAGE_PIXELS, Pair
from nucseg_batch.files.zarr.planes import ZarrPlane
from nucseg_batch.plan import Assumption, doubt, merged
from nucseg_batch.training.targets import centres_and_areas

TYPICAL_DIAMETER = 24.0
"""Taken for the width of nuclei, in pixels, where an image has none to measure."""
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
    """(height, width), 0 is background."""
    centres: NDArray[np.float64]
    """(labels + 1, 2) centroids in pixels."""
    areas: NDArray[np.int64]
    """(labels + 1,) areas in pixels."""

    @property
    def diameter(self) -> float:
        """Typical width of its nuclei in pixels; of an image without any, TYPICAL_DIAMETER."""
        return typical_diameter(self.areas[1:]) or TYPICAL_DIAMETER


def read_sample(pair: Pair) -> Sample:
    """Reads one annotated image; raises ImageError naming it where files cannot be read or shapes differ.

    A binary mask in place of labels has its connected pieces numbered.
    """
    return _read(pair, semantic=False)[0]


def read_all(
    pairs: Sequence[Pair], tell: Callable[[str], None], *, semantic: bool = False, strict: bool = False
) -> list[Sample]:
    """Reads and checks all annotated images, before anything is learnt from any.

    `tell` gets a line for each image whose annotation is empty (it serves as background), for each unusable image and
    for each assumption. semantic: only the foreground is learnt, so a binary mask is not doubtful. Raises ImageError
    where images are unusable, since a model of fewer images than were given is not what was asked for,
    DoubtfulInputError where `strict` is set and an assumption is doubtful, and NothingToDoError where no image shows a
    nucleus.
    """
    samples, unusable = [], []
    assumptions: list[Assumption] = []
    for pair in pairs:
        try:
            sample, assumed = _read(pair, semantic=semantic)
        except ImageError as error:
            unusable.append(str(error))
            tell(str(error))
            continue
        samples.append(sample)
        assumptions += assumed
        if not sample.areas.any():
            tell(f"{pair.key}: no nucleus is annotated; it serves as background")
    for one in merged(assumptions):
        tell(f"assumed{' (doubtful)' if one.doubtful else ''}: {one.text}")
    if unusable:
        more = f"; and {len(unusable) - SHOWN} more" if len(unusable) > SHOWN else ""
        raise ImageError(
            f"{len(unusable)} of {len(pairs)} annotated images cannot be used; mend them, or remove them with their "
            f"annotation: {'; '.join(unusable[:SHOWN])}{more}"
        )
    if strict and (refusal := doubt(merged(assumptions))):
        raise refusal
    if not any(sample.areas.any() for sample in samples):
        raise NothingToDoError(
            f"No nucleus is annotated in any of the {len(samples)} images; there is nothing to learn."
        )
    return samples


def _read(pair: Pair, *, semantic: bool) -> tuple[Sample, list[Assumption]]:
    """One annotated image, and what was assumed of its annotation."""
    try:
        pixels, found = pair.read_pixels(), pair.read_labels(semantic=semantic)
        if found.labels.shape != pixels.shape[:2]:
            raise ImageError(f"the image is {pixels.shape[:2]} pixels and its annotation {found.labels.shape}.")
    except ImageError as error:
        raise ImageError(f"{pair.key}: {error}") from error
    centres, areas = centres_and_areas(found.labels)
    low, high = percentile_range(pixels)
    sample = Sample(pair.key, pair.modality, pixels, apply_range(pixels, low, high), found.labels, centres, areas)
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
        for source in (pair.image, *(pair.labels if isinstance(pair.labels, tuple) else (pair.labels,))):
            digest.update(hashlib.sha256(_contents(source)).digest())
    return digest.hexdigest()


def _contents(source: Path | ZarrPlane) -> bytes:
    if isinstance(source, Path):
        return source.read_bytes()
    pixels = source.read(max_pixels=MAX_IMAGE_PIXELS)
    return f"{pixels.dtype} {pixels.shape} ".encode() + pixels.tobytes()
