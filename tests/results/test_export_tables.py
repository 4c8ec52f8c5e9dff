"""Nuclei as AnnData, SpatialData and CSV of CellProfiler: every number of nuclei.csv arrives under the right name."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas
import pytest
import tifffile
from exporting import exported
from small_runs import SmallRun, mosaic, picture, small_run
from zarr_examples import write_plate

from nucseg_batch.columns import MICROMETRES, NUCLEI, names
from nucseg_batch.errors import DamageError
from nucseg_batch.results.export.annotated import measured_columns
from nucseg_batch.results.export.cellprofiler import cellprofiler_names


@pytest.fixture
def plate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Four wells: one is a large plane, one has two time points of 0.25 um pixels; and a file that is no image."""
    run = small_run(tmp_path, monkeypatch)
    run.put("p1_A01.tif", picture(3))
    run.put("p1_A02.tif", mosaic((150, 170)))
    run.put("p1_B01.tif", picture(0))
    pixels = np.array([picture(2), picture(4)])
    axes = {"axes": "TYX", "unit": "um"}
    tifffile.imwrite(run.folder / "p1_B02.tif", pixels, imagej=True, resolution=(4, 4), metadata=axes)
    (run.folder / "p1_B03.tif").write_bytes(b"II*\0 this is no image")
    run.segment()
    return run


def nuclei_of(run: SmallRun) -> pandas.DataFrame:
    return pandas.read_csv(run.store.with_suffix(".nuclei.csv"))


def test_anndata_has_each_nucleus_with_its_measurements_their_units_and_its_place(
    plate: SmallRun, tmp_path: Path
) -> None:
    """What scanpy and squidpy are given are the numbers of nuclei.csv, row by row."""
    exported(plate, tmp_path / "out", "anndata")
    nuclei, table = anndata.read_h5ad(tmp_path / "out" / "nuclei.h5ad"), nuclei_of(plate)
    assert nuclei.n_obs == len(table) > 100
    keys = {"image", "t", "z", "label", "confidence"}
    assert {*nuclei.var_names} == {
        name for name in table.columns if name not in keys and not name.startswith(("bbox-", "centroid-"))
    }
    np.testing.assert_array_equal(nuclei.X, table[nuclei.var_names])
    for name in ("label", "confidence"):
        assert (nuclei.obs[name].to_numpy() == table[name].to_numpy()).all()
    assert list(nuclei.obs["image"]) == list(table["image"])
    assert nuclei.obs["t"].astype("float").equals(table["t"].set_axis(nuclei.obs_names))
    assert "z" not in nuclei.obs
    assert (nuclei.obsm["spatial"] == table[["centroid-1", "centroid-0"]]).all(axis=None)
    assert nuclei.uns["spatial_unit"] == "pixel"
    assert (nuclei.obs["pixel_size"].notna() == nuclei.obs["t"].notna()).all()
    assert nuclei.uns["nucseg-batch"]["software"].startswith("nucseg-batch ")
    assert (nuclei.var.loc["area", "unit"], nuclei.var.loc["area", "definition"]) == ("px²", "number of pixels")
    wells = nuclei.obs.groupby("image", observed=True)["well"].first()
    assert dict(wells) == {"p1_A01.tif": "A01", "p1_A02.tif": "A02", "p1_B02.tif": "B02"}
    assert set(nuclei.obs["plate"]) == {"p1"}


def test_measurements_are_copied_in_pieces_that_do_not_grow_with_the_run(
    plate: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern and pieces of few rows give the rows that the table has of these images."""
    monkeypatch.setattr("nucseg_batch.results.export.h5ad.ROWS", 10)
    exported(plate, tmp_path / "out", "anndata", pattern="*_A0*")
    nuclei, table = anndata.read_h5ad(tmp_path / "out" / "nuclei.h5ad"), nuclei_of(plate)
    expected = table[table["image"].str.contains("_A0")]
    assert nuclei.n_obs == len(expected)
    np.testing.assert_array_equal(nuclei.X, expected[nuclei.var_names])


def test_too_many_nuclei_for_anndata_are_refused_with_what_to_do(
    plate: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their table would not fit into the memory of whoever opens it; other formats are written all the same."""
    monkeypatch.setattr("nucseg_batch.results.export.h5ad.MOST_NUCLEI", 10)
    formats = exported(plate, tmp_path / "out", "anndata", "cellprofiler").formats
    assert (formats["anndata"].written, formats["anndata"].refused) == (0, 1)
    assert "--pattern" in formats["anndata"].reasons[0]
    assert formats["cellprofiler"].written == 3
    assert not (tmp_path / "out" / "nuclei.h5ad").exists()


def test_a_run_without_nuclei_is_a_table_without_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts that go through plates meet empty ones."""
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(0))
    run.segment()
    exported(run, tmp_path / "out", "anndata", "cellprofiler")
    assert anndata.read_h5ad(tmp_path / "out" / "nuclei.h5ad").shape == (0, 12)
    assert len(pandas.read_csv(tmp_path / "out" / "cellprofiler" / "Nuclei.csv")) == 0
    assert list(pandas.read_csv(tmp_path / "out" / "cellprofiler" / "Image.csv")["Count_Nuclei"]) == [0]


def test_tables_that_do_not_fit_each_other_are_told(plate: SmallRun, tmp_path: Path) -> None:
    """Rows would else be those of other nuclei."""
    table = plate.store.with_suffix(".nuclei.csv")
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*lines[:3], *lines[4:]]))
    with pytest.raises(DamageError, match=r"p1_A01\.tif: nuclei\.csv has other nuclei than the 3 of images\.csv"):
        exported(plate, tmp_path / "out", "anndata")
    assert not (tmp_path / "out" / "nuclei.h5ad").exists()


def test_columns_of_channels_keep_their_definition() -> None:
    """A plate with four channels has most of its columns from them."""
    columns = {
        column.name: column for column in measured_columns(("label", "bbox-0", "area", "intensity_mean-a-b", "x"))
    }
    assert list(columns) == ["area", "intensity_mean-a-b", "x"]
    assert columns["intensity_mean-a-b"].definition == "`intensity_mean` of the separate channel `a-b`"
    assert columns["x"].definition == ""


def test_cellprofiler_names_what_it_measures_likewise_and_in_its_units(plate: SmallRun, tmp_path: Path) -> None:
    """By pycytominer's eyes these are tables of CellProfiler; each number is that of nuclei.csv."""
    exported(plate, tmp_path / "out", "cellprofiler")
    folder = tmp_path / "out" / "cellprofiler"
    images, objects = pandas.read_csv(folder / "Image.csv"), pandas.read_csv(folder / "Nuclei.csv")
    table = nuclei_of(plate)
    assert list(images["FileName_Nuclei"]) == ["p1_A01.tif", "p1_A02.tif", "p1_B01.tif", "p1_B02.tif", "p1_B02.tif"]
    assert list(images["ImageNumber"]) == [1, 2, 3, 4, 5]
    assert list(images["Metadata_Well"]) == ["A01", "A02", "B01", "B02", "B02"]
    assert set(images["Metadata_Plate"]) == {"p1"}
    assert list(images["Metadata_T"])[3:] == [0, 1]
    assert list(objects["ObjectNumber"]) == list(table["label"])
    counts = objects["ImageNumber"].value_counts()
    assert [counts.get(number, 0) for number in images["ImageNumber"]] == list(images["Count_Nuclei"])
    for theirs, ours in cellprofiler_names(table.columns).items():
        if theirs != "AreaShape_Orientation":
            assert objects[theirs].equals(table[ours].astype(objects[theirs].dtype)), theirs
    np.testing.assert_allclose(objects["AreaShape_Orientation"], np.degrees(table["orientation"]), rtol=1e-6)
    np.testing.assert_allclose(
        objects["Intensity_IntegratedIntensity_Nuclei"], table["intensity_mean"] * table["area"], rtol=1e-6
    )
    np.testing.assert_allclose(objects["AreaShape_BoundingBoxArea"] * table["extent"], table["area"], rtol=1e-6)
    experiment = pandas.read_csv(folder / "Experiment.csv", index_col="Key")["Value"]
    assert experiment["software"].startswith("nucseg-batch ")


def test_every_column_has_a_name_of_cellprofiler_or_says_that_it_is_ours() -> None:
    """Channels whose names differ in signs only must not share a column."""
    header = (*names((*NUCLEI, *MICROMETRES)), "intensity_mean-GFP 1", "intensity_mean-GFP_1", "intensity_mean-Nuclei")
    found = cellprofiler_names(header)
    assert set(found.values()) == set(header) - {"image", "t", "z", "label"}
    assert found["AreaShape_BoundingBoxMinimum_X"] == "bbox-1"
    assert found["Intensity_MeanIntensity_GFP_1"] == "intensity_mean-GFP 1"
    assert found["Nucseg_intensity_mean-GFP_1"] == "intensity_mean-GFP_1"
    assert found["Intensity_MeanIntensity_Nuclei"] == "intensity_mean"
    assert found["Nucseg_intensity_mean-Nuclei"] == "intensity_mean-Nuclei"
    assert found["Nucseg_confidence"] == "confidence"


def test_wells_of_a_stored_plate_have_two_digits_in_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plate maps that pycytominer joins say A01."""
    run = small_run(tmp_path, monkeypatch)
    write_plate(run.folder, ["A/1", "A/2", "B/2"], 1, picture(5).astype(np.uint16), "yx")
    run.segment()
    exported(run, tmp_path / "out", "cellprofiler", "anndata")
    images = pandas.read_csv(tmp_path / "out" / "cellprofiler" / "Image.csv")
    assert list(images["Metadata_Well"]) == ["A01", "A02", "B02"]
    assert set(images["Metadata_Plate"]) == {"test"}
    assert set(anndata.read_h5ad(tmp_path / "out" / "nuclei.h5ad").obs["well"]) == {"A01", "A02", "B02"}


@pytest.mark.filterwarnings("ignore")  # of libraries below spatialdata
def test_spatialdata_has_labels_in_micrometres_and_a_table_that_annotates_them(plate: SmallRun, tmp_path: Path) -> None:
    """Element, instance and pixel of each nucleus lead to its row, plane by plane."""
    spatialdata = pytest.importorskip("spatialdata", reason="spatialdata is too large for the extra `test`")
    from spatialdata.transformations import Identity, Scale, get_transformation

    result = exported(plate, tmp_path / "out", "spatialdata").formats["spatialdata"]
    assert (result.written, result.refused) == (4, 0)
    table = nuclei_of(plate)
    for stem, elements in (("A01", ["nuclei"]), ("A02", ["nuclei"]), ("B02", ["nuclei_t000", "nuclei_t001"])):
        data = spatialdata.read_zarr(tmp_path / "out" / "spatialdata" / f"p1_{stem}.zarr")
        assert sorted(data.labels) == elements
        nuclei = data.tables["table"]
        rows = table[table["image"] == f"p1_{stem}.tif"]
        np.testing.assert_array_equal(nuclei.X, rows[nuclei.var_names])
        assert data.attrs["nucseg-batch-export"]["store"] == "out.zarr"
        for element in elements:
            _, annotated = spatialdata.join_spatialelement_table(
                sdata=data, spatial_element_names=element, table_name="table", how="left"
            )
            pixels = np.bincount(np.asarray(data[element]).ravel())[1:]
            assert list(pixels) == list(annotated.to_df()["area"])
            if stem != "B02":
                centres = spatialdata.get_centroids(data[element]).compute()
                np.testing.assert_allclose(centres[["x", "y"]], annotated.obsm["spatial"] + 0.5, rtol=1e-6)
            scale = get_transformation(data.labels[element])
            assert scale == (Scale([0.25, 0.25], axes=("y", "x")) if stem == "B02" else Identity())
    empty = spatialdata.read_zarr(tmp_path / "out" / "spatialdata" / "p1_B01.zarr")
    assert (list(empty.labels), list(empty.tables)) == (["nuclei"], [])


@pytest.mark.filterwarnings("ignore")
def test_a_store_of_spatialdata_that_was_stopped_is_written_again_and_others_are_kept(
    plate: SmallRun, tmp_path: Path
) -> None:
    """A store appears whole or not at all."""
    pytest.importorskip("spatialdata", reason="spatialdata is too large for the extra `test`")
    exported(plate, tmp_path / "out", "spatialdata")
    folder = tmp_path / "out" / "spatialdata"
    (folder / "p1_A01.zarr").rename(folder / ".p1_A01.zarr.making")
    again = exported(plate, tmp_path / "out", "spatialdata").formats["spatialdata"]
    assert (again.written, again.kept) == (1, 3)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"p1_{well}.zarr" for well in ("A01", "A02", "B01", "B02")
    ]


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_mask_is_told_and_leaves_no_store(plate: SmallRun, tmp_path: Path) -> None:
    """Parts of a large plane are read while the store is written."""
    pytest.importorskip("spatialdata", reason="spatialdata is too large for the extra `test`")
    for shard in plate.masks():
        if "150x170" in shard.parts:
            content = bytearray(shard.read_bytes())
            content[len(content) // 4] ^= 255
            shard.write_bytes(content)
    with pytest.raises(DamageError, match=r"p1_A02\.tif: its mask cannot be read"):
        exported(plate, tmp_path / "out", "spatialdata")
    assert [path.name for path in (tmp_path / "out" / "spatialdata").iterdir()] == ["p1_A01.zarr"]


def test_squidpy_finds_the_neighbours_of_nuclei_in_their_own_image(plate: SmallRun, tmp_path: Path) -> None:
    """What AnnData with `spatial` is for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        squidpy = pytest.importorskip("squidpy", reason="squidpy is too large for the extra `test`")
        exported(plate, tmp_path / "out", "anndata")
        nuclei = anndata.read_h5ad(tmp_path / "out" / "nuclei.h5ad")
        squidpy.gr.spatial_neighbors_knn(nuclei, library_key="image", n_neighs=2)
    pairs = nuclei.obsp["spatial_connectivities"].tocoo()
    assert pairs.nnz > nuclei.n_obs
    images = nuclei.obs["image"].to_numpy()
    assert (images[pairs.row] == images[pairs.col]).all()
