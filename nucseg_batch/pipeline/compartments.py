"""Rings and cells around the nuclei of a plane: label images, and what is measured in them.

Of a plane that is done by regions they are made when its masks are written, from those of each region and as many
pixels around it as a compartment can reach. Ids are those of the whole plane by then, which decide ties, so that the
regions together are what the whole plane would be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.compartment_sums import CompartmentSums
from nucseg_batch.arrays.compartments import expanded, halo, rings
from nucseg_batch.arrays.seams import grown
from nucseg_batch.compartments import CELLS, RINGS
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.pipeline.channels import NetworkInput
from nucseg_batch.plan import Unit

PREFIXES = {RINGS: "ring", CELLS: "cell"}
"""How columns of a compartment begin, by its label image."""
Distances = Mapping[str, tuple[float, ...]]
"""Gap and width of rings, and reach of cells, in pixels, by label image."""


def compartments(nuclei: NDArray[np.integer], distances: Distances) -> dict[str, NDArray[Any]]:
    """The label images around nuclei (height, width), each of the same shape and type, by name."""
    return {
        name: rings(nuclei, *lengths) if name == RINGS else expanded(nuclei, *lengths)
        for name, lengths in distances.items()
    }


def compartment_sums(around: Mapping[str, NDArray[np.integer]], shown: NetworkInput) -> dict[str, CompartmentSums]:
    """Sums over compartments in the measured intensity and in all separate channels, by prefix of their columns."""
    channels = {"": shown.intensity, **shown.channels}
    return {PREFIXES[name]: CompartmentSums.of(labels, channels) for name, labels in around.items()}


def region_compartments(unit: Unit, distances: Distances, writer: MaskWriter) -> dict[str, NDArray[Any]]:
    """The part in a region of the label images around the nuclei of its plane, all of whose masks are written."""
    core, shape = unit.bounds[-2:], (unit.label_array.height, unit.label_array.width)
    window = grown((core[0], core[1]), shape, max(halo(sum(lengths)) for lengths in distances.values()))
    nuclei = writer.read(unit, bounds=(*unit.bounds[:-2], *window))
    around = compartments(nuclei.reshape(nuclei.shape[-2:]), distances)
    rows, columns = (slice(c.start - w.start, c.stop - w.start) for c, w in zip(core, window, strict=True))
    return {name: labels[rows, columns] for name, labels in around.items()}
