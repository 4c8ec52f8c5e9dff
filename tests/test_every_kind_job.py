"""The whole job on plates, stacks, channels and large planes, through the command line."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from command import call, run
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models import open_ome_zarr
from pictures import disks, fluorescence
from skimage.measure import regionprops_table

import nucseg_batch

WELLS = ("A/1", "A/2", "B/1")
PLACES = [(40, 41), (50, 120), (110, 60), (120, 130)]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def field(seed: int, count: int = 4) -> np.ndarray:
    """Two channels (2, 157, 173): nuclei, and a stain of another brightness in each of them."""
    labels = disks((157, 173), PLACES[:count], 13)
    other = labels.astype(np.uint16) * 100 + 7
    return np.stack([other, fluorescence(labels, seed=seed).astype(np.uint16) * 20])


def write_plate(path: Path) -> None:
    """An OME-Zarr 0.4 plate of three wells with a field each, channels GFP and DAPI, one level of pyramid below."""
    plate = zarr.open_group(path, mode="w", zarr_format=2)
    names = [{"path": well, "rowIndex": "AB".index(well[0]), "columnIndex": int(well[2]) - 1} for well in WELLS]
    plate.attrs["plate"] = {
        "version": "0.4",
        "rows": [{"name": "A"}, {"name": "B"}],
        "columns": [{"name": "1"}, {"name": "2"}],
        "wells": names,
    }
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    for number, well in enumerate(WELLS):
        group = plate.require_group(well)
        group.attrs["well"] = {"version": "0.4", "images": [{"path": "0"}]}
        image = group.require_group("0")
        pixels = field(number, 4 - number)
        datasets = []
        for level, step in enumerate((1, 2)):
            data = pixels[:, ::step, ::step]
            image.create_array(str(level), data=data, chunks=(1, *data.shape[1:]))
            scale = {"type": "scale", "scale": [1.0, 0.65 * step, 0.65 * step]}
            datasets.append({"path": str(level), "coordinateTransformations": [scale]})
        image.attrs["multiscales"] = [{"version": "0.4", "name": well, "axes": axes, "datasets": datasets}]
        image.attrs["omero"] = {"channels": [{"label": "GFP", "color": "00FF00"}, {"label": "DAPI", "color": "0000FF"}]}


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plate") / "plate.zarr"
    write_plate(path)
    return path


def test_a_plate_comes_out_as_a_plate_with_every_channel_measured(plate: Path) -> None:
    """Wells keep their places; the nuclei are found in DAPI, of which nobody said that it is the second channel."""
    out = plate.parent / "out.zarr"
    run("segment", plate, out, "--diameter", 26)
    open_ome_zarr(out, version="0.5")
    for number, well in enumerate(WELLS):
        group = out / well / "0"
        open_ome_zarr(group, version="0.5")
        open_ome_zarr(group / "labels" / "nuclei", version="0.5")
        assert zarr.open_array(group / "labels" / "nuclei" / "1", mode="r").shape == (79, 87), "as many levels"
        assert nucseg_batch.open_masks(out)[f"{well}/0"].max() == 4 - number
    location = parse_url(out)
    assert location is not None
    nodes = list(Reader(location)())
    assert nodes[0].data[0].max().compute() == 4, "ome-zarr-py shows the masks in the places of the wells"
    nuclei = rows(out.with_suffix(".nuclei.csv"))
    assert len(nuclei) == 4 + 3 + 2
    for row in nuclei:
        assert float(row["intensity_mean-DAPI"]) == float(row["intensity_mean"]) > 2000
        assert 50 < float(row["intensity_mean-GFP"]) < 500
        assert float(row["area_um2"]) == pytest.approx(float(row["area"]) * 0.65**2, rel=1e-5)


def test_labels_in_place_change_nothing_else_of_the_store(plate: Path, tmp_path: Path) -> None:
    """The input is somebody's data: what was there stays to the byte, and no second label image is made in silence."""
    store = tmp_path / "mine.zarr"
    write_plate(store)
    before = hashes(store)
    call("segment", store, "--in-place", "--diameter", 26)
    after = hashes(store)
    assert {name: value for name, value in after.items() if name in before} == before
    assert all("/labels/" in name for name in after.keys() - before.keys())
    assert nucseg_batch.open_masks(store)["A/2/0"].max() == 3
    location = parse_url(store / "A" / "1" / "0")
    assert location is not None
    assert [node.data[0].shape for node in Reader(location)() if node.data] == [(2, 157, 173), (157, 173)]
    (tmp_path / "mine.images.csv").unlink()
    assert call("segment", store, "--in-place", "--diameter", 26).stdout.startswith("everything was done")
    for path in tmp_path.glob("mine.*"):
        if path != store and path.is_file():
            path.unlink()
    assert "--overwrite" in call("segment", store, "--in-place", "--diameter", 20, code=78).stderr


def test_every_time_point_and_depth_of_a_stack_has_a_mask_and_rows_of_its_own(tmp_path: Path) -> None:
    """A 5D OME-TIFF, read by its axes: never its first page in silence."""
    stack = np.zeros((2, 3, 2, 157, 173), np.uint16)
    for t in range(2):
        for z in range(3):
            stack[t, z] = field(10 * t + z, 1 + t + z)
    folder = tmp_path / "in"
    folder.mkdir()
    metadata = {"axes": "TZCYX", "Channel": {"Name": ["GFP", "DAPI"]}}
    tifffile.imwrite(folder / "a.ome.tif", stack, metadata=metadata)
    out = tmp_path / "out.zarr"
    call("segment", folder, out, "--diameter", 26)
    masks = nucseg_batch.open_masks(out)["a.ome.tif"]
    assert masks.shape == (2, 3, 157, 173)
    nuclei = rows(out.with_suffix(".nuclei.csv"))
    for t in range(2):
        for z in range(3):
            own = [row for row in nuclei if (row["t"], row["z"]) == (str(t), str(z))]
            assert len(own) == 1 + t + z == masks[t, z].max()
            for channel, name in enumerate(("GFP", "DAPI")):
                truth = regionprops_table(masks[t, z], stack[t, z, channel], properties=("area", "intensity_mean"))
                found = [float(row[f"intensity_mean-{name}"]) for row in own]
                np.testing.assert_allclose(found, truth["intensity_mean"], rtol=1e-6)
    some = tmp_path / "some.zarr"
    call("segment", folder, some, "--diameter", 26, "--t", 1, "--z", "max")
    (row,) = rows(some.with_suffix(".images.csv"))
    assert (row["t"], row["z"], row["nuclei"]) == ("1", "", "4")


def test_a_plane_done_by_regions_is_that_done_whole(tmp_path: Path) -> None:
    """Nuclei on the borders of regions are whole, numbered once and measured once; a kill costs regions in flight."""
    labels = disks((611, 701), [(y, x) for y in range(25, 600, 46) for x in range(25, 690, 44)], 13)
    folder = tmp_path / "in"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", fluorescence(labels, seed=3), tile=(256, 256))
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    call("segment", folder, whole, "--diameter", 26)
    call("segment", folder, parts, "--diameter", 26, "--region", 256)
    one, other = (nucseg_batch.open_masks(store)["a.tif"] for store in (whole, parts))
    assert one.max() == other.max() == labels.max()
    assert np.unique(other).size == other.max() + 1, "numbered without gaps"
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    assert pairs.shape[1] == one.max() + 1, "each nucleus is one nucleus there, pixel by pixel"
    number = {int(b): int(a) for a, b in pairs.T}
    table = {int(row["label"]): row for row in rows(whole.with_suffix(".nuclei.csv"))}
    for row in rows(parts.with_suffix(".nuclei.csv")):
        expected = table[number[int(row["label"])]]
        assert {name: value for name, value in row.items() if name != "label"} == {
            name: value for name, value in expected.items() if name != "label"
        }
    (first,), (second,) = (rows(store.with_suffix(".images.csv")) for store in (whole, parts))
    for name in ("nuclei", "area_fraction", "area_median", "intensity_mean", "intensity_background", "scale"):
        assert first[name] == second[name]
    assert call("segment", folder, parts, "--diameter", 26, "--region", 256).stdout.startswith("everything was done")
    markers = sorted((parts.with_suffix(".run") / "units").iterdir())
    assert len(markers) == 9
    before = hashes(parts)
    markers[4].unlink()
    next((parts.with_suffix(".run") / "planes").glob("*.json")).unlink()
    assert "1 newly segmented" in call("segment", folder, parts, "--diameter", 26, "--region", 256).stdout
    assert hashes(parts) == before


def test_channels_in_files_of_their_own_are_measured_and_not_segmented(tmp_path: Path) -> None:
    """A microscope's folder without a word on channels is refused, not segmented twice."""
    folder = tmp_path / "in"
    folder.mkdir()
    for site in (1, 2):
        other, nuclei = field(site)
        tifffile.imwrite(folder / f"exp_B02_s{site}_w1.TIF", nuclei)
        tifffile.imwrite(folder / f"exp_B02_s{site}_w2.TIF", other)
    refused = call("segment", folder, tmp_path / "no.zarr", code=2).stderr
    assert "w1" in refused
    assert "--channel" in refused
    out = tmp_path / "out.zarr"
    call("segment", folder, out, "--channel", "w1", "--diameter", 26)
    assert list(nucseg_batch.open_masks(out)) == ["exp_B02_s1_w1.TIF", "exp_B02_s2_w1.TIF"]
    assert {row["intensity_max-w2"] for row in rows(out.with_suffix(".nuclei.csv"))} == {"107", "207", "307", "407"}


def test_inspect_tells_what_would_be_done_and_refused_without_doing_it(plate: Path, tmp_path: Path) -> None:
    """For scripts as JSON; nothing is written, and Keras stays unloaded."""
    before = hashes(plate)
    told = json.loads(run("inspect", plate, "--json").stdout)
    assert "DAPI" in json.dumps(told)
    text = call("inspect", plate).stdout
    assert "DAPI" in text
    assert hashes(plate) == before
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_was_labelled_in_place_is_never_an_output(tmp_path: Path) -> None:
    """It holds somebody's pixels: --overwrite deletes outputs of ours only, whatever run folder lies beside it."""
    store = tmp_path / "mine.zarr"
    write_plate(store)
    call("segment", store, "--in-place", "--diameter", 26)
    before = hashes(store)
    folder = tmp_path / "in"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", field(1)[1])
    for place in (folder, store):
        for options in ([], ["--overwrite"]):
            assert "not made by nucseg-batch" in call("segment", place, store, *options, code=73).stderr
    inside = call("segment", folder, store / "A" / "out.zarr", code=73).stderr
    assert "inside the zarr store" in inside
    assert hashes(store) == before
