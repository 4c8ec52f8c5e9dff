"""The image on which exports are tested: simulated nuclei as wide as the model knows them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.normalize import apply_range
from nucseg_batch.arrays.ranges import intensity_range
from nucseg_batch.files.sample import MIN_DIAMETER, simulate_field
from nucseg_batch.model_record import ModelRecord

SIDES = (224, 256)
"""Height and width of the sample, multiples of every network's stride."""
DENSITY = 0.25
"""Share of the sample that nuclei cover, about."""
LOW, HIGH = 300, 6000
"""Values of no light and of the brightest place."""


def sample_image(record: ModelRecord, sides: tuple[int, int]) -> NDArray[np.float32]:
    """Simulated nuclei (height, width), whole numbers as a camera gives them; the same in each call."""
    diameter = max(record.diameter, MIN_DIAMETER)
    count = max(1, int(DENSITY * sides[0] * sides[1] / (np.pi / 4 * diameter**2)))
    image, _ = simulate_field(sides, diameter=diameter, count=count, rng=np.random.default_rng(1))
    return np.round(LOW + image * (HIGH - LOW)).astype(np.float32)


def network_sample(record: ModelRecord) -> NDArray[np.float32]:
    """The sample as the network takes it, (2, 3, height, width): a grey image, and its mirror image with less light."""
    image = sample_image(record, SIDES)
    shown = apply_range(image, *intensity_range(image, record.intensities))
    return np.ascontiguousarray(np.stack([np.broadcast_to(one, (3, *SIDES)) for one in (shown, shown[::-1] * 0.7)]))
