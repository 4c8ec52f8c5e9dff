"""The OME-Zarr part of a group's attributes: within `ome` from version 0.5 on, beside all others before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OME_KEYS = ("multiscales", "omero", "plate", "well", "bioformats2raw.layout", "series", "labels", "image-label")
"""Attributes that are OME-Zarr's."""


def ome_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The OME-Zarr attributes of a group, as written; empty where it has none."""
    inner = attributes.get("ome")
    if isinstance(inner, dict):
        return inner
    return {key: value for key, value in attributes.items() if key in OME_KEYS}


def with_ome(attributes: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a group with some of its OME-Zarr attributes changed, where its version has them."""
    inner = attributes.get("ome")
    if isinstance(inner, dict):
        return {**attributes, "ome": {**inner, **changes}}
    return {**attributes, **changes}
