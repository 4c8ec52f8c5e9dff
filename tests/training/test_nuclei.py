from __future__ import annotations

import numpy as np
import pytest
from pictures import disks

from nucseg_batch.training import nuclei
from nucseg_batch.training.nuclei import change_nuclei
from nucseg_batch.training.stain import _glands, immunostained
from nucseg_batch.training.targets import centres_and_areas
from nucseg_batch.training.warp import CropView

LABELS = disks((97, 113), [(30, 30), (30, 70), (70, 50)], 14)


def view(labels: np.ndarray = LABELS) -> CropView:
    image = (0.05 + 0.45 * (labels > 0)).astype(np.float32)[..., None]
    centres, areas = centres_and_areas(np.maximum(labels, 0))
    return CropView(image, labels, (labels > 0).astype(np.float32), centres, areas.astype(np.float64))


def only(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for one in ("UNEVEN", "SPOTTED", "HAZY"):
        monkeypatch.setattr(nuclei, one, float(one == name))


def test_nuclei_get_a_brightness_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixed cells stain differently; the background stays what it was."""
    only(monkeypatch, "UNEVEN")
    changed = change_nuclei(view(), np.random.default_rng(1))
    means = [changed[label == LABELS].mean() for label in (1, 2, 3)]
    assert np.std(means) > 0.03
    assert np.median(changed[LABELS == 0]) == np.float32(0.05)


def test_bright_spots_lie_inside_nuclei_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chromatin spots of mouse cells are no nuclei, and nothing else of the picture changes."""
    only(monkeypatch, "SPOTTED")
    changed = change_nuclei(view(), np.random.default_rng(1)) - view().image
    assert changed[LABELS > 0].max() > 0.2
    assert changed[LABELS == 0].sum() < 0.1 * changed.sum()


def test_a_view_without_nuclei_has_no_spots(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to put them in."""
    only(monkeypatch, "SPOTTED")
    empty = view(np.zeros_like(LABELS))
    np.testing.assert_array_equal(change_nuclei(empty, np.random.default_rng(1)), empty.image)


def test_haze_brightens_what_lies_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """As light from other depths does."""
    only(monkeypatch, "HAZY")
    changed = change_nuclei(view(), np.random.default_rng(1))
    between, far = changed[30, 50], changed[95, 110]
    assert between > far + 0.02


def test_immunohistochemistry_leaves_nuclei_blue_and_makes_brown_around_some() -> None:
    """Brown absorbs blue most; nuclei, of haematoxylin, absorb it least."""
    tissue = np.where(LABELS[..., None] > 0, [0.35, 0.3, 0.6], [0.9, 0.6, 0.8]).astype(np.float32)
    shown = [immunostained(tissue, LABELS, np.random.default_rng(seed)) for seed in range(20)]
    assert all(one.shape == tissue.shape and one.min() >= 0 and one.max() <= 1 for one in shown)
    inside = np.mean([one[LABELS > 0].mean(axis=0) for one in shown], axis=0)
    around = np.mean([one[LABELS == 0].mean(axis=0) for one in shown], axis=0)
    assert inside[2] > inside[0], "nuclei are blue"
    assert around[0] > around[2], "what is around them is brown"


def test_groups_of_cells_are_brown_but_for_their_nuclei() -> None:
    """As glands are: from afar each looks like one nucleus. What is not of the group keeps its colours."""
    for seed in range(8):
        brown, pale = _glands(LABELS, np.random.default_rng(seed))
        inside, outside = brown > 0.02, brown < 1e-3
        assert inside.mean() > 0.05
        assert outside.mean() > 0.05
        assert brown[(LABELS > 0) & inside].mean() < brown[(LABELS == 0) & inside].mean()
        assert 0.39 < pale.min() <= pale.max() <= 1
    brown, _ = _glands(LABELS * 0, np.random.default_rng(1))
    assert brown.max() > 0.1
