"""The recipe of uneven illumination: equal nuclei are measured as equal, with the default model."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import call

EXAMPLE = Path(__file__).parents[1] / "examples" / "uneven_plate.py"


def by_place(table: pd.DataFrame) -> float:
    """CV of the median intensity of nuclei between 4 x 4 parts of the field of view."""
    side = 384 / 4
    place = [(table[f"centroid-{axis}"] // side).astype(int) for axis in (0, 1)]
    medians = table.groupby(place)["corrected_intensity_mean"].median()
    assert medians.size == 16
    return float(medians.std(ddof=0) / medians.mean())


@pytest.mark.long
def test_the_intensity_of_nuclei_no_longer_depends_on_their_place(tmp_path: Path) -> None:
    plate = tmp_path / "plate"
    runpy.run_path(str(EXAMPLE))["main"](plate)
    tables = {}
    for name, options in {
        "none": (),
        "estimate": ("--flatfield", "estimate"),
        "file": ("--flatfield", tmp_path / "plate-flat.npy"),
    }.items():
        store = tmp_path / f"{name}.zarr"
        call("segment", plate, store, "--diameter", 26, "--measure", "background", *options)
        tables[name] = pd.read_csv(store.with_suffix(".nuclei.csv"))
        assert len(tables[name]) > 700
    assert by_place(tables["none"]) > 0.1
    assert by_place(tables["estimate"]) < 0.02
    assert by_place(tables["file"]) < 0.02
    every = {name: table["corrected_intensity_mean"] for name, table in tables.items()}
    variation = {name: float(values.std() / values.mean()) for name, values in every.items()}
    assert variation["estimate"] < 0.7 * variation["none"]
    assert np.isclose(variation["estimate"], variation["file"], rtol=0.05)
