from __future__ import annotations

import pytest

from nucseg_batch.arrays.geometry import SLACK, fitted_scale
from nucseg_batch.arrays.scale import scaled_shape
from nucseg_batch.plan import bucket_shape


@pytest.mark.parametrize(
    ("shape", "scale", "scaled"),
    [
        ((256, 256), 2**0.5, (352, 352)),  # 362 would be padded to 384
        ((256, 256), 2.0, (512, 512)),
        ((520, 696), 2**-0.5, (352, 471)),  # 368 x 492 to 384 x 512
        ((101, 103), 2**0.5, (143, 146)),  # 128 is too far away
        ((256, 256), 1.0, (256, 256)),
        ((250, 250), 1.0, (250, 250)),  # its own pixels
        ((1200, 1200), 2**0.5, (1697, 1697)),  # in tiles, which are not padded
    ],
)
def test_a_little_less_is_enlarged_where_less_is_padded_then(
    shape: tuple[int, int], scale: float, scaled: tuple[int, int]
) -> None:
    """What is padded costs as much as what is seen."""
    assert scaled_shape(*shape, fitted_scale(*shape, scale)) == scaled


def test_fitting_never_costs_more_and_never_changes_much() -> None:
    """For any shape and scale."""
    for height, width in [(97, 131), (256, 320), (360, 360), (512, 640), (1040, 1388), (7, 900)]:
        for steps in range(-4, 5):
            scale = 2.0 ** (steps / 2)
            fitted = fitted_scale(height, width, scale)
            assert (1 - SLACK) * scale <= fitted <= scale
            before, after = (bucket_shape(*scaled_shape(height, width, one)) for one in (scale, fitted))
            assert all(a <= b for a, b in zip(after, before, strict=True))
