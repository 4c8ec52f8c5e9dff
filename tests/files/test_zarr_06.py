"""OME-Zarr 0.6 as its release candidate of July 2026 has it."""

from __future__ import annotations

import json
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05.hcs import HCS
from ome_zarr_models.v05.image import Image
from zarr_examples import multiscales, numbers, write_array, write_group, write_image, write_plate

from nucseg_batch.errors import ImageError, UsageError
from nucseg_batch.files.masks.in_place import check_labels
from nucseg_batch.files.masks.ngff import calibration_of
from nucseg_batch.files.masks.store import create_store
from nucseg_batch.files.zarr.find import find_images
from nucseg_batch.files.zarr.planes import ZarrPlane
from nucseg_batch.files.zarr.source import open_zarr
from nucseg_batch.files.zarr.systems import flattened
from nucseg_batch.plan import ImageInfo, make_plan

WELLS = ("A/1", "B/2")


def as_06(multiscale: dict[str, Any], *, parts: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A multiscale of 0.5 as one of 0.6: its axes are those of the second of two coordinate systems."""
    systems = [
        {"name": "stage", "axes": [{"name": name, "type": "space", "unit": "meter"} for name in "ab"]},
        {"name": "physical", "axes": multiscale["axes"]},
    ]
    datasets = []
    for level in multiscale["datasets"]:
        sequence = {
            "type": "sequence",
            "input": {"path": level["path"]},
            "output": {"name": "physical"},
            "transformations": parts or level["coordinateTransformations"],
        }
        datasets.append({"path": level["path"], "coordinateTransformations": [sequence]})
    return {"name": "cells", "coordinateSystems": systems, "datasets": datasets}


def upgrade(root: Path) -> Path:
    """Gives all groups of a store of 0.5 the metadata of 0.6."""
    for file in root.rglob("zarr.json"):
        content = json.loads(file.read_bytes())
        if "ome" in content["attributes"]:
            ome = content["attributes"]["ome"]
            ome["version"] = "0.6"
            if "multiscales" in ome:
                ome["multiscales"] = [as_06(ome["multiscales"][0])]
            file.write_text(json.dumps(content))
    return root


def test_an_image_that_ome_zarr_py_wrote_is_read(tmp_path: Path) -> None:
    if tuple(map(int, metadata.version("ome-zarr").split(".")[:2])) < (0, 21):
        pytest.skip("ome-zarr-py before 0.21 does not write 0.6")
    classes = pytest.importorskip("ome_zarr.classes")
    pixels = numbers(2, 3, 61, 47)
    image = classes.OMEZarrImage(
        pixels,
        "czyx",
        scale={"c": 1.0, "z": 2.0, "y": 0.325, "x": 0.325},
        axes_units=dict.fromkeys("zyx", "micrometer"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydantic, about ome-zarr-py's own models
        pyramid = classes.OMEZarrMultiscale(image, scale_factors=[2], channel_names=["DAPI", "GFP"])
        pyramid.to_ome_zarr(str(tmp_path / "a.zarr"), version="0.6")
    ome = json.loads((tmp_path / "a.zarr" / "zarr.json").read_bytes())["attributes"]["ome"]
    assert ome["version"].startswith("0.6")
    assert "axes" not in ome["multiscales"][0]
    (found,) = find_images(tmp_path / "a.zarr").images
    header = found.header
    assert (header.axes, header.shape, header.levels) == ("CZYX", (2, 3, 61, 47), 2)
    assert (header.pixel_size, [channel.name for channel in header.channels]) == (0.325, ["DAPI", "GFP"])
    window = open_zarr(tmp_path / "a.zarr").read(0, 1, slice(3, 50), slice(5, 47))
    np.testing.assert_array_equal(window, pixels[:, 1, 3:50, 5:47])


def test_a_plate_is_read_and_its_masks_are_a_plate_of_version_05(tmp_path: Path) -> None:
    pixels = numbers(23, 29)
    root = upgrade(write_plate(tmp_path / "p.zarr", WELLS, 2, pixels, "yx"))
    content = find_images(root)
    assert ([image.path for image in content.images], content.troubles) == (["A/1/0", "A/1/1", "B/2/0", "B/2/1"], ())
    assert (open_zarr(root, "B/2/1").read(0, 0, slice(0, 23), slice(0, 29)) == pixels).all()
    plan = make_plan(ImageInfo(name, 1, 1, 23, 29, 1, "uint16", group=name) for name in ("A/1/0", "B/2/1"))
    assert create_store(tmp_path / "out.zarr", plan, mirror=content.metadata) == []
    assert isinstance(open_ome_zarr(tmp_path / "out.zarr", version="0.5"), HCS)
    assert isinstance(open_ome_zarr(tmp_path / "out.zarr" / "A/1/0", version="0.5"), Image)


def test_images_of_a_scene_are_found(tmp_path: Path) -> None:
    """A scene places several images in one space; each is segmented by itself."""
    scene = {"scene": {"coordinateSystems": [], "coordinateTransformations": []}}
    root = write_group(tmp_path / "s.zarr", scene)
    for name in ("left", "right"):
        write_image(root / name, numbers(23, 29), "yx")
    assert [image.path for image in find_images(upgrade(root)).images] == ["left", "right"]


def test_masks_lie_where_their_image_lies(tmp_path: Path) -> None:
    parts = [
        {"type": "translation", "translation": [1.0, 3.0, 5.0]},
        {"type": "scale", "scale": [4.0, 0.5, 0.5]},
        {"type": "sequence", "transformations": [{"type": "identity"}, {"type": "scale", "scale": [1.0, 2.0, 3.0]}]},
        {"type": "translation", "translation": [0.0, 7.0, 11.0]},
    ]
    image = {"multiscales": [as_06(multiscales("zyx", size=1.0)["multiscales"][0], parts=parts)]}
    stack = make_plan([ImageInfo("A", 1, 1, 31, 37, 1, "uint8", group="A")]).label_arrays[0]
    frame = calibration_of(stack, image)
    assert frame.scale == {"z": 4.0, "y": 1.0, "x": 1.5}
    assert frame.translation == {"z": 4.0, "y": 10.0, "x": 18.5}
    assert (frame.units, frame.name) == ({"y": "micrometer", "x": "micrometer"}, "cells")


@pytest.mark.parametrize("kind", ["affine", "rotation", "mapAxis", "byDimension", "displacements"])
def test_pixels_that_are_not_only_scaled_and_moved_are_refused(tmp_path: Path, kind: str) -> None:
    root = write_group(tmp_path / "a.zarr")
    write_array(root / "0", numbers(23, 29))
    multiscale = as_06(multiscales("yx")["multiscales"][0], parts=[{"type": kind, kind: [[1, 0, 0], [0, 1, 0]]}])
    write_group(root, {"version": "0.6", "multiscales": [multiscale]})
    content = find_images(root)
    assert content.images == ()
    (trouble,) = content.troubles
    assert kind in trouble.message


@pytest.mark.parametrize(
    "damage",
    [
        lambda multiscale: multiscale["coordinateSystems"].pop(),
        lambda multiscale: multiscale.update(coordinateSystems=None),
        lambda multiscale: multiscale["datasets"][0]["coordinateTransformations"][0].pop("output"),
        lambda multiscale: multiscale["datasets"][0]["coordinateTransformations"][0].update(transformations=[{}]),
        lambda multiscale: multiscale["datasets"][0]["coordinateTransformations"].clear(),
        lambda multiscale: multiscale["datasets"][0]["coordinateTransformations"][0]["transformations"][0].update(
            scale=[1.0]
        ),
    ],
    ids=["system", "systems", "output", "type", "none", "scale"],
)
def test_damaged_metadata_are_an_error_of_the_image(tmp_path: Path, damage: Any) -> None:
    root = write_group(tmp_path / "a.zarr")
    write_array(root / "0", numbers(23, 29))
    multiscale = as_06(multiscales("yx")["multiscales"][0])
    damage(multiscale)
    write_group(root, {"version": "0.6", "multiscales": [multiscale]})
    with pytest.raises(ImageError, match=r"\A[^\n]+\Z"):
        open_zarr(root)


def test_a_multiscale_of_an_earlier_version_stays_as_it_is() -> None:
    earlier = multiscales("tczyx", size=0.5, levels=2)["multiscales"][0]
    assert flattened(earlier) == earlier
    later = flattened(as_06(earlier))
    assert later["axes"] == earlier["axes"]
    assert [level["path"] for level in later["datasets"]] == ["0", "1"]


def test_annotated_images_and_their_labels_are_read(tmp_path: Path) -> None:
    root = write_image(tmp_path / "a.zarr", numbers(23, 29), "yx")
    write_group(root / "labels", {"labels": ["nuclei"]})
    write_image(root / "labels" / "nuclei", numbers(23, 29, dtype="uint32"), "yx")
    upgrade(root)
    assert (ZarrPlane(root).read(max_pixels=1000) == numbers(23, 29)).all()
    assert ZarrPlane(root / "labels" / "nuclei").read(max_pixels=1000).dtype == np.uint32


def test_labels_are_not_written_into_a_store_of_version_06(tmp_path: Path) -> None:
    """All groups of a store are of one version, and 0.5 is what is written."""
    root = upgrade(write_image(tmp_path / "a.zarr", numbers(23, 29), "yx"))
    plan = make_plan([ImageInfo("a.zarr", 1, 1, 23, 29, 1, "uint16", group="")])
    with pytest.raises(UsageError, match=r"0\.6.*give OUT"):
        check_labels(root, plan)
    assert not (root / "labels").exists()
    assert "labels" not in set(zarr.open_group(root, mode="r").group_keys())
