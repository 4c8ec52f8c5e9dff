from __future__ import annotations

import numpy as np
import pytest
from crops import shown
from pictures import disks

from nucseg_batch.arrays.normalize import LIMIT
from nucseg_batch.training.empty import blank_field
from nucseg_batch.training.intensity import change_intensities
from nucseg_batch.training.targets import centres_and_areas
from nucseg_batch.training.warp import CropView

LABELS = disks((32, 32), [(8, 9), (20, 22)], 6)


def view(image: np.ndarray) -> CropView:
    centres, areas = centres_and_areas(LABELS)
    return CropView(image, LABELS, (LABELS > 0).astype(np.float32), centres, areas.astype(np.float64))


@pytest.mark.parametrize("channels", [1, 3])
def test_changed_images_stay_what_the_network_is_shown(channels: int) -> None:
    """Values from 0 to LIMIT in three channels, whatever was done to them: the predictor cuts in the same way."""
    image = np.random.default_rng(1).random((32, 32, channels), dtype=np.float32)
    coloured = 0
    for seed in range(60):
        changed = shown(change_intensities(view(image.copy()), np.random.default_rng(seed)))
        assert changed.shape == (32, 32, 3)
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert changed.min() >= 0
        assert changed.max() <= LIMIT
        coloured += bool((changed[..., 0] != changed[..., 1]).any())
    if channels == 1:
        assert 1 <= coloured <= 12, "grey stays grey, but for the few that are shown as stained tissue"
    else:
        assert 50 <= coloured < 60, "and colour stays colour, but for the few that are shown in grey"


def test_many_microscopes_come_out_of_one_image() -> None:
    """Some crops are darker, some inverted, some noisy: if all were alike nothing would be learnt from them."""
    ramp = np.repeat(np.linspace(0, 1, 32, dtype=np.float32)[None, :, None], 32, axis=0)
    slopes = [
        float(np.polyfit(np.arange(32), change_intensities(view(ramp), np.random.default_rng(s))[..., 0].mean(0), 1)[0])
        for s in range(80)
    ]
    assert 2 <= sum(slope < 0 for slope in slopes) <= 25
    assert np.std(np.abs(slopes)) > 0.1 * np.mean(np.abs(slopes))


def test_blank_fields_are_what_the_network_is_shown_of_empty_ones() -> None:
    """Noise is never stretched over the range; where there is something to see, as membranes, it is bright."""
    fields = [shown(blank_field(64, np.random.default_rng(seed))) for seed in range(40)]
    assert all(field.shape == (64, 64, 3) and field.min() >= 0 and field.max() <= LIMIT for field in fields)
    assert all(field.dtype == np.float32 and np.isfinite(field).all() for field in fields)
    assert 0.1 < np.mean([np.percentile(field, 99) > 0.8 for field in fields]) < 0.9
    stretched = [shown(blank_field(64, np.random.default_rng(seed), "percentiles")) for seed in range(40)]
    assert np.mean([np.percentile(field, 99) > 0.8 for field in stretched]) > 0.5
