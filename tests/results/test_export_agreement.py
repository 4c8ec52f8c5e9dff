"""One run in all formats, read back by the libraries that people read them with: all say the same of every nucleus."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import pytest
import roifile
import shapely.geometry
import tifffile
from exporting import ANY_RUN, INSTALLED, exported
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.results.run import FinishedRun


@dataclass(frozen=True)
class Nucleus:
    """What every format can say of a nucleus: exact numbers, and the centre to within rounding."""

    area: int
    box: tuple[int, int, int, int]
    centre: tuple[float, float]


Found = dict[tuple[str, int], Nucleus]
"""By image without suffix, and label."""


def of_pixels(name: str, mask: NDArray[np.integer]) -> Found:
    found = {}
    for label in np.unique(mask[mask > 0]).tolist():
        rows, columns = np.nonzero(mask == label)
        box = int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1
        found[name, label] = Nucleus(rows.size, box, (round(rows.mean(), 3), round(columns.mean(), 3)))
    return found


def of_shape(shape: shapely.geometry.base.BaseGeometry) -> Nucleus:
    """A shape along pixel edges; centres of pixels are half a pixel before them."""
    left, top, right, bottom = (int(side) for side in shape.bounds)
    centre = round(shape.centroid.y - 0.5, 3), round(shape.centroid.x - 0.5, 3)
    return Nucleus(int(shape.area), (top, left, bottom, right), centre)


def of_table(table: pandas.DataFrame) -> Found:
    return {
        (str(Path(row["image"]).with_suffix("")), int(row["label"])): Nucleus(
            int(row["area"]),
            tuple(int(row[f"bbox-{side}"]) for side in range(4)),  # type: ignore[arg-type]
            (round(row["centroid-0"], 3), round(row["centroid-1"], 3)),
        )
        for row in table.to_dict("records")
    }


def names(folder: Path, ending: str) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix().removesuffix(ending): path for path in sorted(folder.rglob(f"*{ending}"))
    }


def read_tiff(folder: Path) -> Found:
    found = {}
    for name, path in names(folder / "tiff", ".tif").items():
        found |= of_pixels(name, tifffile.imread(path))
    return found


def read_png(folder: Path) -> Found:
    found = {}
    for name, path in names(folder / "png", ".png").items():
        with Image.open(path) as image:
            found |= of_pixels(name, np.asarray(image))
    return found


def read_geojson(folder: Path) -> Found:
    found = {}
    for name, path in names(folder / "geojson", ".geojson").items():
        for feature in json.loads(path.read_text())["features"]:
            shape = shapely.geometry.shape(feature["geometry"])
            assert shape.is_valid
            properties = feature["properties"]
            measurements = properties["measurements"]
            assert all(isinstance(value, int | float) for value in measurements.values())  # as QuPath reads them
            assert measurements["area"] == shape.area
            assert (properties["objectType"], properties["classification"]["name"]) == ("detection", "Nucleus")
            assert properties["name"] == f"nucleus {measurements['label']}"
            found[name, measurements["label"]] = of_shape(shape)
    return found


def read_roi(folder: Path) -> Found:
    found = {}
    for name, path in names(folder / "roi", ".zip").items():
        for roi in roifile.roiread(path) if roifile_has_entries(path) else []:
            rings = [np.asarray(ring) for ring in roi.coordinates(multi=True)]
            shape = shapely.geometry.Polygon(rings[0])
            for ring in rings[1:]:
                shape = shape.symmetric_difference(shapely.geometry.Polygon(ring))
            assert roi.name.startswith("nucleus ")
            found[name, int(roi.name.removeprefix("nucleus "))] = of_shape(shape)
            assert (roi.top, roi.left, roi.bottom, roi.right) == of_shape(shape).box
    return found


def roifile_has_entries(path: Path) -> bool:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return bool(archive.namelist())


def read_coco(folder: Path) -> Found:
    coco = COCO(folder / "coco.json")
    found = {}
    for annotation in coco.loadAnns(coco.getAnnIds()):
        image = coco.loadImgs(annotation["image_id"])[0]
        name = str(Path(image["file_name"]).with_suffix(""))
        mask = coco.annToMask(annotation)
        assert mask.shape == (image["height"], image["width"])
        (nucleus,) = of_pixels(name, mask).values()
        left, top, width, height = annotation["bbox"]
        assert (top, left, top + height, left + width) == nucleus.box
        assert annotation["area"] == nucleus.area
        found[name, annotation["label"]] = nucleus
    return found


def read_parquet(folder: Path) -> Found:
    return of_table(pandas.read_parquet(folder / "nuclei.parquet"))


def read_ngio(folder: Path) -> Found:
    import ngio

    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries below ngio
        for name, path in names(folder / "ngio", ".zarr").items():
            container = ngio.open_ome_zarr_container(path)
            table = container.get_table("nuclei").dataframe.reset_index()
            pixels = of_pixels(name, np.squeeze(container.get_label("nuclei").get_as_numpy()))
            rows = of_table(table.assign(image=name))
            assert {key: (one.area, one.box) for key, one in rows.items()} == {
                key: (one.area, one.box) for key, one in pixels.items()
            }
            found |= pixels
    return found


def read_anndata(folder: Path) -> Found:
    """AnnData keeps coordinates of centres only; boxes are those of the mask, so that they are not compared."""
    import anndata

    nuclei = anndata.read_h5ad(folder / "nuclei.h5ad")
    table = nuclei.obs.assign(area=nuclei.to_df()["area"])
    table["centroid-1"], table["centroid-0"] = nuclei.obsm["spatial"].T
    boxes = pandas.read_csv(f"{folder}.nuclei.csv").filter(like="bbox-").to_numpy()
    return of_table(table.assign(**{f"bbox-{side}": boxes[:, side] for side in range(4)}))


def read_cellprofiler(folder: Path) -> Found:
    """By CellProfiler's names of what scikit-image measures."""
    table = pandas.read_csv(folder / "cellprofiler" / "Nuclei.csv")
    images = pandas.read_csv(folder / "cellprofiler" / "Image.csv", keep_default_na=False)
    table = table.merge(images, on="ImageNumber")
    sides = "Minimum_Y", "Minimum_X", "Maximum_Y", "Maximum_X"
    renamed = {f"AreaShape_BoundingBox{side}": f"bbox-{number}" for number, side in enumerate(sides)}
    renamed |= {"AreaShape_Area": "area", "ObjectNumber": "label"}
    renamed |= {"AreaShape_Center_Y": "centroid-0", "AreaShape_Center_X": "centroid-1"}
    table["image"] = (table["PathName_Nuclei"] + "/" + table["FileName_Nuclei"]).str.lstrip("/")
    return of_table(table.rename(columns=renamed))


def read_omero(folder: Path) -> Found:
    """Without the row of types; a dash in the name of a column is `_`."""
    table = pandas.read_csv(folder / "omero.csv", skiprows=1)
    dashed = {f"{name}_{number}": f"{name}-{number}" for name in ("bbox", "centroid") for number in range(4)}
    return of_table(table.rename(columns={"image_path": "image", **dashed}))


def read_spatialdata(folder: Path) -> Found:
    import spatialdata

    found = {}
    for name, path in names(folder / "spatialdata", ".zarr").items():
        data = spatialdata.read_zarr(path)
        pixels = of_pixels(name, np.asarray(data["nuclei"]))
        nuclei = data.tables.get("table")
        if nuclei is not None:
            areas = nuclei.to_df()["area"].tolist()
            assert areas == [pixels[name, label].area for label in nuclei.obs["label"]]
        found |= pixels
    return found


READERS: dict[str, Callable[[Path], Found]] = {
    "tiff": read_tiff,
    "png": read_png,
    "geojson": read_geojson,
    "roi": read_roi,
    "coco": read_coco,
    "parquet": read_parquet,
    "ngio": read_ngio,
    "anndata": read_anndata,
    "cellprofiler": read_cellprofiler,
    "omero": read_omero,
    "spatialdata": read_spatialdata,
}


@pytest.fixture
def varied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Files of three shapes, one done by regions; rings, an image without nuclei and one that fails."""
    run = small_run(tmp_path, monkeypatch)
    (run.folder / "plate" / "A01").mkdir(parents=True)
    run.put("one.tif", picture(7))
    ring = picture(0, (53, 47))
    ring[5:24, 6:30] = 140
    ring[9:19, 11:23] = 10
    ring[13, 15] = 140
    run.put("plate/ring.tif", ring)
    run.put("plate/A01/large.tif", mosaic((150, 170)))
    run.put("empty.tif", picture(0))
    (run.folder / "bad.tif").write_bytes(b"II*\0 this is no image")
    run.segment()
    return run


def test_all_formats_say_the_same_of_every_nucleus(varied: SmallRun, tmp_path: Path) -> None:
    """Count, area, box and centre of each nucleus, as each format's own reader has them, are those of nuclei.csv."""
    result = exported(varied, tmp_path / "out")
    table = pandas.read_csv(tmp_path / "out.nuclei.csv")
    expected = of_table(table)
    assert len(expected) == len(table) > 100
    assert READERS.keys() == set(ANY_RUN)
    assert set(ANY_RUN) - set(INSTALLED) <= {"spatialdata"}
    found = {name: READERS[name](tmp_path / "out") for name in INSTALLED}
    for name, nuclei in found.items():
        assert nuclei == expected, name
    assert result.without_mask == 1
    assert {name: outcome.refused for name, outcome in result.formats.items()} == dict.fromkeys(INSTALLED, 0)
    assert {name: outcome.written for name, outcome in result.formats.items()} == {
        **dict.fromkeys(INSTALLED, 4),
        "coco": 1,
        "parquet": 2,
        "anndata": 1,
        "cellprofiler": 3,
        "omero": 1,
    }


def test_a_large_plane_is_written_piece_by_piece_and_never_read_whole(
    varied: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slide of 100 000 pixels a side has 40 GB of mask."""
    read = FinishedRun.mask
    largest: list[int] = []

    def counted(run: FinishedRun, *window: object) -> NDArray[np.uint32]:
        mask = read(run, *window)  # type: ignore[arg-type]
        largest.append(mask.size)
        return mask

    monkeypatch.setattr(FinishedRun, "mask", counted)
    monkeypatch.setattr("nucseg_batch.results.export.planes.WINDOW", 1)
    monkeypatch.setattr("nucseg_batch.results.export.ngio.SHARD", 1)
    exported(varied, tmp_path / "out", "tiff", "png", "geojson", "roi", "coco", "ngio", pattern="large.tif")
    assert max(largest) <= 64 * 170 < 150 * 170
    expected = {
        key: nucleus
        for key, nucleus in of_table(pandas.read_csv(tmp_path / "out.nuclei.csv")).items()
        if key[0] == "plate/A01/large"
    }
    for name in ("tiff", "png", "geojson", "roi", "coco", "ngio"):
        assert READERS[name](tmp_path / "out") == expected, name
    with tifffile.TiffFile(tmp_path / "out" / "tiff" / "plate" / "A01" / "large.tif") as tiff:
        assert tiff.pages[0].is_tiled
