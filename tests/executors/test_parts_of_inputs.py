"""Runs over inputs of which a part is missing, or that are a part of something larger."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import zarr
from doubles import Threshold
from small_runs import SmallRun, picture, small_run

from nucseg_batch.executors import job, local
from nucseg_batch.settings import RunSettings


def rows(table: Path) -> list[dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def plate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Two fields with two channels each, but for one file of the channel that is measured."""
    run = small_run(tmp_path, monkeypatch, channel="w1")
    for number in (1, 2):
        run.put(f"p_B02_s{number}_w1.TIF", picture(number))
    run.put("p_B02_s1_w2.TIF", picture(0))
    return run


def test_cells_of_a_channel_that_an_image_lacks_are_empty(plate: SmallRun) -> None:
    """Its mask and the other columns are those of any image."""
    assert plate.segment().new_planes == 2
    assert "1 image lacks files of channels that others have (p_B02_s2_w1.TIF: w2)" in plate.notes.text
    first, *others = rows(plate.store.with_suffix(".nuclei.csv"))
    assert (first["intensity_mean-w1"], first["intensity_mean-w2"]) == ("150", "10")
    assert [row["intensity_mean-w1"] for row in others] == ["150", "150"]
    assert {row[name] for row in others for name in row if name.endswith("-w2")} == {""}
    assert rows(plate.store.with_suffix(".failures.csv")) == []


def test_a_channel_that_comes_later_leaves_what_was_done(plate: SmallRun) -> None:
    """A run is what was planned; that there is more by now is told, and nothing fails."""
    plate.segment()
    before = plate.results()
    plate.put("p_B02_s2_w2.TIF", picture(0))
    assert plate.segment().new_planes == 0
    assert "1 image has other files of channels than when the run was planned" in plate.notes.text
    assert plate.results() == before
    plate.put("p_B02_s2_w1.TIF", picture(3))
    summary = plate.segment()
    assert summary.new_planes == 1
    assert not summary.failures
    assert not plate.verify().damage


def test_a_field_of_a_plate_is_labelled_and_its_tables_lie_beside_the_plate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but labels is written into a store, also where IN is only a part of it."""
    run = small_run(tmp_path, monkeypatch)
    plate = tmp_path / "plate.zarr"
    zarr.open_group(plate, mode="w").create_group("A/2")
    field = plate / "A" / "2" / "0"
    axes = [{"name": name, "type": "space"} for name in "yx"]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0]}]}]
    group = zarr.open_group(field, mode="w")
    group.update_attributes({"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}})
    group.create_array("0", data=picture(3))
    before = set(plate.rglob("*"))
    run.segmenter = Threshold()
    for new in (1, 0):
        prepared = job.prepare(field, field, None, run.settings, run.notes, in_place=True, options=RunSettings())
        assert local.run(prepared, run.notes).new_planes == new
    added = {path.relative_to(field).parts[0] for path in plate.rglob("*") if path not in before}
    assert added == {"labels"}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("plate.A-2-0")) == [
        "plate.A-2-0.failures.csv",
        "plate.A-2-0.images.csv",
        "plate.A-2-0.nuclei.csv",
        "plate.A-2-0.provenance.json",
        "plate.A-2-0.run",
    ]
    assert int(np.asarray(zarr.open_array(field / "labels" / "nuclei" / "0", mode="r")[:]).max()) == 3
    assert job.planned(field).plan.image_count == 1
    own = zarr.open_group(field / "labels" / "nuclei", mode="r").attrs["nucseg-batch"]
    assert own["provenance"]["input"]["planes"] == 1
