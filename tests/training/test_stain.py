from __future__ import annotations

import numpy as np
from pictures import disks

from nucseg_batch.training.stain import change_colours, empty_tissue, stained

NUCLEI = disks((64, 64), [(20, 20), (44, 40)], 9)


def test_grey_nuclei_become_dark_ones_on_coloured_ground() -> None:
    """Shapes known from fluorescence then teach histology, of which far fewer images are annotated."""
    image = (NUCLEI > 0).astype(np.float32)[..., None]
    colours = []
    for seed in range(30):
        tissue = stained(image, np.random.default_rng(seed))
        assert tissue.shape == (64, 64, 3)
        assert tissue.dtype == np.float32
        assert tissue[NUCLEI > 0].mean() < tissue[NUCLEI == 0].mean() - 0.1, "nuclei absorb"
        colours.append(tissue[NUCLEI == 0].mean(axis=0))
    spread = np.ptp(np.array(colours) - np.mean(colours, axis=1, keepdims=True), axis=0)
    assert (spread > 0.1).all(), "no two laboratories stain alike"


def test_empty_tissue_shows_structure_and_no_two_are_alike() -> None:
    """Grain, folds and red cells are no nuclei, and must be known."""
    one, other = (empty_tissue(48, np.random.default_rng(seed)) for seed in (1, 2))
    assert one.shape == (48, 48, 3)
    assert one.std(axis=(0, 1)).max() > 0.02
    assert not np.allclose(one, other)


def test_changed_dyes_keep_the_picture() -> None:
    """Colours differ, but where nuclei are remains to be seen in most crops, or nothing could be learnt."""
    image = np.where((NUCLEI > 0)[..., None], (0.35, 0.15, 0.55), (0.85, 0.75, 0.88)).astype(np.float32)
    changed = [change_colours(image, np.random.default_rng(seed)) for seed in range(60)]
    assert all(np.isfinite(c).all() and (c >= 0).all() for c in changed)
    assert np.mean([c[NUCLEI > 0].mean() < c[NUCLEI == 0].mean() for c in changed]) > 0.9
    hues = np.array([c[NUCLEI > 0].mean(axis=0) / c[NUCLEI > 0].mean() for c in changed])
    assert hues.std(axis=0).min() > 0.1
