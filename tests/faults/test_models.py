"""Row 35 of the fault matrix: model files that would read, run or claim what they should not.

Cut, flipped, empty, foreign and numberless files, Lambda layers and further members have tests in test_model_file.py.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from faults.harness import NOISE, call, image_folder

from nucseg_batch.errors import ModelError
from nucseg_batch.network.model_file import load_model

Change = Callable[[h5py.File, str, Path], None]
SECRET = "s3cret.h5"


def changed(tiny: Path, folder: Path, **members: Callable[[bytes], bytes]) -> Path:
    """A copy of the model in which members of the archive are others."""
    path = folder / "m.keras"
    with zipfile.ZipFile(tiny) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, members.get(name.split(".")[0], lambda same: same)(data))
    return path


def first_array(weights: h5py.File) -> str:
    found: list[str] = []
    weights.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return max(found, key=lambda name: weights[name].size)


def link_to_a_file(weights: h5py.File, name: str, folder: Path) -> None:
    weights[name] = h5py.ExternalLink(str(folder / SECRET), "/x")


def bytes_of_a_file(weights: h5py.File, name: str, folder: Path) -> None:
    shape = weights.attrs["shape"]
    size = int(np.prod(shape)) * 4
    weights.create_dataset(name, tuple(shape), "f4", external=[(str(folder / SECRET), 0, size)])


def virtual(weights: h5py.File, name: str, folder: Path) -> None:
    layout = h5py.VirtualLayout(tuple(weights.attrs["shape"]), "f4")
    layout[...] = h5py.VirtualSource(str(folder / SECRET), "x", tuple(weights.attrs["shape"]))
    weights.create_virtual_dataset(name, layout)


def terabytes(weights: h5py.File, name: str, folder: Path) -> None:
    weights.create_dataset(name, (2**20, 2**20), "f4", chunks=(1024, 1024), fillvalue=0)


def with_weights(tiny: Path, folder: Path, change: Change) -> Path:
    """A copy of the model whose largest array was replaced; beside it a file that has one of the same shape."""

    def elsewhere(content: bytes) -> bytes:
        memory = io.BytesIO(content)
        with h5py.File(memory, "r+") as weights:
            name = first_array(weights)
            weights.attrs["shape"] = weights[name].shape
            with h5py.File(folder / SECRET, "w") as secret:
                secret["x"] = np.full(weights[name].shape, 0.5, np.float32)
            del weights[name]
            change(weights, name, folder)
            del weights.attrs["shape"]
        return memory.getvalue()

    return changed(tiny, folder, model=elsewhere)


@pytest.mark.parametrize("change", [link_to_a_file, bytes_of_a_file, virtual, terabytes], ids=lambda c: c.__name__)
def test_weights_that_lie_elsewhere_or_nowhere_are_refused(tiny: Path, tmp_path: Path, change: Change) -> None:
    """HDF5 can point at any file of whoever opens it, and claim any size."""
    with pytest.raises(ModelError, match="weights cannot be read"):
        load_model(with_weights(tiny, tmp_path, change))


def test_weights_that_were_written_again_are_read(tiny: Path, tmp_path: Path) -> None:
    """Else all of the above would be refused for another reason."""

    def here(weights: h5py.File, name: str, folder: Path) -> None:
        weights[name] = np.full(tuple(weights.attrs["shape"]), 0.5, np.float32)

    model = load_model(with_weights(tiny, tmp_path, here))
    assert any((weight == 0.5).all() for weight in model.network.get_weights())


def config_of(**fields: Any) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        config = json.loads(content)
        config["config"]["layers"][2] |= fields
        return json.dumps(config).encode()

    return change


@pytest.mark.parametrize(
    "fields",
    [
        {"module": "os", "class_name": "system", "config": {"command": "touch ran"}},
        {"module": "builtins", "class_name": "exec"},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "somewhere"}},
        {"module": "keras.src.saving", "class_name": "Conv2D"},
    ],
    ids=lambda fields: fields["class_name"],
)
def test_a_configuration_that_names_other_code_is_refused_and_never_run(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    """A model from a colleague must not be a program."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="not allowed"):
        load_model(changed(tiny, tmp_path, config=config_of(**fields)))
    assert not (tmp_path / "ran").exists()


def test_the_configuration_in_a_file_decides_nothing(tiny: Path, tmp_path: Path) -> None:
    """The network is built from our own record: an input of another shape in the file changes nothing."""

    def other_input(content: bytes) -> bytes:
        config = json.loads(content)
        config["config"]["layers"][0]["config"]["batch_shape"] = [None, 7, 7, 1]
        return json.dumps(config).encode()

    model = load_model(changed(tiny, tmp_path, config=other_input))
    assert model.network.input_shape == (None, None, None, 3)


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tiny: Path, tmp_path: Path) -> None:
    """Before it is unpacked: its list of members says so."""
    path = tmp_path / "m.keras"
    shutil.copy(tiny, path)
    with zipfile.ZipFile(path) as archive:
        record = next(item for item in archive.infolist() if item.filename == "metadata.json")
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\1\2", 0, content.rindex(b"metadata.json"))
    content[entry + 24 : entry + 28] = (2**32 - 2).to_bytes(4, "little")
    assert record.file_size < 1000
    path.write_bytes(content)
    with pytest.raises(ModelError, match="unpack"):
        load_model(path)


def test_a_bad_model_is_one_line_and_nothing_is_begun(tiny: Path, tmp_path: Path) -> None:
    """78, in our own words; the next try with the right model finds a clean place."""
    folder = image_folder(tmp_path / "in", 1)
    path = tmp_path / "m.keras"
    for content in (b"", b"text", tiny.read_bytes()[: tiny.stat().st_size * 95 // 100]):
        path.write_bytes(content)
        done = call("segment", folder, tmp_path / "new" / "out.zarr", "--model", path, code=78)
        assert str(path) in done.refusal
        assert done.noise <= NOISE
    assert not (tmp_path / "new").exists()
