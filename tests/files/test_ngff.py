from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Plate, Reader
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05.bioformats2raw import BioFormats2Raw
from ome_zarr_models.v05.hcs import HCS
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel
from packaging.version import Version

from nucseg_batch.files.masks.ngff import calibration_of
from nucseg_batch.files.masks.nodes import read_attributes
from nucseg_batch.files.masks.plates import translated
from nucseg_batch.files.masks.pyramid import build_levels
from nucseg_batch.files.masks.store import MaskWriter, create_store, list_masks
from nucseg_batch.plan import ImageInfo, LabelArray, Plan, make_plan


def attributes_of(store: Path) -> dict[str, dict[str, Any]]:
    """OME attributes of all groups of a store of version 0.4, by path."""
    found = {}
    for place, _, names in os.walk(store):
        if ".zattrs" in names and ".zarray" not in names:
            path = Path(place).relative_to(store).as_posix()
            found["" if path == "." else path] = json.loads((Path(place) / ".zattrs").read_bytes())
    return found


def info(group: str, height: int = 31, width: int = 37, **more: Any) -> ImageInfo:
    return ImageInfo(group, 1, 1, height, width, 1, "uint8", group=group, **more)


def multiscales(scale: list[float], **more: Any) -> dict[str, Any]:
    """Attributes of an image of version 0.4 with axes t, c, z, y and x."""
    axes = [{"name": name, "type": "time" if name == "t" else "channel"} for name in "tc"]
    axes += [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    return {"multiscales": [{"name": "cells", "axes": axes, "datasets": [dataset], "version": "0.4", **more}]}


def filled(store: Path, plan: Plan) -> None:
    """Masks in which every pixel has the number of its unit, from 1."""
    for number, unit in enumerate(plan.units(), start=1):
        MaskWriter(store).write(unit, np.full(unit.shape, number, np.uint32))


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """A mirrored plate of two wells with two fields each, of images with time points and depths."""
    wells = {"A/1": ("0", "1"), "B/2": ("0", "1")}
    mirror: dict[str, dict[str, Any]] = {
        "": {
            "plate": {
                "name": "screen",
                "rows": [{"name": "A"}, {"name": "B"}],
                "columns": [{"name": "1"}, {"name": "2"}],
                "wells": [
                    {"path": "A/1", "rowIndex": 0, "columnIndex": 0},
                    {"path": "B/2", "rowIndex": 1, "columnIndex": 1},
                ],
                "acquisitions": [{"id": 3, "name": "day 1", "maximumfieldcount": 2}],
                "version": "0.4",
            }
        }
    }
    groups = []
    for well, fields in wells.items():
        mirror[well] = {"well": {"images": [{"path": name, "acquisition": 3} for name in fields], "version": "0.4"}}
        for name in fields:
            groups.append(f"{well}/{name}")
            mirror[groups[-1]] = multiscales([2.0, 1.0, 500.0, 130.0, 130.0])
    plan = make_plan(info(group, t=(0, 2, 1), z=(0, 3, 1)) for group in groups)
    store = tmp_path / "out.zarr"
    assert create_store(store, plan, mirror=mirror) == []
    filled(store, plan)
    return store


def test_a_mirrored_plate_is_a_plate_to_the_reference_models(plate: Path) -> None:
    """Plate, wells, images and labels are all valid, though no pixels were copied."""
    model = open_ome_zarr(plate, version="0.5")
    assert isinstance(model, HCS)
    assert model.attributes.ome.plate.name == "screen"
    assert model.attributes.ome.plate.field_count == 2
    assert [[one.path for one in well.attributes.ome.well.images] for well in model.well_groups] == [["0", "1"]] * 2
    image = open_ome_zarr(plate / "A/1/0", version="0.5")
    assert isinstance(image, Image)
    assert image.attributes.ome.multiscales[0].datasets[0].path == "labels/nuclei/0"
    assert image.labels is not None


def test_a_plate_with_rings_and_cells_keeps_its_structure(plate: Path, tmp_path: Path) -> None:
    """They are listed beside the nuclei, valid by themselves, and stay out of the list where an image failed."""
    groups = ["A/1/0", "A/1/1", "B/2/0", "B/2/1"]
    labels = ("nuclei", "rings", "cells")
    plan = make_plan((info(group, t=(0, 2, 1), z=(0, 3, 1), levels=2) for group in groups), labels=labels)
    store = tmp_path / "rings.zarr"
    mirror = {group: read_attributes(plate / group)["ome"] for group in ("", "A/1", "B/2", *groups)}
    assert create_store(store, plan, mirror=mirror) == []
    for unit in plan.units():
        MaskWriter(store).write(unit, {name: np.full(unit.shape, i + 1, np.uint32) for i, name in enumerate(labels)})
        build_levels(store, unit.label_array)
    assert isinstance(open_ome_zarr(store, version="0.5"), HCS)
    for group in groups:
        image = open_ome_zarr(store / group, version="0.5")
        assert isinstance(image, Image)
        assert image.labels is not None
        assert image.labels.attributes.ome.labels == list(labels)
        for i, name in enumerate(labels):
            label = open_ome_zarr(store / group / "labels" / name, version="0.5")
            assert isinstance(label, ImageLabel)
            (multiscale,) = label.attributes.ome.multiscales
            assert multiscale.name == name
            assert [dataset.path for dataset in multiscale.datasets] == ["0", "1"]
            for level in "01":
                assert (zarr.open_array(store / group / "labels" / name / level, mode="r")[:] == i + 1).all()
    list_masks(store, plan, mirror, {"A/1/0"})
    failed = open_ome_zarr(store / "A/1/0/labels", version="0.5")
    assert failed.attributes.ome.labels == []


@pytest.mark.skipif(
    Version(metadata.version("ome-zarr")) < Version("0.14"),
    reason="takes the first level of every plate to be called 0",
)
def test_a_mirrored_plate_opens_in_ome_zarr(plate: Path) -> None:
    """It lays wells side by side; of one image it finds the labels, too."""
    location = parse_url(plate)
    assert location is not None
    (node,) = Reader(location)()
    assert any(isinstance(spec, Plate) for spec in node.specs)
    pixels = np.asarray(node.data[0])
    assert pixels.shape == (2, 3, 62, 74)
    assert [int(pixels[0, 0, y, x]) for y in (0, 61) for x in (0, 73)] == [1, 0, 0, 3]
    location = parse_url(plate / "A/1/1")
    assert location is not None
    nodes = list(Reader(location)())
    assert [np.asarray(node.data[0]).max() for node in nodes if node.data] == [2, 2]
    assert nodes[0].metadata["coordinateTransformations"][0][0]["scale"] == [2.0, 500.0, 130.0, 130.0]


@pytest.mark.filterwarnings("ignore")
def test_a_mirrored_plate_opens_in_ngio(plate: Path) -> None:
    """It finds wells, images and labels, with their scales."""
    ngio = pytest.importorskip("ngio", reason="ngio is not installed")
    opened = ngio.open_ome_zarr_plate(str(plate))
    assert opened.wells_paths() == ["A/1", "B/2"]
    assert opened.images_paths() == ["A/1/0", "A/1/1", "B/2/0", "B/2/1"]
    container = opened.get_images()["B/2/1"]
    assert container.list_labels() == ["nuclei"]
    label = container.get_label("nuclei")
    assert (label.get_as_numpy() == 4).all()
    assert label.get_as_numpy().shape == (2, 3, 31, 37)
    assert (label.pixel_size.z, label.pixel_size.y, label.space_unit) == (500.0, 130.0, "nanometer")
    assert container.get_image().get_as_numpy().shape == (2, 3, 31, 37)


@pytest.mark.filterwarnings("ignore")
def test_mirrored_stores_open_in_napari(plate: Path, tmp_path: Path) -> None:
    """By the function that its OME-Zarr plug-in reads with; labels must not come out transparent."""
    napari_ome_zarr = pytest.importorskip("napari_ome_zarr", reason="napari-ome-zarr is not installed")
    layers = napari_ome_zarr.napari_get_reader(str(plate))(str(plate))
    assert [(kind, data[0].shape) for data, _, kind in layers] == [
        ("image", (2, 3, 62, 74)),
        ("labels", (2, 3, 62, 74)),
    ]
    image = str(plate / "A/1/1")
    layers = napari_ome_zarr.napari_get_reader(image)(image)
    assert [(kind, int(np.asarray(data[0]).max())) for data, _, kind in layers] == [("image", 2), ("labels", 2)]
    assert "colormap" not in layers[1][1], "a label without a colour of its own is not shown at all"
    store, plan = tmp_path / "series.zarr", make_plan([info("0"), info("2", 41, 43)])
    create_store(store, plan, mirror={"": {"bioformats2raw.layout": 3}, "OME": {"series": ["0", "1", "2"]}})
    filled(store, plan)
    layers = napari_ome_zarr.napari_get_reader(str(store))(str(store))
    assert [data[0].shape for data, _, kind in layers if kind == "labels"] == [(31, 37), (41, 43)]


@pytest.mark.real_data
@pytest.mark.parametrize(
    "source",
    ["ome2024_ngff/hcs.zarr", "biotools_ome_zarr_examples/data/valid/plate-01.zarr"],
)
def test_plates_of_other_tools_are_translated(shared: Path, tmp_path: Path, source: str) -> None:
    """From version 0.4; wells and fields that are not in the plan are left out, rows and columns stay."""
    metadata = attributes_of(shared / "formats" / source)
    images = [path for path, content in metadata.items() if "multiscales" in content and "labels" not in path]
    plan = make_plan(info(path) for path in images)
    assert create_store(tmp_path / "all.zarr", plan, mirror=metadata) == []
    whole = open_ome_zarr(tmp_path / "all.zarr", version="0.5")
    assert isinstance(whole, HCS)
    original = metadata[""]["plate"]
    assert [well.path for well in whole.attributes.ome.plate.wells] == [well["path"] for well in original["wells"]]

    some = sorted(images)[1:]
    plan = make_plan(info(path) for path in some[-1:])
    create_store(tmp_path / "one.zarr", plan, mirror=metadata)
    model = open_ome_zarr(tmp_path / "one.zarr", version="0.5")
    assert isinstance(model, HCS)
    assert model.n_wells == 1
    assert len(model.attributes.ome.plate.rows) == len(original["rows"])
    (well,) = model.well_groups
    assert [image.path for image in well.attributes.ome.well.images] == [some[-1].rpartition("/")[2]]


@pytest.mark.real_data
def test_collections_of_images_are_translated(shared: Path, tmp_path: Path) -> None:
    """As bioformats2raw writes them: a list of series, and OME-XML that names each."""
    metadata = attributes_of(shared / "formats" / "ome2024_ngff" / "bf2raw.zarr")
    plan = make_plan([info("0"), info("1", 41, 43)])
    store = tmp_path / "out.zarr"
    assert create_store(store, plan, mirror=metadata) == []
    create_store(store, plan, mirror=metadata)
    model = BioFormats2Raw.from_zarr(zarr.open_group(store, mode="r"))
    assert model.image_paths == ["0", "1"]
    assert json.loads((store / "OME" / "zarr.json").read_bytes())["attributes"]["ome"]["series"] == ["0", "1"]
    top = ElementTree.parse(store / "OME" / "METADATA.ome.xml").getroot()
    pixels = [element.attrib for element in top.iter() if element.tag.endswith("}Pixels")]
    assert [(one["SizeY"], one["SizeX"], one["SizeT"], one["Type"]) for one in pixels] == [
        ("31", "37", "1", "uint32"),
        ("41", "43", "1", "uint32"),
    ]


def test_a_folder_of_plates_gives_a_store_of_plates(tmp_path: Path) -> None:
    """Each keeps its name, and what is a plain group in between stays one."""
    well = {"well": {"images": [{"path": "0"}]}}
    one = {"rows": [{"name": "A"}], "columns": [{"name": "1"}], "wells": [{"path": "A/1"}]}
    mirror = {
        "day1/p.zarr": {"plate": one},
        "day1/p.zarr/A/1": well,
        "day2/p.zarr": {"ome": {"plate": one, "version": "0.5"}},
        "day2/p.zarr/A/1": {"ome": {**well, "version": "0.5"}},
    }
    plan = make_plan(info(f"{day}/p.zarr/A/1/0") for day in ("day1", "day2"))
    assert create_store(tmp_path / "out.zarr", plan, mirror=mirror) == []
    for day in ("day1", "day2"):
        assert isinstance(open_ome_zarr(tmp_path / "out.zarr" / day / "p.zarr", version="0.5"), HCS)


def test_what_the_models_refuse_is_copied_and_told() -> None:
    """Fractal names images `0_registered`, which the specification does not allow and viewers open all the same."""
    plate = {"rows": [{"name": "A"}], "columns": [{"name": "1"}], "wells": [{"path": "A/1"}], "version": "0.4"}
    metadata = {"": {"plate": plate}, "A/1": {"well": {"images": [{"path": "0_mip", "acquisition": 0}]}}}
    found = translated(metadata, ["A/1/0_mip"])
    assert found.groups["A/1"]["ome"]["well"]["images"] == [{"path": "0_mip", "acquisition": 0}]
    (note,) = found.notes
    assert "A/1" in note
    assert "copied" in note


@pytest.mark.parametrize("plate", [{"wells": [{}]}, {"wells": "A/1"}, {"rows": [3], "wells": []}, []])
def test_a_plate_that_cannot_be_understood_is_left_out(plate: Any) -> None:
    """Masks are worth having without it; a line says so, unless there is nothing to say."""
    found = translated({"": {"plate": plate}}, ["A/1/0"])
    assert found.groups == {}
    assert len(found.notes) == (plate != [])


def test_fields_that_a_well_does_not_list_follow_in_the_order_of_their_numbers() -> None:
    """And an acquisition that the plate does not know is not repeated."""
    wells = [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}]
    plate = {"rows": [{"name": "A"}], "columns": [{"name": "1"}], "wells": wells, "acquisitions": [{"id": 0}]}
    metadata = {"": {"plate": plate}, "A/1": {"well": {"images": [{"path": "9", "acquisition": 7}]}}}
    found = translated(metadata, [f"A/1/{name}" for name in (9, 10, 2)])
    assert found.groups["A/1"]["ome"]["well"]["images"] == [{"path": "9"}, {"path": "2"}, {"path": "10"}]
    assert found.notes == []


def stack_of(**more: Any) -> LabelArray:
    return make_plan([info("A/1/0", **more)]).label_arrays[0]


def test_planes_that_are_left_out_move_and_widen_the_rest() -> None:
    """`--z 2:9:3` of depths 500 nm apart: the first is at 1000 nm, the next 1500 nm further."""
    stack = stack_of(t=(1, 4, 1), z=(2, 9, 3))
    frame = calibration_of(stack, multiscales([2.0, 1.0, 500.0, 130.0, 130.0]))
    assert [frame.scale[axis] for axis in "tzyx"] == [2.0, 1500.0, 130.0, 130.0]
    assert [frame.translation[axis] for axis in "tzyx"] == [2.0, 1000.0, 0.0, 0.0]
    assert frame.units == dict.fromkeys("zyx", "nanometer")


def test_transformations_of_the_whole_image_count_as_well() -> None:
    """NGFF applies them after those of a level."""
    outer = [
        {"type": "scale", "scale": [0.5, 1.0, 1.0, 2.0, 3.0]},
        {"type": "translation", "translation": [0.0, 0.0, 7.0, 11.0, 13.0]},
    ]
    image = multiscales([2.0, 1.0, 500.0, 130.0, 130.0], coordinateTransformations=outer)
    image["multiscales"][0]["datasets"][0]["coordinateTransformations"].append(
        {"type": "translation", "translation": [0.0, 0.0, 0.0, 5.0, 5.0]}
    )
    frame = calibration_of(stack_of(t=(0, 4, 1), z=(0, 9, 1)), image)
    assert [frame.scale[axis] for axis in "tzyx"] == [1.0, 500.0, 260.0, 390.0]
    assert [frame.translation[axis] for axis in "tzyx"] == [0.0, 7.0, 21.0, 28.0]


@pytest.mark.parametrize(
    "image",
    [
        None,
        {},
        {"multiscales": []},
        {"multiscales": [{"axes": [{}], "datasets": []}]},
        {"multiscales": [{"axes": None, "datasets": [{"path": "0"}]}]},
        multiscales([0.0, 1.0, float("nan"), -3.0, 1.0]),
        multiscales([1.0, 1.0]),
    ],
)
def test_metadata_that_say_nothing_usable_give_pixels_of_size_one(tmp_path: Path, image: dict[str, Any] | None) -> None:
    """Or the pixel size that the reader found."""
    stack = stack_of(pixel_size=0.25)
    frame = calibration_of(stack, image)
    known = image is not None and bool(image.get("multiscales")) and len(image["multiscales"][0]["axes"] or ()) == 5
    assert [frame.scale.get(axis, 1.0) for axis in "yx"] == ([1.0, 1.0] if known else [0.25, 0.25])
    create_store(tmp_path / "out.zarr", make_plan([info("A/1/0")]), mirror={} if image is None else {"A/1/0": image})
    assert isinstance(open_ome_zarr(tmp_path / "out.zarr" / "A/1/0", version="0.5"), Image)
