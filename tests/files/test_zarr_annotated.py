"""Damaged and lying stores of annotated images: `train` and `evaluate` say of them what `segment` says."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
from pictures import disks
from zarr_examples import Version, multiscales, write_array, write_group, write_image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.annotations import find_pairs
from nucseg_batch.files.annotations.label_images import find_label_images
from nucseg_batch.files.zarr.find import find_images
from nucseg_batch.files.zarr.planes import MAX_IMAGES, image_axis_length
from nucseg_batch.files.zarr.source import open_zarr
from nucseg_batch.training.data import read_all

LABELS = disks((61, 67), [(19, 21), (42, 50)], 9).astype("uint16")
Damage = Callable[[Path], Any]


def annotated(path: Path, version: Version = "0.5") -> Path:
    """An image and its label image, of the same pixels, so that one damage of either has one sentence."""
    write_image(path, LABELS, "yx", version=version)
    write_group(path / "labels", {"labels": ["nuclei"]}, version=version)
    write_group(path / "labels" / "nuclei", {**multiscales("yx"), "image-label": {}}, version=version)
    write_array(path / "labels" / "nuclei" / "0", LABELS, version=version)
    return path


def segment_says(root: Path) -> str:
    """What `segment` says of an image."""
    try:
        for trouble in find_images(root).troubles:
            return trouble.message
        open_zarr(root).read(0, 0, slice(0, LABELS.shape[0]), slice(0, LABELS.shape[1]))
    except ImageError as error:
        return str(error)
    raise AssertionError("it was read")


def train_says(folder: Path) -> list[str]:
    """What `train` says of a folder of annotated images."""
    found = find_pairs(folder)
    said = list(found.problems)
    with contextlib.suppress(ImageError):
        read_all(found.pairs, said.append)
    return said


def evaluate_says(place: Path) -> str:
    """What `evaluate` says of a label image that it refuses."""
    try:
        for image in find_label_images(place, "TRUTH").images:
            image.read()
    except ImageError as error:
        return str(error)
    raise AssertionError("it was read")


def array(**changes: Any) -> Damage:
    """Changes what the array of a group says of itself."""

    def damage(group: Path) -> None:
        file = next(path for name in ("zarr.json", ".zarray") if (path := group / "0" / name).exists())
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


def described(**changes: Any) -> Damage:
    """Changes what a group says of its image."""

    def damage(group: Path) -> None:
        content = json.loads((group / "zarr.json").read_text())
        content["attributes"]["ome"]["multiscales"][0] |= changes
        (group / "zarr.json").write_text(json.dumps(content))

    return damage


def chunk(change: Callable[[bytes], bytes]) -> Damage:
    """Changes the first chunk of a group's array."""

    def damage(group: Path) -> None:
        file = min(path for path in (group / "0" / "c").rglob("*") if path.is_file())
        file.write_bytes(change(file.read_bytes()))

    return damage


THREE = {
    "chunks too large": array(chunk_grid={"name": "regular", "configuration": {"chunk_shape": [2**17, 2**17]}}),
    "codec": array(codecs=[{"name": "numcodecs.pickle"}]),
    "type": array(data_type="complex64"),
    "no pixels": array(shape=[0, 90]),
    "no shape": array(shape=[61, True]),
    "other axes": array(shape=[61], chunk_grid={"name": "regular", "configuration": {"chunk_shape": [13]}}),
    "transformers": array(storage_transformers=[{"name": "other"}]),
    "path out of the store": described(datasets=[{"path": "../../0"}]),
    "no levels": described(datasets=[]),
    "array not there": described(datasets=[{"path": "7"}]),
    "unknown axis": described(axes=[{"name": "q"}, {"name": "x"}]),
    "axes no list": described(axes=3),
    "array cut": lambda group: (group / "0" / "zarr.json").write_text('{"zarr_format": 3, "sha'),
    "group cut": lambda group: (group / "zarr.json").write_text('{"zarr_format": 3, "node'),
    "group nested": lambda group: (group / "zarr.json").write_text("[" * 100_000),
    "chunk cut": chunk(lambda data: data[:-3]),
    "bomb": chunk(lambda _: bytes(numcodecs.Zstd().encode(bytes(30 * 2**20)))),
    "chunk names": lambda group: (group / "0" / "c").rename(group / "0" / "d"),
}
TWO = {
    "codec": array(compressor={"id": "pickle"}),
    "type": array(dtype="|O"),
    "chunks too large": array(chunks=[2**17, 2**17]),
    "attributes cut": lambda group: (group / ".zattrs").write_text('{"multisc'),
}
DAMAGES = [
    *(pytest.param("0.5", damage, id=f"0.5 {name}") for name, damage in THREE.items()),
    *(pytest.param("0.4", damage, id=f"0.4 {name}") for name, damage in TWO.items()),
]


@pytest.mark.parametrize(("version", "damage"), DAMAGES)
@pytest.mark.parametrize("part", ["", "labels/nuclei"], ids=["image", "labels"])
def test_what_segment_refuses_is_refused_in_the_same_words(
    tmp_path: Path, version: Version, damage: Damage, part: str
) -> None:
    """There is one reader of what others wrote: limits that hold for a million images hold for those that teach."""
    same = annotated(tmp_path / "same.zarr", version)
    damage(same)
    sentence = segment_says(same)
    assert "\n" not in sentence
    folder = tmp_path / "data"
    annotated(folder / "good.zarr", version)
    damage(annotated(folder / "a.zarr", version) / part)
    assert train_says(folder) == [f"a.zarr: {sentence}"]
    if part:
        assert evaluate_says(folder / "a.zarr").endswith(f": {sentence}")


def test_versions_without_axes_are_read_as_segment_reads_them(tmp_path: Path) -> None:
    """Until 0.3, axes were t, c, z, y and x by rule."""
    root = tmp_path / "a.zarr"
    for group in (root, root / "labels" / "nuclei"):
        write_group(group, {"multiscales": [{"version": "0.1", "datasets": [{"path": "0"}]}]}, version="0.4")
        write_array(group / "0", LABELS[None, None, None], version="0.4")
    write_group(root / "labels", {"labels": ["nuclei"]}, version="0.4")
    (sample,) = read_all(find_pairs(tmp_path).pairs, lambda _: None)
    np.testing.assert_array_equal(sample.pixels, LABELS)
    np.testing.assert_array_equal(sample.labels > 0, LABELS > 0)


@pytest.mark.parametrize("name", ["../../good.zarr/labels/nuclei", "/etc", 3])
def test_label_images_are_not_looked_for_outside_of_the_store(tmp_path: Path, name: object) -> None:
    """What a store lists is data of others."""
    annotated(tmp_path / "good.zarr")
    write_group(annotated(tmp_path / "a.zarr") / "labels", {"labels": [name]})
    (said,) = train_says(tmp_path)
    assert said.startswith("a.zarr: its metadata name a path")
    assert ": its metadata name a path" in evaluate_says(tmp_path / "a.zarr")


def test_more_images_along_axis_i_than_can_be_are_not_listed(tmp_path: Path) -> None:
    """A hundred bytes can claim more images than memory holds names of."""
    root = write_image(tmp_path / "a.zarr", LABELS[None], "iyx", chunks=(1, 61, 67))
    described(axes=[{"name": name} for name in "iyx"])(root)
    assert image_axis_length(root) == 1
    array(shape=[2**40, 61, 67])(root)
    with pytest.raises(ImageError, match=f"it has {2**40} images on axis i; at most {MAX_IMAGES}"):
        image_axis_length(root)


def test_a_plane_that_claims_more_pixels_than_are_allowed_is_not_made(tmp_path: Path) -> None:
    """It would be zeros of many terabytes."""
    annotated(tmp_path / "good.zarr")
    array(shape=[2**30, 2**30])(annotated(tmp_path / "a.zarr"))
    (said,) = train_says(tmp_path)
    assert said.startswith(f"a.zarr: it has {2**30} x {2**30} pixels; at most ")
