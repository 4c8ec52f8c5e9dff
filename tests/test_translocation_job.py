"""The ratio of nucleus and cytoplasm on a plate, from files to wells, against a script of its own."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from command import call
from report_pages import Page
from scipy import ndimage

import nucseg_batch
from nucseg_batch.results.report.words import figure

EXAMPLE = Path(__file__).parents[1] / "examples" / "translocation_plate.py"
GAP, WIDTH = 1, 5


def ratios(mask: np.ndarray, protein: np.ndarray) -> np.ndarray:
    """Mean of each nucleus over the mean of its ring, by a distance transform; infinite or NaN without a ring."""
    distance, nearest = ndimage.distance_transform_edt(mask == 0, return_indices=True)
    ring = np.where((distance > GAP) & (distance <= GAP + WIDTH), mask[tuple(nearest)], 0)
    numbers = np.arange(1, mask.max() + 1)
    return ndimage.mean(protein, mask, numbers) / ndimage.mean(protein, ring, numbers)


def test_wells_have_the_ratios_of_a_script_of_its_own(tmp_path: Path) -> None:
    """Two fields per well are pooled; three wells have the protein in the nucleus and three in the cytoplasm."""
    plate, store = tmp_path / "plate", tmp_path / "out.zarr"
    runpy.run_path(str(EXAMPLE))["main"](plate)
    call("segment", plate, store, "--channel", "DAPI", "--ring", f"{GAP},{WIDTH}")
    call("wells", store, "--controls", "B01:B03")
    call("report", store, "--well-column", "intensity_ratio-GFP_median")
    found = pd.read_csv(tmp_path / "out.wells.csv").set_index("well")
    masks = nucseg_batch.open_masks(store)
    assert sorted(found.index) == ["A01", "A02", "A03", "B01", "B02", "B03"]
    for well in found.index:
        fields = [plate / f"{well}_s{site}_DAPI.tif" for site in (1, 2)]
        pixels = [tifffile.imread(str(path).replace("DAPI", "GFP")).astype(float) for path in fields]
        own = np.concatenate([ratios(masks[path.name], gfp) for path, gfp in zip(fields, pixels, strict=True)])
        row = found.loc[well]
        assert row.nuclei == own.size > 80
        np.testing.assert_allclose(row["intensity_ratio-GFP_mean"], own.mean(), rtol=1e-4)
        np.testing.assert_allclose(row["intensity_ratio-GFP_median"], np.median(own), rtol=1e-4)
    ratio = found["intensity_ratio-GFP_median"]
    assert ratio[:3].min() > 1.5
    assert ratio[3:].max() < 0.7
    assert found["intensity_ratio-GFP_z"][:3].min() > 10
    page = Page((tmp_path / "out.report.html").read_text(encoding="utf-8"))
    assert f"A1: {figure(ratio['A01'])}; {found.nuclei['A01']} nuclei in 2 images" in page.text
