from __future__ import annotations

import numpy as np
import pytest
from crops import learnt_from
from pictures import disks
from scipy import ndimage

from nucseg_batch.arrays.outputs import OFFSET_UNIT
from nucseg_batch.training import paste
from nucseg_batch.training.paste import _grown, pasted
from nucseg_batch.training.targets import centres_and_areas
from nucseg_batch.training.warp import CropView

HERE = disks((61, 73), [(30, 20), (30, 60)], 9)


def view(labels: np.ndarray, *, dark: bool = False) -> CropView:
    image = np.where(labels > 0, 0.2 if dark else 0.8, 0.9 if dark else 0.1).astype(np.float32)[..., None]
    centres, areas = centres_and_areas(np.maximum(labels, 0))
    return CropView(image, labels, (labels > 0).astype(np.float32), centres, areas)


@pytest.mark.parametrize("dark", [False, True])
def test_a_pasted_nucleus_is_seen_and_labelled_and_points_at_its_own_centre(dark: bool) -> None:
    """It touches one that was there: the case that annotated images show too seldom."""
    there = disks((61, 73), [(30, 38)], 9)
    joined = pasted(view(HERE, dark=dark), view(there, dark=dark), np.random.default_rng(1))
    assert set(np.unique(joined.labels)) == {0, 1, 2, 3}
    middle = joined.image[30, 38, 0]
    assert middle == pytest.approx(0.2 if dark else 0.8, abs=0.05), "it shows as it did where it came from"
    np.testing.assert_array_equal(joined.labels[HERE > 0], HERE[HERE > 0])
    _, target = learnt_from((np.zeros((1, 1, 3), np.int16), joined.target))
    y, x = np.nonzero(joined.labels == 3)
    np.testing.assert_allclose(x + target[y, x, 3] * OFFSET_UNIT, 38, atol=1e-4)
    assert (joined.image >= 0).all()


def test_nuclei_that_would_mostly_hide_others_are_left_out() -> None:
    """Nothing is annotated twice, and no annotated nucleus vanishes."""
    joined = pasted(view(HERE), view(disks((61, 73), [(30, 22)], 9)), np.random.default_rng(1))
    np.testing.assert_array_equal(joined.labels, HERE)


def test_nuclei_that_their_image_cuts_are_left_out() -> None:
    """They would show a straight edge that no nucleus has."""
    joined = pasted(view(HERE), view(disks((61, 73), [(3, 40)], 9)), np.random.default_rng(1))
    np.testing.assert_array_equal(joined.labels, HERE)


def test_what_is_not_annotated_stays_so() -> None:
    """Beyond the image there is no truth to add to."""
    labels = HERE.copy()
    labels[:, 40:55] = -1
    joined = pasted(view(labels), view(disks((61, 73), [(30, 38)], 9)), np.random.default_rng(1))
    assert (joined.labels[:, 40:55] == -1).all()


def test_few_nuclei_are_pasted_into_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """What matters is where nuclei touch; a share of the others keeps pasting from being a sign of touching."""
    alone = view(disks((61, 73), [(12, 40), (48, 40)], 6))
    monkeypatch.setattr(paste, "LONERS", 0.0)
    assert pasted(view(HERE), alone, np.random.default_rng(1)).labels.max() == 2
    monkeypatch.setattr(paste, "LONERS", 1.0)
    assert pasted(view(HERE), alone, np.random.default_rng(1)).labels.max() == 4


def test_a_mask_grows_by_its_neighbours_along_the_axes() -> None:
    """Also at the edges of the crop."""
    mask = np.random.default_rng(1).random((13, 17)) > 0.8
    np.testing.assert_array_equal(_grown(mask), ndimage.binary_dilation(mask))
