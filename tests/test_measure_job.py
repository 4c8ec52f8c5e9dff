"""`--measure` through the command line: further columns of nuclei.csv."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from command import call
from pictures import disks, fluorescence
from skimage.measure import regionprops_table
from skimage.segmentation import find_boundaries
from small_runs import mosaic, small_run

import nucseg_batch
from nucseg_batch.arrays import optional_columns
from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.neighbour_columns import neighbour_columns, touching_fraction
from nucseg_batch.arrays.radial_columns import radial_columns
from nucseg_batch.arrays.texture_columns import texture_columns
from nucseg_batch.columns import (
    MEASURED,
    NUCLEUS_KEY,
    OPTIONAL,
    OPTIONAL_GROUPS,
    channel_columns,
    names,
    requested_columns,
)
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.pipeline.background import PlaneBackground, wants_background
from nucseg_batch.pipeline.channels import NetworkInput
from nucseg_batch.pipeline.measuring import measured_nuclei
from nucseg_batch.plan import ImageInfo, Plane
from nucseg_batch.results.export.parquet import _schema

PLACES = [(y, x) for y in range(20, 300, 43) for x in range(22, 400, 41)]


def rows(store: Path) -> list[dict[str, str]]:
    with open(store.with_suffix(".nuclei.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def stained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of two channels, of which the second stains nuclei, with nuclei across borders."""
    labels = disks((303, 409), PLACES, 13)
    nuclei = fluorescence(labels, seed=3).astype(np.uint16) * 20
    other = np.random.default_rng(4).integers(0, 3000, labels.shape).astype(np.uint16)
    folder = tmp_path_factory.mktemp("stained") / "in"
    folder.mkdir()
    about = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}, "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    tifffile.imwrite(folder / "a.ome.tif", np.stack([other, nuclei]), metadata=about, ome=True, tile=(128, 128))
    return folder


@pytest.fixture(scope="module")
def measured(stained: Path) -> Path:
    """The same, with all columns."""
    store = stained.parent / "out.zarr"
    call("segment", stained, store, "--diameter", 26, "--measure", "all", "--neighbour-radius", 60)
    return store


def column(store: Path, name: str) -> np.ndarray:
    return np.array([float(row[name] or "nan") for row in rows(store)])


def test_columns_are_those_of_scikit_image_in_each_channel(stained: Path, measured: Path) -> None:
    labels = nucseg_batch.open_masks(measured)["a.ome.tif"]
    assert labels.max() > 50
    planes = dict(zip(("GFP", "DAPI"), tifffile.imread(stained / "a.ome.tif"), strict=True)) | {
        "": tifffile.imread(stained / "a.ome.tif")[1]
    }
    marked = dict.fromkeys(one.name.split("-")[0] for one in OPTIONAL if one.skimage)
    assert len(marked) == 5
    for channel, plane in planes.items():
        expected = regionprops_table(
            labels,
            plane,
            properties=tuple(marked),
            extra_properties=(intensity_sum, intensity_p25, intensity_p75),
        )
        for one in OPTIONAL:
            if one.name in expected and (one.per_channel or not channel):
                name = f"{one.name}-{channel}" if channel else one.name
                np.testing.assert_allclose(column(measured, name), expected[one.name], rtol=1e-6, atol=1e-9)
        edge = labels * find_boundaries(labels, mode="inner")
        for statistic in ("mean", "std", "min", "max"):
            name = f"edge_intensity_{statistic}" + (f"-{channel}" if channel else "")
            of_edges = regionprops_table(edge, plane, properties=(f"intensity_{statistic}",))
            np.testing.assert_allclose(column(measured, name), of_edges[f"intensity_{statistic}"], rtol=1e-6)


def intensity_sum(region: np.ndarray, values: np.ndarray) -> float:
    return float(values[region].sum(dtype=np.float64))


def intensity_p25(region: np.ndarray, values: np.ndarray) -> float:
    return float(np.percentile(values[region].astype(np.float64), 25))


def intensity_p75(region: np.ndarray, values: np.ndarray) -> float:
    return float(np.percentile(values[region].astype(np.float64), 75))


def test_other_columns_are_those_of_the_functions_that_are_tested_alone(stained: Path, measured: Path) -> None:
    labels = nucseg_batch.open_masks(measured)["a.ome.tif"]
    gfp, dapi = tifffile.imread(stained / "a.ome.tif")
    groups = Groups.of(labels)
    places = regionprops_table(labels, properties=("centroid",))
    centroids = np.stack([places["centroid-0"], places["centroid-1"]], axis=1)
    expected = {
        **radial_columns(groups, labels, {"": dapi, "GFP": gfp}),
        **texture_columns(groups, {"": dapi, "GFP": gfp}),
        **neighbour_columns(centroids, 60),
        "touching_fraction": touching_fraction(groups, labels),
        "form_factor": 4 * np.pi * column(measured, "area") / column(measured, "perimeter") ** 2,
        "feret_diameter_max_um": column(measured, "feret_diameter_max") / 2,
        "neighbour_distance_um": column(measured, "neighbour_distance") / 2,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(column(measured, name), values, rtol=2e-6, atol=1e-9, err_msg=name)
    assert len(set(column(measured, "neighbour_count").tolist())) > 2


def test_default_columns_stay_as_they_are_and_others_follow_them(stained: Path, measured: Path) -> None:
    """And single columns can be asked for, from a file of options, too."""
    plain, some = stained.parent / "plain.zarr", stained.parent / "some.zarr"
    call("segment", stained, plain, "--diameter", 26)
    config = stained.parent / "run.toml"
    config.write_text('[segment]\nmeasure = "solidity, intensity_sum"\n')
    call("segment", stained, some, "--diameter", 26, "--config", config)
    default, every, few = rows(plain), rows(measured), rows(some)
    assert list(few[0]) == [*default[0], "solidity", "intensity_sum", "intensity_sum-GFP", "intensity_sum-DAPI"]
    for row, more, less in zip(default, every, few, strict=True):
        assert list(more.items())[: len(row)] == list(less.items())[: len(row)] == list(row.items())
        assert {name: more[name] for name in less} == less
    frame = nucseg_batch.read_nuclei(measured, columns=["neighbour_count", "solidity"], library="pandas")
    assert (str(frame["neighbour_count"].dtype), str(frame["solidity"].dtype)) == ("Int64", "float64")
    schema = _schema(measured.with_suffix(".nuclei.csv"))
    types = [str(schema.field(name).type) for name in ("neighbour_count", "intensity_sum-GFP")]
    assert types == ["int32", "double"]


def test_a_run_is_resumed_with_the_same_columns_only(stained: Path, measured: Path) -> None:
    same = ("segment", stained, measured, "--diameter", 26, "--neighbour-radius", 60)
    for words in ("all", "neighbours,texture,radial,background,edge,weighted,intensity,moments,shape"):
        assert call(*same, "--measure", words).stdout.startswith("everything was done")
    refused = call(*same, "--measure", "shape", code=78)
    assert "--measure: all in the run, shape now" in refused.stderr


def test_a_plane_done_by_regions_has_the_rows_of_the_whole(stained: Path, measured: Path) -> None:
    """Neighbours in other regions count, and weighted centroids are places in the plane."""
    parts = stained.parent / "parts.zarr"
    options = ("--measure", "all", "--neighbour-radius", 60, "--region", 256)
    call("segment", stained, parts, "--diameter", 26, *options)
    one, other = (nucseg_batch.open_masks(store)["a.ome.tif"] for store in (measured, parts))
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    assert pairs.shape[1] == one.max() + 1 == other.max() + 1
    number = {str(b): str(a) for a, b in pairs.T}
    table = {row["label"]: row for row in rows(measured)}
    for row in rows(parts):
        expected = table[number[row["label"]]]
        assert list(row) == list(expected)
        for name in row.keys() - {"label", "image"}:
            if name.startswith("moments_hu"):  # differences of products near 0
                assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-6, abs=1e-12)
            else:
                assert row[name] == expected[name], name


def test_regions_without_nuclei_and_planes_with_one_have_empty_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path, monkeypatch, measure="all")
    pixels = mosaic((100, 150)) * 0 + 10
    pixels[20:26, 110:115] = 150
    run.put("one.tif", pixels)
    run.segment()
    (row,) = rows(run.store)
    assert (row["neighbour_distance"], row["neighbour_count"], row["touching_fraction"]) == ("", "0", "0")
    assert (row["solidity"], row["centroid_weighted-1"], row["intensity_sum"]) == ("1", "112", "4500")


def above_background(labels: np.ndarray, measures: dict[str, np.ndarray], **channels: np.ndarray) -> dict[str, Any]:
    background = PlaneBackground(measures["label"].size)
    background.add(labels, {}, NetworkInput(labels, labels, channels))
    return background.columns(measures)


def test_nothing_is_computed_that_was_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default columns cost what they did; a group costs nothing but its own."""
    labels = disks((61, 73), [(20, 20), (40, 50)], 9)
    called: list[str] = []
    functions = (
        "shape_columns",
        "moments_hu",
        "intensity_columns",
        "weighted_centroids",
        "edges",
        "radial_columns",
        "texture_columns",
    )
    for name in (*functions, "touching_fraction", "neighbour_columns"):
        function = getattr(optional_columns, name)

        def counted(*given: Any, name: str = name, function: Any = function) -> Any:
            called.append(name)
            return function(*given)

        monkeypatch.setattr(optional_columns, name, counted)
    expected = {
        "": [],
        "shape": ["shape_columns"],
        "solidity": ["shape_columns"],
        "moments": ["moments_hu"],
        "intensity": ["intensity_columns"],
        "weighted": ["weighted_centroids"],
        "edge": ["edges", "intensity_columns"],
        "background": [],
        "radial": ["radial_columns"],
        "texture": ["texture_columns"],
        "neighbours": ["neighbour_columns", "touching_fraction"],
    }
    assert set(expected) >= set(OPTIONAL_GROUPS)
    for asked, functions_called in expected.items():
        called.clear()
        extra = requested_columns(asked)
        measures = measured_nuclei(labels, labels, {}, None, extra)
        measures |= optional_columns.neighbours(extra, measures, 10)
        if wants_background(extra):
            measures |= above_background(labels, measures)
        assert sorted(called) == functions_called, asked
        assert set(measures) == {*names((*MEASURED, *extra)), "confidence"}
    called.clear()
    measures = measured_nuclei(labels, labels, {}, None, requested_columns("touching_fraction"))
    assert optional_columns.neighbours(requested_columns("touching_fraction"), measures, 10) == {}
    assert called == ["touching_fraction"]


def test_columns_of_the_table_are_all_measured() -> None:
    """A record without a function, or a function whose column has another name, would be an empty column."""
    extra = requested_columns("all")
    assert extra == OPTIONAL
    labels = disks((61, 73), [(20, 20), (40, 50)], 9)
    measures = measured_nuclei(labels, labels, {"GFP": labels}, None, extra)
    measures |= optional_columns.neighbours(extra, measures, 10)
    measures |= above_background(labels, measures, GFP=labels)
    assert set(names(channel_columns(["GFP"], extra))) < set(measures)
    table = NucleiTable(("GFP",), micrometres=True, extra=extra)
    values = [one.name for one in table.columns if one not in NUCLEUS_KEY]
    image = ImageInfo("a", 1, 1, 61, 73, 1, "uint8")
    for row in table.text(Plane(image), measures, 0.5).splitlines():
        cells = dict(zip(values, row.split(",")[len(NUCLEUS_KEY) :], strict=True))
        assert [name for name, cell in cells.items() if not cell] == ["confidence"]
