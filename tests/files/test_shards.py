"""Shards that are encoded here, read by zarr-python, and the bytes that it writes itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, GzipCodec, ZstdCodec
from zarr.storage import MemoryStore

from nucseg_batch.files.masks.nodes import ArrayLayout, put_array, replace_part
from nucseg_batch.files.masks.shards import ShardEncoder, crc32c
from nucseg_batch.files.zarr.opening import open_array
from nucseg_batch.plan import ShardGrid

GRIDS = [
    ShardGrid("iyx", (10, 31, 20), (1, 31, 20), (4, 31, 20)),
    ShardGrid("yx", (103, 97), (8, 16), (40, 48)),
    ShardGrid("yx", (53, 47), (16, 16), (64, 48)),
    ShardGrid("icyx", (7, 3, 13, 17), (1, 3, 13, 17), (3, 3, 13, 17)),
    ShardGrid("tzyx", (3, 4, 20, 30), (1, 1, 7, 11), (2, 3, 21, 33)),
]
"""Shards that lie in the array or reach beyond its end, of one or many chunks along each axis."""
TYPES = ("uint8", "uint16", "uint32", "float32")


def values_of(grid: ShardGrid, dtype: str) -> NDArray[Any]:
    """Few numbers, none in the first chunk; of floats the negative ones, zeros with a sign among them."""
    rng = np.random.default_rng(0)
    found = (rng.integers(1, 250, grid.shape) * (rng.random(grid.shape) < 0.2)).astype(dtype)
    found = -found if dtype == "float32" else found
    found[tuple(map(slice, grid.chunk))] = 0
    return found


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.shape} by {grid.chunk}")
def test_zarr_reads_every_shard_and_would_have_written_it_so(tmp_path: Path, grid: ShardGrid, dtype: str) -> None:
    """Files that were written by earlier versions through zarr-python are the same, so that checksums stay good."""
    values, folder = values_of(grid, dtype), tmp_path / "0"
    put_array(folder, ArrayLayout(grid, dtype))
    for number in range(grid.count):
        bounds = grid.bounds(number)
        replace_part(folder, open_array(folder, mode="r+"), bounds, values[bounds])
    np.testing.assert_array_equal(open_array(folder, mode="r")[...], values)
    theirs = tmp_path / "theirs" / "0"
    put_array(theirs, ArrayLayout(grid, dtype))
    array = open_array(theirs, mode="r+")
    for number in range(grid.count):
        array[grid.bounds(number)] = values[grid.bounds(number)]
    assert files(folder) == files(theirs)


def test_shards_of_zeros_are_no_files_and_damage_is_noticed_by_the_reader(tmp_path: Path) -> None:
    """The index has a checksum, which zarr compares."""
    grid = ShardGrid("iyx", (4, 5, 7), (1, 5, 7), (2, 5, 7))
    put_array(tmp_path, ArrayLayout(grid, "uint32"))
    values = np.zeros(grid.shape, np.uint32)
    values[3] = 9
    array = open_array(tmp_path, mode="r+")
    for number in range(grid.count):
        replace_part(tmp_path, array, grid.bounds(number), values[grid.bounds(number)])
    assert list(files(tmp_path)) == ["c/1/0/0", "zarr.json"]
    shard = tmp_path / "c/1/0/0"
    content = bytearray(shard.read_bytes())
    content[-6] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        open_array(tmp_path, mode="r")[3]


def test_arrays_that_are_laid_out_otherwise_are_left_to_zarr() -> None:
    """Of another codec, another place of the index, another value of what is missing, and without shards."""
    shape: dict[str, Any] = {"shape": (8, 6), "chunks": (2, 3), "dtype": "uint16"}
    ours: dict[str, Any] = {"shards": (4, 6), "compressors": [ZstdCodec(level=3, checksum=True)], "fill_value": 0}
    assert ShardEncoder.of(metadata(**shape, **ours)) is not None
    for other in (
        {"compressors": [GzipCodec()]},
        {"compressors": [ZstdCodec(level=3, checksum=False)]},
        {"compressors": None},
        {"serializer": BytesCodec(endian="big")},
        {"fill_value": 7},
        {"shards": None},
        {"shards": {"shape": (4, 6), "index_location": "start"}},
    ):
        assert ShardEncoder.of(metadata(**shape, **{**ours, **other})) is None, other
    assert ShardEncoder.of({}) is None


def test_the_checksum_is_that_of_the_standard() -> None:
    """The check value of CRC-32C for the nine digits, and zeros as RFC 3720 has them (B.4)."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def metadata(**options: Any) -> dict[str, Any]:
    """What zarr.json of an array says."""
    kept: dict[str, Any] = {}
    zarr.create_array(MemoryStore(kept), zarr_format=3, **options)
    content: dict[str, Any] = json.loads(kept["zarr.json"].to_bytes())
    return content


def files(folder: Path) -> dict[str, bytes]:
    """Contents by name below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
