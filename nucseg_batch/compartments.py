"""The label images of a run: nuclei and, where asked for, compartments around them, and how these are asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass

NUCLEI_LABEL, RINGS, CELLS, VOLUMES = "nuclei", "rings", "cells", "volumes"
"""Names of label images in the store, in the order in which they are listed; volumes are nuclei over the slices of a
stack."""
OPTIONS = {RINGS: "--ring", CELLS: "--expand"}
"""Options that ask for compartments."""
FARTHEST = 500.0
"""Largest distance of a compartment from its nucleus, in pixels: it bounds time and the margin read around a region."""


@dataclass(frozen=True)
class Distances:
    """Lengths in pixels or in micrometres: gap and width of rings, or how far cells reach."""

    values: tuple[float, ...]
    """The lengths."""
    micrometres: bool = False
    """Whether they are in micrometres."""

    @classmethod
    def parsed(cls, text: str, count: int) -> Distances | None:
        """So many lengths from a text such as `1,5` or `0.5,2um`; None for a text that is none such.

        The last one, how wide a ring is or how far a cell reaches, is above 0, and pixels are at most FARTHEST.
        """
        match = re.fullmatch(r"([0-9.,\s]+?)\s*(um|µm|μm)?", text.strip())
        numbers = [one.strip() for one in match[1].split(",")] if match else []
        if len(numbers) != count or not all(re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", one) for one in numbers):
            return None
        values = tuple(map(float, numbers))
        assert match is not None
        micrometres = match[2] is not None
        return cls(values, micrometres) if values[-1] > 0 and (micrometres or sum(values) <= FARTHEST) else None

    def __str__(self) -> str:
        """The text that is parsed to it, the same for all texts that are."""
        return ",".join(f"{value:g}" for value in self.values) + "um" * self.micrometres

    def pixels(self, pixel_size: float | None) -> tuple[float, ...]:
        """The lengths in pixels of so many micrometres; of what is in pixels already, these.

        Raises ValueError where it takes a pixel size that is not known.
        """
        if not self.micrometres:
            return self.values
        if pixel_size is None:
            raise ValueError("micrometres cannot be converted to pixels of unknown size")
        return tuple(value / pixel_size for value in self.values)
