"""Whichever method of a store zarr reads a chunk by, the chunk is looked at before it is decoded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from fsspec.asyn import get_loop, sync
from zarr.abc import store as base
from zarr.abc.store import RangeByteRequest, Store
from zarr.api.asynchronous import open_array
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore
from zarr_examples import numbers, write_array

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr.chunks import ChunkStore, read_part
from nucseg_batch.files.zarr.guard import ArrayFacts, check_array
from nucseg_batch.files.zarr.nodes import Node
from nucseg_batch.files.zarr.source import open_zarr

GUARDED = {"get", "get_partial_values", "get_ranges", "exists"}
"""Verbs that read chunks, of which `ChunkStore` has its own."""
DERIVED = {"getsize", "getsize_prefix", "get_ranges_sync"}
"""Verbs that read chunks by those above: `Store` has them, and its subclasses inherit them."""
HARMLESS = {
    *("clear", "delete", "delete_dir", "set", "set_if_not_exists", "set_partial_values", "delete_sync", "set_sync"),
    *("close", "open", "with_read_only", "is_empty", "list", "list_dir", "list_prefix"),
    *("read_only", "supports_consolidated_metadata", "supports_deletes", "supports_listing", "supports_partial_writes"),
    "supports_writes",
}
"""Verbs that read no chunk."""
REFUSED = {"get_sync"}
"""Verbs that `ChunkStore` must not have: zarr would read by them in place of those that are guarded."""
FUSED = "zarr.core.codec_pipeline.FusedCodecPipeline"
"""The pipeline that zarr 3.3 and later offer beside their default one; named as their documentation does."""


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_") and name not in dir(object)}


def test_every_verb_that_this_version_of_zarr_knows_is_guarded_or_reads_nothing() -> None:
    """A new zarr that fails here reads chunks in a new way, maybe: look at it, and add it to its list."""
    protocols = [getattr(base, name) for name in dir(base) if name.startswith("Supports")]
    found = set().union(*map(public, [Store, *protocols]))
    assert found - GUARDED - DERIVED - HARMLESS - REFUSED == set()


def test_verbs_that_read_are_those_of_the_guard_itself_or_built_on_them() -> None:
    from nucseg_batch.files.zarr.fetch import ReadOnlyStore

    assert ChunkStore.__mro__[:3] == (ChunkStore, ReadOnlyStore, Store)
    own = {**vars(ReadOnlyStore), **vars(ChunkStore)}
    assert own.keys() >= GUARDED
    assert not DERIVED & own.keys()
    assert not any(hasattr(ChunkStore, name) for name in REFUSED)


@pytest.fixture(params=["default", "fused"])
def pipeline(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways in which zarr >= 3.3 decodes."""
    if request.param == "default":
        yield request.param
        return
    if "max_workers" not in zarr.config.get("codec_pipeline"):
        pytest.skip("this zarr has one pipeline")
    with zarr.config.set({"codec_pipeline.path": FUSED}):
        yield request.param


def facts_of(root: Path) -> ArrayFacts:
    return check_array(Node("", "array", 3, {}, json.loads((root / "zarr.json").read_bytes()), 1, 1))


def guarded(root: Path, *, store: Store | None = None) -> ChunkStore:
    """The guard of an array in a folder, which is read through `store` where one is given."""
    return ChunkStore(store or LocalStore(root, read_only=True), facts_of(root), None if store else root)


def read(store: ChunkStore, *where: slice) -> Any:
    array = sync(get_loop(), open_array, store=store, mode="r")
    return sync(get_loop(), read_part, array, where)


BOMB = bytes(numcodecs.Zstd().encode(bytes(30 * 2**20)))


def write_shard(root: Path, chunks: list[bytes], places: list[tuple[int, int]] | None = None) -> None:
    """Replaces the first shard of an array by chunks, one behind the other, with an index at its end."""
    starts = np.cumsum([0, *map(len, chunks[:-1])])
    places = places or [(int(start), len(chunk)) for start, chunk in zip(starts, chunks, strict=True)]
    index = np.array(places, "<u8").tobytes()
    (root / "c/0/0").write_bytes(b"".join(chunks) + bytes(numcodecs.CRC32C(location="end").encode(index)))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """An array of shards of 2 x 2 chunks, compressed."""
    return write_array(tmp_path / "a.zarr", numbers(61, 47), chunks=(10, 10), shards=(20, 20))


def good_chunk() -> bytes:
    return bytes(numcodecs.Zstd(level=0).encode(numbers(10, 10).tobytes()))


async def _listed(ranges: Any) -> list[Any]:
    return [pair async for group in ranges for pair in group]


@pytest.mark.parametrize(
    "verb",
    [
        lambda store, part: store.get("c/0/0", default_buffer_prototype(), part),
        lambda store, part: store.get_partial_values(default_buffer_prototype(), [("c/0/0", part)]),
        lambda store, part: _listed(store.get_ranges("c/0/0", [part], prototype=default_buffer_prototype())),
        lambda store, part: store.exists("c/0/0"),
        lambda store, part: store.getsize("c/0/0"),
    ],
    ids=["get", "get_partial_values", "get_ranges", "exists", "getsize"],
)
def test_each_verb_refuses_a_bomb(sharded: Path, verb: Callable[[ChunkStore, Any], Any]) -> None:
    if "get_ranges" in verb.__code__.co_names and not hasattr(Store, "get_ranges"):
        pytest.skip("this zarr has no get_ranges")
    write_shard(sharded, [good_chunk(), BOMB, good_chunk(), good_chunk()])
    part = RangeByteRequest(len(good_chunk()), len(good_chunk()) + len(BOMB))
    with pytest.raises(ImageError, match="bomb"):
        sync(get_loop(), verb, guarded(sharded), part)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("end", [10, 15, 20])
def test_a_bomb_is_found_wherever_it_lies_in_what_is_read_at_once(
    sharded: Path, pipeline: str, number: int, end: int
) -> None:
    """Zarr >= 3.3 reads neighbouring chunks in one piece, of which only the first would be looked at."""
    chunks = [good_chunk()] * 4
    chunks[number] = BOMB
    write_shard(sharded, chunks)
    asked = number == 0 or (end > 10 and number < 4)
    source = open_zarr(sharded)
    if asked:
        with pytest.raises(ImageError, match="bomb"):
            source.read(0, 0, slice(0, end), slice(0, end))
    else:
        assert (source.read(0, 0, slice(0, end), slice(0, end)) == numbers(10, 10)).all()


@pytest.mark.parametrize(
    "place", [(0, 2**62), (2**62, 5), (3, 10**6), (2**63, 2**63)], ids=["long", "far", "behind the end", "overflow"]
)
@pytest.mark.parametrize("remote", [False, True])
def test_an_index_that_leads_out_of_its_shard_is_refused(
    sharded: Path, pipeline: str, place: tuple[int, int], remote: bool
) -> None:
    write_shard(sharded, [good_chunk()] * 4, [place] * 4)
    store = guarded(sharded, store=LocalStore(sharded, read_only=True) if remote else None)
    with pytest.raises(ImageError, match=r"\A[^\n]+\Z"):
        read(store, slice(0, 7), slice(0, 5))


@pytest.mark.parametrize("size", [1, 100, 150])
def test_a_shard_that_is_cut_is_an_error_in_each_pipeline(sharded: Path, pipeline: str, size: int) -> None:
    file = sharded / "c/0/0"
    file.write_bytes(file.read_bytes()[:-size])
    for end in (5, 15, 20):
        with pytest.raises(ImageError, match=r"\A[^\n]+\Z"):
            open_zarr(sharded).read(0, 0, slice(0, end), slice(0, 20))


def test_a_shard_that_a_link_keeps_elsewhere_is_refused_in_each_pipeline(
    sharded: Path, pipeline: str, tmp_path: Path
) -> None:
    file = sharded / "c/0/0"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    for end in (5, 15, 20):
        with pytest.raises(ImageError, match="link"):
            open_zarr(sharded).read(0, 0, slice(0, end), slice(0, end))


def test_a_shard_of_a_size_that_no_pixels_need_is_refused_in_each_pipeline(sharded: Path, pipeline: str) -> None:
    with open(sharded / "c/0/0", "ab") as file:
        file.truncate(2**20)
    for end in (5, 15, 20):
        with pytest.raises(ImageError, match="at most"):
            open_zarr(sharded).read(0, 0, slice(0, end), slice(0, end))


class Watched(LocalStore):
    """A store as behind a URL, which counts what it is asked for and fails as it is told to."""

    def __init__(self, root: Path, trouble: Callable[[str, Any], Exception | None] = lambda key, part: None) -> None:
        super().__init__(root, read_only=True)
        self.asked: list[tuple[str, str]] = []
        self.trouble = trouble

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        self.asked.append((key, str(byte_range)))
        error = self.trouble(key, byte_range)
        if isinstance(error, FileNotFoundError):
            return None
        if error is not None:
            raise error
        return await super().get(key, prototype, byte_range)


def test_a_request_that_fails_is_made_again_also_of_a_part_of_a_shard(sharded: Path, pipeline: str) -> None:
    seen: set[Any] = set()

    def trouble(key: str, part: Any) -> Exception | None:
        if (key, str(part)) in seen:
            return None
        seen.add((key, str(part)))
        return OSError("the connection was reset")

    store = Watched(sharded, trouble)
    window = read(guarded(sharded, store=store), slice(3, 10), slice(0, 20))
    np.testing.assert_array_equal(window, numbers(61, 47)[3:10, 0:20])
    parts = [asked for asked in store.asked if asked[0] == "c/0/0"]
    assert len(parts) == 2 * len(set(parts)) >= 4


def test_a_request_that_fails_again_and_again_is_an_error(sharded: Path, pipeline: str) -> None:
    store = Watched(sharded, lambda key, part: OSError("reset") if isinstance(part, RangeByteRequest) else None)
    with pytest.raises(OSError, match="reset"):
        read(guarded(sharded, store=store), slice(3, 10), slice(0, 5))


def test_a_shard_that_goes_away_while_it_is_read_is_an_error_and_never_zeros(sharded: Path, pipeline: str) -> None:
    store = Watched(sharded, lambda key, part: FileNotFoundError() if isinstance(part, RangeByteRequest) else None)
    with pytest.raises(ImageError, match="removed"):
        read(guarded(sharded, store=store), slice(3, 10), slice(0, 5))


@pytest.mark.skipif(not hasattr(Store, "get_ranges"), reason="this zarr reads chunk by chunk")
def test_neighbouring_chunks_of_a_shard_are_one_request(sharded: Path, pipeline: str) -> None:
    store = Watched(sharded)
    window = read(guarded(sharded, store=store), slice(3, 10), slice(0, 20))
    np.testing.assert_array_equal(window, numbers(61, 47)[3:10, 0:20])
    assert [key for key, _ in store.asked].count("c/0/0") == 2  # its index, and both chunks


def test_nothing_can_be_written_through_the_guard(sharded: Path) -> None:
    before = (sharded / "c/0/0").read_bytes()
    store = guarded(sharded)
    assert store.read_only
    value = default_buffer_prototype().buffer.from_bytes(b"1")
    with pytest.raises(PermissionError):
        sync(get_loop(), store.set, "c/0/0", value)
    with pytest.raises(PermissionError):
        sync(get_loop(), store.delete, "c/0/0")
    assert (sharded / "c/0/0").read_bytes() == before
