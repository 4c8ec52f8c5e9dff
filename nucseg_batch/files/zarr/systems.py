"""OME-Zarr 0.6, in which axes belong to coordinate systems, in the terms of version 0.5.

Read as the release candidate of July 2026 has it: images whose pixels are scaled and moved along their axes. Nothing
else of this program needs to know that version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nucseg_batch.errors import ImageError

_SUPPORTED = ("identity", "scale", "translation")


def has_systems(multiscale: Mapping[str, Any]) -> bool:
    """Whether a multiscale is of version 0.6."""
    return "coordinateSystems" in multiscale


def flattened(multiscale: Mapping[str, Any]) -> dict[str, Any]:
    """A multiscale of version 0.6 as one of 0.5; one of an earlier version as it is.

    Its axes are those of the coordinate system that the first level leads to, and each level gets one scale and one
    translation. Transformations to further coordinate systems are left out. Raises ImageError for other transformations
    of pixels, and KeyError, TypeError, ValueError, AttributeError or IndexError for damaged metadata.
    """
    if not has_systems(multiscale):
        return dict(multiscale)
    systems = {system["name"]: system["axes"] for system in multiscale["coordinateSystems"]}
    axes = systems[_named(multiscale["datasets"][0]["coordinateTransformations"][-1]["output"])]
    datasets = [
        {"path": dataset["path"], "coordinateTransformations": _placed(dataset["coordinateTransformations"], len(axes))}
        for dataset in multiscale["datasets"]
    ]
    kept = {key: multiscale[key] for key in ("name", "type", "metadata") if key in multiscale}
    return {**kept, "axes": list(axes), "datasets": datasets}


def _placed(transformations: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """One scale and one translation that do the same as a sequence of transformations of `count` axes."""
    scale, translation = [1.0] * count, [0.0] * count
    for part in _parts(transformations):
        kind = part["type"]
        if kind not in _SUPPORTED:
            raise ImageError(f"its pixels are placed by a transformation of type {str(kind)[:20]}: not supported.")
        if kind == "identity":
            continue
        values = [float(value) for value in part[kind]]
        if kind == "scale":
            scale = [own * value for own, value in zip(scale, values, strict=True)]
            translation = [own * value for own, value in zip(translation, values, strict=True)]
        else:
            translation = [own + value for own, value in zip(translation, values, strict=True)]
    return [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]


def _parts(transformations: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The transformations of a list in the order in which they are applied, those of sequences one by one."""
    for transformation in transformations:
        if transformation["type"] == "sequence":
            yield from _parts(transformation["transformations"])
        else:
            yield transformation


def _named(place: Any) -> str:
    """The name of a coordinate system, which drafts gave as it is, and the release candidate as an object."""
    return str(place["name"] if isinstance(place, dict) else place)
