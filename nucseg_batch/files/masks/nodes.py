"""Groups and arrays of a zarr store as the small files that they are: made once, kept where they are, never half there.

Stores of many thousand groups are made by writing each group's own file; zarr-python writes an array's metadata, once
for each kind of array.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from numpy.typing import NDArray
from zarr.buffer import cpu
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from nucseg_batch.files.atomic_write import sync, whole_file, write_whole
from nucseg_batch.files.masks.shards import ShardEncoder
from nucseg_batch.files.zarr.opening import open_array
from nucseg_batch.plan import ShardGrid

ZSTD_LEVEL = 1
"""Masks are runs of equal numbers: higher levels cost time and save little; of images they save a few percent."""
GROUP_FILES = {3: "zarr.json", 2: ".zgroup"}
"""The file that makes a folder a group, by zarr format."""
ARRAY_FILES = {3: ("zarr.json",), 2: (".zarray", ".zattrs")}
"""The files that describe an array."""
ATTRIBUTES_FILES = {3: "zarr.json", 2: ".zattrs"}
"""The file that holds a group's attributes."""


@dataclass(frozen=True)
class ArrayLayout:
    """All that describes an array before it has values."""

    grid: ShardGrid
    """Its axes, and how it is cut into shards and chunks."""
    dtype: str
    """Type of its values."""


def zarr_format(folder: Path) -> int | None:
    """2 or 3 for a folder that is a zarr group, None for any other."""
    if (folder / GROUP_FILES[2]).is_file():
        return 2
    try:
        return 3 if json.loads((folder / GROUP_FILES[3]).read_bytes())["node_type"] == "group" else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def put_group(folder: Path, attributes: Mapping[str, Any], *, version: int = 3) -> None:
    """Makes a group with its attributes, but keeps one that is there as it is. `version` is the zarr format."""
    if _is_there(folder / GROUP_FILES[version]):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if version == 3:
        _put_file(folder / GROUP_FILES[3], _group_json(attributes))
        return
    if attributes:
        _put_file(folder / ATTRIBUTES_FILES[2], _json(attributes))
    _put_file(folder / GROUP_FILES[2], _json({"zarr_format": 2}))  # last: from here on it is a group


def put_array(folder: Path, layout: ArrayLayout, *, version: int = 3) -> None:
    """Makes an array of zeros, but keeps one that is there as it is. `version` is the zarr format."""
    files = _array_files(layout, version)
    if all(_is_there(folder / name) for name in files):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        _put_file(folder / name, data)


def read_attributes(folder: Path) -> dict[str, Any]:
    """Attributes of a group; empty for what is no group."""
    version = zarr_format(folder)
    if version is None:
        return {}
    try:
        content = json.loads((folder / ATTRIBUTES_FILES[version]).read_bytes())
    except FileNotFoundError:  # a group of format 2 without attributes
        return {}
    attributes = content.get("attributes", {}) if version == 3 else content
    return attributes if isinstance(attributes, dict) else {}


def write_attributes(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Gives a group that is there other attributes; they are on disk when this returns."""
    if zarr_format(folder) == 2:
        write_whole(folder / ATTRIBUTES_FILES[2], _json(attributes))
        return
    path = folder / GROUP_FILES[3]
    content = json.loads(path.read_bytes())
    write_whole(path, _json({**content, "attributes": dict(attributes)}))


def part_files(folder: Path, steps: Sequence[int], bounds: Sequence[slice], *, version: int = 3) -> list[Path]:
    """The files of a part of an array: `steps` are the lengths of what one file holds."""
    sides = zip(bounds, steps, strict=True)
    places = itertools.product(*(range(part.start // step, -(-part.stop // step)) for part, step in sides))
    top = folder / "c" if version == 3 else folder
    return [top.joinpath(*map(str, place)) for place in places]


@dataclass(frozen=True)
class StoredPart:
    """A part of an array as it is on disk."""

    bytes: int
    """Size of its files together; 0 where there is none, because all its values are zero."""
    sha256: str
    """Of the contents of its files, in order of their names."""


def replace_part(folder: Path, array: zarr.Array[Any], bounds: tuple[slice, ...], values: NDArray[Any]) -> StoredPart:
    """Writes a part of an array anew, so that it is on disk when this returns; the part is of whole files.

    Each file replaces an earlier one whole, which is not read and so may be damaged. Zeros alone need no file. Raises
    OSError where the disk fails; what was there before is then there still, of each file.
    """
    files = part_files(folder, array.shards or array.chunks, bounds, version=array.metadata.zarr_format)
    encoded = _encoded(folder, array.metadata.zarr_format, bounds, values)
    digest, size = hashlib.sha256(), 0
    for file in files:
        content = encoded.pop(file.relative_to(folder).as_posix(), None)
        if content is None:
            file.unlink(missing_ok=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)
        digest.update(content)
        size += len(content)
    assert not encoded, f"{bounds} is not a part of whole files"
    for place in sorted(_between(folder, files), reverse=True):
        sync(place)
    return StoredPart(size, digest.hexdigest())


def stored_part(files: Sequence[Path]) -> StoredPart:
    """The same of files as they are now; those that are missing count as zeros."""
    digest, size = hashlib.sha256(), 0
    for file in files:
        with contextlib.suppress(FileNotFoundError), open(file, "rb") as content:
            while piece := content.read(2**22):
                digest.update(piece)
                size += len(piece)
    return StoredPart(size, digest.hexdigest())


def combined(parts: Sequence[StoredPart]) -> StoredPart:
    """Several parts as one; a single one as it is."""
    if len(parts) == 1:
        return parts[0]
    digest = hashlib.sha256("".join(part.sha256 for part in parts).encode())
    return StoredPart(sum(part.bytes for part in parts), digest.hexdigest())


def _encoded(folder: Path, version: int, bounds: tuple[slice, ...], values: NDArray[Any]) -> dict[str, bytes]:
    """The files of a part of an array by name below the array's folder, as zarr-python writes them."""
    if version == 3:
        encoder = ShardEncoder.of(json.loads((folder / ARRAY_FILES[3][0]).read_bytes()))
        if encoder is not None:
            return _encoded_shards(encoder, bounds, values)
    described = {name: (folder / name).read_bytes() for name in ARRAY_FILES[version] if (folder / name).exists()}
    files: dict[str, Any] = {name: cpu.Buffer.from_bytes(content) for name, content in described.items()}
    open_array(MemoryStore(files), mode="r+")[bounds] = values
    return {name: buffer.to_bytes() for name, buffer in files.items() if name not in described}


def _encoded_shards(encoder: ShardEncoder, bounds: tuple[slice, ...], values: NDArray[Any]) -> dict[str, bytes]:
    """The same of an array of whose shards we know the layout."""
    files = part_files(Path(), encoder.shard, bounds)
    shards = ((file, encoder.encoded(values[part])) for file, part in zip(files, encoder.parts(bounds), strict=True))
    return {file.as_posix(): content for file, content in shards if content is not None}


def _between(folder: Path, files: Sequence[Path]) -> set[Path]:
    """The folders of files up to that of their array, as far as they are there."""
    above = {place for file in files for place in file.parents if place.is_relative_to(folder)}
    return {place for place in above if place.is_dir()}


def _put_file(path: Path, data: bytes) -> None:
    """Writes a file that appears complete; it need not be on disk at once, because a lost one is made again."""
    with whole_file(path, durable=False) as file:
        file.write(data)


def _is_there(path: Path) -> bool:
    """Whether a file is there with content: a crash of the machine can leave an empty one."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _group_json(attributes: Mapping[str, Any]) -> bytes:
    return _json({"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"})


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode()


@functools.lru_cache(maxsize=256)
def _array_files(layout: ArrayLayout, version: int) -> dict[str, bytes]:
    """Content by name of the files that describe an array, as zarr-python writes them where it is not configured."""
    files: dict[str, Any] = {}
    zstd: dict[str, Any] = {"id": "zstd", "level": ZSTD_LEVEL, "checksum": True}
    if version == 3:
        zarr.create_array(
            MemoryStore(files),
            shape=layout.grid.shape,
            chunks=layout.grid.chunk,
            shards=layout.grid.shard,
            dtype=layout.dtype,
            fill_value=0,
            compressors=[ZstdCodec(level=ZSTD_LEVEL, checksum=True)],
            dimension_names=list(layout.grid.axes),
            zarr_format=3,
        )
    else:
        zarr.create_array(
            MemoryStore(files),
            shape=layout.grid.shape,
            chunks=layout.grid.chunk,
            dtype=layout.dtype,
            fill_value=0,
            compressors=zstd,
            zarr_format=2,
            order="C",
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
    return {name: _json(json.loads(buffer.to_bytes())) for name, buffer in files.items()}
