from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models import open_ome_zarr

from nucseg_batch.errors import OutputError, UsageError
from nucseg_batch.files.masks.in_place import check_labels, create_labels, register, remove_labels
from nucseg_batch.files.masks.pyramid import build_levels, levels_missing
from nucseg_batch.files.masks.store import MaskWriter, masks_changed_ns, shard_bytes, shards_written
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.plan import ImageInfo, Plan, Unit, make_plan

SHAPE = (2, 3, 2, 131, 97)
"""Of images (t, c, z, y, x)."""


def make_input(store: Path, version: Literal["0.4", "0.5"], groups: tuple[str, ...] = ("",), levels: int = 2) -> None:
    """Images with a pyramid whose sides are rounded down, as bioformats2raw makes it."""
    zarr_format: Literal[2, 3] = 2 if version == "0.4" else 3
    root = zarr.open_group(store, mode="a", zarr_format=zarr_format)
    for group in groups:
        image = root.require_group(group) if group else root
        axes = [{"name": name, "type": "time" if name == "t" else "channel"} for name in "tc"]
        axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
        datasets = []
        for k in range(levels):
            shape = (*SHAPE[:3], SHAPE[3] >> k, SHAPE[4] >> k)
            names = {"dimension_names": list("tczyx")} if version == "0.5" else {}
            array = image.create_array(str(k), shape=shape, chunks=(1, 1, 1, 64, 64), dtype="uint16", **names)
            array[...] = np.arange(np.prod(shape)).reshape(shape) % 60_000
            scale = [1.0, 1.0, 2.0, 0.5 * SHAPE[3] / shape[3], 0.5 * SHAPE[4] / shape[4]]
            datasets.append({"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        multiscale = {"axes": axes, "datasets": datasets, "name": "cells"}
        if version == "0.4":
            image.update_attributes({"multiscales": [{**multiscale, "version": "0.4"}]})
        else:
            image.update_attributes({"ome": {"version": "0.5", "multiscales": [multiscale]}})


def plan_of(*groups: str, levels: int = 2, region: int = 3072) -> Plan:
    size = {"t": (0, SHAPE[0], 1), "z": (0, SHAPE[2], 1), "levels": levels}
    images = [ImageInfo(group or "in.zarr", 1, 1, *SHAPE[3:], 1, "uint16", group=group, **size) for group in groups]  # type: ignore[arg-type]
    return make_plan(images, region=region)


def masks_of(unit: Unit) -> NDArray[np.uint32]:
    return np.random.default_rng(unit.number).integers(1, 2**32, unit.shape, np.uint32)


def hashes(store: Path, *, of_labels: bool = False) -> dict[str, str]:
    found = {}
    for path in store.rglob("*"):
        name = path.relative_to(store).as_posix()
        if path.is_file() and (of_labels or (not f"/{name}".startswith("/labels/") and "/labels/" not in name)):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def labels_in(image: Path) -> list[NDArray[Any]]:
    """Label images that a viewer finds beside an image's pixels, at full resolution."""
    location = parse_url(image)
    assert location is not None
    return [np.asarray(node.data[0]) for node in list(Reader(location)())[1:] if node.data]


VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])


@VERSIONS
@pytest.mark.parametrize("region", [3072, 64])
def test_labels_are_added_and_nothing_else_changes(tmp_path: Path, version: Literal["0.4", "0.5"], region: int) -> None:
    """The input is valid at every moment, and shows the labels from the moment that the run is complete."""
    store = tmp_path / "in.zarr"
    make_input(store, version)
    before = hashes(store)
    plan = plan_of("", region=region)
    check_labels(store, plan)
    create_labels(store, plan)
    writer = MaskWriter(store)
    whole = np.zeros(plan.label_arrays[0].shape, np.uint32)
    for unit in plan.units():
        assert shard_bytes(store, unit) == 0
        whole[unit.bounds] = masks_of(unit)
        files = set((store / "labels/nuclei/0").rglob("*"))
        written = writer.write(unit, masks_of(unit))
        new = [path for path in (store / "labels/nuclei/0").rglob("*") if path.is_file() and path not in files]
        assert written.bytes == shard_bytes(store, unit) == sum(path.stat().st_size for path in new)
        assert masks_changed_ns(store, unit) == max(path.stat().st_mtime_ns for path in new)
    open_ome_zarr(store, version=version)
    assert labels_in(store) == []
    build_levels(store, plan.label_arrays[0])
    open_ome_zarr(store, version=version)
    register(store, plan)
    assert hashes(store) == before
    open_ome_zarr(store, version=version)
    open_ome_zarr(store / "labels" / "nuclei", version=version)
    RunLayout(store).images_csv.write_text("image,status,mask,index\nin.zarr,ok,labels/nuclei,\n")
    np.testing.assert_array_equal(open_masks(store)["in.zarr"], whole)
    (found,) = labels_in(store)
    np.testing.assert_array_equal(found, whole)
    level = zarr.open_array(store / "labels/nuclei/1", mode="r")
    np.testing.assert_array_equal(level[:], whole[:, :, : 2 * 65 : 2, : 2 * 48 : 2])
    again = hashes(store, of_labels=True)
    register(store, plan)
    assert hashes(store, of_labels=True) == again


@VERSIONS
@pytest.mark.filterwarnings("ignore")
def test_labels_in_place_are_read_by_ngio(tmp_path: Path, version: Literal["0.4", "0.5"]) -> None:
    """Beside the image's own pixels and with its scale."""
    ngio = pytest.importorskip("ngio", reason="ngio is not installed")
    store, plan = tmp_path / "in.zarr", plan_of("")
    make_input(store, version)
    run(store, plan)
    container = ngio.open_ome_zarr_container(str(store))
    assert container.list_labels() == ["nuclei"]
    label = container.get_label("nuclei")
    np.testing.assert_array_equal(label.get_as_numpy(), masks_of(next(plan.units())))
    assert (label.pixel_size.z, label.pixel_size.y) == (2.0, 0.5)


def run(folder: Path, plan: Plan) -> None:
    create_labels(folder, plan)
    for unit in plan.units():
        MaskWriter(folder).write(unit, masks_of(unit))
    for stack in plan.label_arrays:
        build_levels(folder, stack)
    register(folder, plan)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@VERSIONS
def test_compartments_are_listed_copied_and_replaced_with_their_nuclei(
    tmp_path: Path, version: Literal["0.4", "0.5"]
) -> None:
    """A new run without them takes them away; a label image `cells` of somebody else is asked about, and stays."""
    store, labels = tmp_path / "in.zarr", ("nuclei", "rings", "cells")
    make_input(store, version)
    zarr.consolidate_metadata(store, zarr_format=2 if version == "0.4" else 3)
    plan = make_plan(plan_of("").label_arrays[0].images, labels=labels)
    check_labels(store, plan)
    create_labels(store, plan)
    written = {}
    for unit in plan.units():
        written[unit.number] = {name: masks_of(unit) // (i + 1) for i, name in enumerate(labels)}
        part = MaskWriter(store).write(unit, written[unit.number])
        assert part == shards_written(store, unit)
        assert part.bytes == shard_bytes(store, unit)
    build_levels(store, plan.label_arrays[0])
    assert _listed(store, version) == []
    register(store, plan, provenance={"tool": "nucseg-batch"})
    assert _listed(store, version) == list(labels)
    opened = zarr.open_consolidated(store)
    for name in labels:
        for unit in plan.units():
            found = np.asarray(opened[f"labels/{name}/0"][unit.bounds])
            np.testing.assert_array_equal(found, written[unit.number][name])
        open_ome_zarr(store / "labels" / name, version=version)
        assert opened[f"labels/{name}"].attrs.asdict()["nucseg-batch"]["provenance"]["tool"] == "nucseg-batch"
    assert len(labels_in(store)) == 3
    remove_labels(store, plan_of(""))
    assert _listed(store, version) == []
    assert not any((store / "labels" / name).exists() for name in labels)
    assert not [name for name, _ in zarr.open_consolidated(store)["labels"].members()]
    make_group = zarr.open_group(store / "labels", mode="r+").create_group("cells")
    make_group.attrs["by"] = "hand"
    check_labels(store, plan_of(""))
    with pytest.raises(OutputError, match="label images called cells already"):
        check_labels(store, plan)
    remove_labels(store, plan_of(""))
    assert (store / "labels/cells").exists()


def _listed(store: Path, version: str) -> list[str]:
    attributes = zarr.open_group(store / "labels", mode="r").attrs.asdict()
    found: list[str] = (attributes["ome"] if version == "0.5" else attributes)["labels"]
    return found


@VERSIONS
def test_other_label_images_stay(tmp_path: Path, version: Literal["0.4", "0.5"]) -> None:
    """What somebody drew by hand, and what else the group says."""
    store = tmp_path / "in.zarr"
    make_input(store, version)
    run(store, plan_of(""))
    shutil.move(store / "labels/nuclei", store / "labels/cells")
    group = zarr.open_group(store / "labels", mode="r+")
    listed = {"labels": ["cells"], "version": version}
    group.attrs.put({"made by": "hand", **({"ome": listed} if version == "0.5" else listed)})
    before = hashes(store / "labels/cells", of_labels=True)
    run(store, plan_of(""))
    attributes = zarr.open_group(store / "labels", mode="r").attrs.asdict()
    assert attributes["made by"] == "hand"
    assert attributes.get("ome", attributes)["labels"] == ["cells", "nuclei"]
    assert hashes(store / "labels/cells", of_labels=True) == before
    assert len(labels_in(store)) == 2
    remove_labels(store, plan_of(""))
    attributes = zarr.open_group(store / "labels", mode="r").attrs.asdict()
    assert attributes.get("ome", attributes)["labels"] == ["cells"]
    assert not (store / "labels/nuclei").exists()
    open_ome_zarr(store, version=version)


@VERSIONS
def test_label_images_of_the_same_name_are_refused(tmp_path: Path, version: Literal["0.4", "0.5"]) -> None:
    """They may be somebody's work; only a run that is resumed knows them as its own, and --overwrite says it."""
    store, plan = tmp_path / "in.zarr", plan_of("A/1/0", "A/1/1")
    make_input(store, version, ("A/1/0", "A/1/1"))
    run(store, plan_of("A/1/1"))
    with pytest.raises(OutputError, match=r"A/1/1.*--overwrite"):
        check_labels(store, plan)
    check_labels(store, plan, resumed=True)
    check_labels(store, plan, overwrite=True)
    attributes = zarr.open_group(store / "A/1/1/labels/nuclei", mode="r+")
    attributes.attrs.put({key: value for key, value in attributes.attrs.asdict().items() if key != "nucseg-batch"})
    with pytest.raises(OutputError, match=r"A/1/1.*--overwrite"):
        check_labels(store, plan, resumed=True)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """Its shards are kept, and the result is that of a run without a stop."""
    for name in ("whole", "stopped"):
        make_input(tmp_path / name, "0.4", ("A/1/0", "A/1/1"))
    plan = plan_of("A/1/0", "A/1/1", region=128)
    run(tmp_path / "whole", plan)
    create_labels(tmp_path / "stopped", plan)
    units = list(plan.units())
    for unit in units[:5]:
        MaskWriter(tmp_path / "stopped").write(unit, masks_of(unit))
    (tmp_path / "stopped/A/1/1/labels/nuclei/.zgroup").unlink()
    check_labels(tmp_path / "stopped", plan, resumed=True)
    create_labels(tmp_path / "stopped", plan)
    for unit in units[5:]:
        MaskWriter(tmp_path / "stopped").write(unit, masks_of(unit))
    assert levels_missing(tmp_path / "stopped", plan.label_arrays[0])
    for stack in plan.label_arrays:
        build_levels(tmp_path / "stopped", stack)
    register(tmp_path / "stopped", plan)
    assert hashes(tmp_path / "stopped", of_labels=True) == hashes(tmp_path / "whole", of_labels=True)


@VERSIONS
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_copies_of_metadata_are_brought_up_to_date(tmp_path: Path, version: Literal["0.4", "0.5"]) -> None:
    """Else readers that trust them, as zarr does, would never see the labels."""
    store, groups = tmp_path / "folder" / "p.zarr", ("A/1/0", "A/1/1")
    make_input(store, version, groups)
    zarr.consolidate_metadata(store)
    before = hashes(store)
    plan = plan_of(*[f"p.zarr/{group}" for group in groups])
    create_labels(tmp_path / "folder", plan)
    assert hashes(store) == before
    run(tmp_path / "folder", plan)
    changed = {name for name, value in hashes(store).items() if before.get(name) != value}
    assert changed == {".zmetadata" if version == "0.4" else "zarr.json"}
    root = zarr.open_consolidated(store)
    attributes = root["A/1/1/labels"].attrs.asdict()
    assert attributes.get("ome", attributes)["labels"] == ["nuclei"]
    level = root["A/1/1/labels/nuclei/1"]
    assert isinstance(level, zarr.Array)
    assert level.shape == (2, 2, 65, 48)
    assert root["A/1/1/0"].shape == SHAPE  # type: ignore[union-attr]
    remove_labels(tmp_path / "folder", plan)
    root = zarr.open_consolidated(store)
    assert "A/1/1/labels/nuclei" not in root
    assert "A/1/1/labels" in root


def test_what_cannot_hold_labels_is_refused(tmp_path: Path) -> None:
    """Before anything is read: files, plain arrays and groups that are not there."""
    store = tmp_path / "in.zarr"
    make_input(store, "0.4")
    zarr.create_array(store / "plain", shape=(3, 5), dtype="uint8")
    with pytest.raises(UsageError, match=r"a\.tif"):
        check_labels(store, make_plan([ImageInfo("a.tif", 1, 1, 3, 5, 1, "uint8")]))
    for group in ("plain", "none"):
        with pytest.raises(OutputError, match=group):
            check_labels(store, make_plan([ImageInfo(group, 1, 1, 3, 5, 1, "uint8", group=group)]))


@pytest.mark.real_data
def test_labels_go_into_plates_of_other_tools(shared: Path, tmp_path: Path) -> None:
    """A plate of bioformats2raw, of version 0.4: it is one before, meanwhile and after."""
    store = tmp_path / "hcs.zarr"
    for path in (shared / "formats/ome2024_ngff/hcs.zarr").rglob("*"):
        if path.is_file():
            (store / path.relative_to(shared / "formats/ome2024_ngff/hcs.zarr")).parent.mkdir(
                parents=True, exist_ok=True
            )
            shutil.copyfile(path, store / path.relative_to(shared / "formats/ome2024_ngff/hcs.zarr"))
    before = hashes(store)
    groups = [path.parent.relative_to(store).as_posix() for path in store.glob("*/*/*/.zattrs")]
    images = []
    for group in groups:
        t, _, z, y, x = zarr.open_array(store / group / "0", mode="r").shape
        images.append(ImageInfo(group, 1, 1, y, x, 1, "uint8", group=group, t=(0, t, 1), z=(0, z, 1)))
    plan = make_plan(images)
    check_labels(store, plan)
    run(store, plan)
    assert hashes(store) == before
    open_ome_zarr(store, version="0.4")
    assert len(labels_in(store / groups[0])) == 1
