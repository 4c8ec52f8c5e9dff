"""Plates of a few wells, as files and as an OME-Zarr store, and their table of wells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from small_runs import picture
from zarr_examples import multiscales, write_array, write_group

WELL_NAMES = [f"{row}{column:02d}" for row in "AB" for column in (1, 2, 3)]


def field(nuclei: int, seed: int) -> Any:
    """A picture whose nuclei have several brightnesses and sizes."""
    random = np.random.default_rng(seed)
    pixels = picture(nuclei).astype(np.uint16)
    for number in range(nuclei):
        y, x = 3 + 9 * (number // 5), 3 + 9 * (number % 5)
        pixels[y : y + 4, x : x + 5] = random.integers(150, 900, (4, 5))
        pixels[y : y + 1, x : x + random.integers(0, 5)] = 10
    return pixels


def stored_plate(place: Path, rows: list[str], columns: list[str], times: int = 0) -> Path:
    """An OME-Zarr plate with a field in each well, of so many time points."""
    plate = place / "plate.zarr"
    indexed = [
        {"path": f"{row}/{column}", "rowIndex": rows.index(row), "columnIndex": columns.index(column)}
        for row in rows
        for column in columns
    ]
    named = {"rows": [{"name": row} for row in rows], "columns": [{"name": column} for column in columns]}
    write_group(plate, {"plate": {"version": "0.5", **named, "wells": indexed}})
    for number, (row, column) in enumerate((row, column) for row in rows for column in columns):
        well = plate / row / column
        write_group(plate / row)
        write_group(well, {"well": {"version": "0.5", "images": [{"path": "0"}]}})
        write_group(well / "0", multiscales("tyx" if times else "yx", size=0.5))
        fields = [field(2 + (number + 3 * t) % 9, 10 * number + t) for t in range(max(times, 1))]
        write_array(well / "0" / "0", np.stack(fields) if times else fields[0])
    return plate


def numbers(frame: pd.DataFrame, column: str) -> Any:
    return pd.to_numeric(frame[column], errors="coerce").to_numpy(float)
