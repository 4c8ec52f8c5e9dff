"""Time points, depths, pixel sizes, large numbers and plates: what single planes do not show."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import roifile
import tifffile
from exporting import exported
from PIL import Image
from pycocotools.coco import COCO
from small_runs import SmallRun, picture, small_run
from zarr_examples import write_plate

from nucseg_batch.results.run import FinishedRun


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Two time points, three depths: t + z + 1 nuclei in each plane; 0.25 micrometres a pixel."""
    run = small_run(tmp_path, monkeypatch)
    planes = np.array([[picture(t + z + 1) for z in range(3)] for t in range(2)])
    tifffile.imwrite(
        run.folder / "stack.tif", planes, imagej=True, resolution=(4, 4), metadata={"axes": "TZYX", "unit": "um"}
    )
    run.segment()
    return run


def test_a_stack_is_one_tiff_that_imagej_opens_as_a_hyperstack(stack: SmallRun, tmp_path: Path) -> None:
    """Label and image then lie over each other in Fiji, plane by plane, with the same pixel size."""
    exported(stack, tmp_path / "out", "tiff")
    with tifffile.TiffFile(tmp_path / "out" / "tiff" / "stack.tif") as tiff, FinishedRun(stack.store) as run:
        assert (tiff.series[0].axes, tiff.series[0].shape) == ("TZYX", (2, 3, 40, 50))
        assert tiff.is_imagej
        assert tiff.imagej_metadata["unit"] == "micron"
        assert tiff.imagej_metadata["software"] == tiff.pages[0].tags["Software"].value
        assert tiff.pages[0].tags["XResolution"].value == (4, 1)
        labels = tiff.asarray()
        assert labels.dtype == np.uint16
        for row in run.planes():
            assert (labels[row.time, row.depth] == run.mask(row)).all()


def test_a_failed_plane_keeps_its_place_in_the_stack(stack: SmallRun, tmp_path: Path) -> None:
    """Otherwise all later planes would lie over the wrong pixels."""
    table = stack.store.with_suffix(".images.csv")
    lines = table.read_text().splitlines()
    lines[2] = "stack.tif,failed,,,0,1" + "," * (lines[0].count(",") - 5)
    table.write_text("\n".join(lines) + "\n")
    result = exported(stack, tmp_path / "out", "tiff", "png", "geojson", "coco")
    labels = tifffile.imread(tmp_path / "out" / "tiff" / "stack.tif")
    assert [int(plane.max()) for plane in labels.reshape(6, 40, 50)] == [1, 0, 3, 2, 3, 4]
    assert len(list((tmp_path / "out" / "png").iterdir())) == 5
    assert result.without_mask == 1


def test_outlines_of_a_stack_say_their_plane(stack: SmallRun, tmp_path: Path) -> None:
    """In one file for the image, as QuPath and the ROI Manager expect."""
    exported(stack, tmp_path / "out", "geojson", "roi", "png", "coco")
    counts = {(t, z): t + z + 1 for t in range(2) for z in range(3)}
    features = json.loads((tmp_path / "out" / "geojson" / "stack.geojson").read_text())["features"]
    planes = [feature["geometry"].get("plane", {"t": 0, "z": 0}) for feature in features]
    rois = roifile.roiread(tmp_path / "out" / "roi" / "stack.zip")
    assert len({feature["id"] for feature in features}) == len(features) == len(rois)
    pictures = {path.name: np.asarray(Image.open(path)).max() for path in (tmp_path / "out" / "png").iterdir()}
    images = COCO(tmp_path / "out" / "coco.json")
    for (t, z), count in counts.items():
        assert sum(plane["t"] == t and plane["z"] == z for plane in planes) == count
        assert sum((roi.t_position, roi.z_position) == (t + 1, z + 1) for roi in rois) == count
        assert pictures[f"stack_t{t:03d}_z{z:03d}.png"] == count
        (image,) = (number for number, image in images.imgs.items() if (image["t"], image["z"]) == (t, z))
        assert len(images.getAnnIds(image)) == count
    assert "t001_z002 nucleus 4" in {roi.name for roi in rois}


def test_rows_of_a_stack_name_their_plane_in_the_table_of_ngio(stack: SmallRun, tmp_path: Path) -> None:
    """Time point and depth of a nucleus are those of nuclei.csv; swapped, a time series would be a volume."""
    import ngio

    exported(stack, tmp_path / "out", "ngio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries below ngio
        container = ngio.open_ome_zarr_container(tmp_path / "out" / "ngio" / "stack.zarr")
        table = container.get_table("nuclei").dataframe
    for (t, z), rows in table.groupby(["t", "z"]):
        assert len(rows) == int(t) + int(z) + 1
    assert sorted({(int(t), int(z)) for t, z in zip(table["t"], table["z"], strict=True)}) == [
        (t, z) for t in range(2) for z in range(3)
    ]


def test_every_file_says_where_it_is_from(stack: SmallRun, tmp_path: Path) -> None:
    """Files are passed on alone, and must still tell the version and the model."""
    import pyarrow.parquet

    out = tmp_path / "out"
    exported(stack, out)
    with tifffile.TiffFile(out / "tiff" / "stack.tif") as tiff:
        about = {name: tiff.imagej_metadata[name] for name in ("software", "store", "model_sha256")}
    assert about["software"].startswith("nucseg-batch ")
    assert about["store"] == "out.zarr"
    picture_text = Image.open(out / "png" / "stack_t000_z000.png").text
    assert (picture_text["Software"], picture_text["store"]) == (about["software"], "out.zarr")
    for path in (out / "geojson" / "stack.geojson", out / "coco.json"):
        assert about.items() <= json.loads(path.read_text())["info"].items()
    metadata = pyarrow.parquet.read_schema(out / "nuclei.parquet").metadata
    assert metadata[b"model_sha256"].decode() == about["model_sha256"]
    with zipfile.ZipFile(out / "roi" / "stack.zip") as archive:
        assert about["model_sha256"] in archive.comment.decode()


def test_more_nuclei_than_16_bits_number_become_32_bit_tiff_and_no_png(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers that wrap would join nuclei far apart; the reason is told, and the other images are written."""
    run = small_run(tmp_path, monkeypatch, region=1024)
    crowd = np.full((541, 547), 10, np.uint8)
    crowd[::2, ::2] = 150
    run.put("crowd.tif", crowd)
    run.put("few.tif", picture(3))
    run.segment()
    result = exported(run, tmp_path / "out", "tiff", "png")
    labels = tifffile.imread(tmp_path / "out" / "tiff" / "crowd.tif")
    assert (labels.dtype, labels.max()) == (np.uint32, 271 * 274)
    assert [path.name for path in (tmp_path / "out" / "png").iterdir()] == ["few.png"]
    assert result.formats["png"].refused == 1
    assert "74254 nuclei; a PNG can number 65535" in result.formats["png"].reasons[0]


def test_ngio_opens_a_plate_with_a_table_for_each_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of a plate keep their place, so that ngio finds tables by well; of a part only that part is listed."""
    import ngio

    run = small_run(tmp_path, monkeypatch)
    write_plate(run.folder, ["A/1", "A/2", "B/2"], 2, picture(5).astype(np.uint16), "yx")
    run.segment()
    exported(run, tmp_path / "out", "ngio")
    exported(run, tmp_path / "part", "ngio", pattern="A/2/*")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries below ngio
        plate = ngio.open_ome_zarr_plate(tmp_path / "out" / "ngio.zarr")
        assert sorted(plate.get_images()) == [f"{well}/{number}" for well in ("A/1", "A/2", "B/2") for number in (0, 1)]
        for image in plate.get_images().values():
            table = image.get_table("nuclei")
            assert table.reference_label == "nuclei"
            assert sorted(table.dataframe.index) == [1, 2, 3, 4, 5]
            assert (np.bincount(image.get_label("nuclei").get_as_numpy().ravel())[1:] == table.dataframe["area"]).all()
        assert sorted(ngio.open_ome_zarr_plate(tmp_path / "part" / "ngio.zarr").get_images()) == ["A/2/0", "A/2/1"]
