"""Small planes of a local store are read in one call, each chunk once; what is damaged fails alone."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from zarr_examples import numbers, write_image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr import source as zarr_source
from nucseg_batch.files.zarr.fetch import FetchStore, is_metadata
from nucseg_batch.files.zarr.source import ZarrSource, open_zarr

AHEAD = 3 * 23 * 29 * 2
"""Bytes of three planes of (23, 29) uint16."""


def whole(source: ZarrSource, t: int = 0, z: int = 0) -> NDArray[Any]:
    return source.read(t, z, slice(0, source.header.length("Y")), slice(0, source.header.length("X")))


@pytest.fixture
def three_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_source, "AHEAD_BYTES", AHEAD)


def opened_chunks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the chunk files that are opened from now on."""
    opened: list[str] = []
    read = FetchStore._read

    def noted(self: FetchStore, key: str, *rest: Any) -> bytes | None:
        if not is_metadata(key):
            opened.append(key)
        return read(self, key, *rest)

    monkeypatch.setattr(FetchStore, "_read", noted)
    return opened


@pytest.mark.usefixtures("three_ahead")
@pytest.mark.parametrize(("axes", "lengths"), [("tyx", (7,)), ("tzyx", (4, 2)), ("tzyx", (2, 5)), ("ztyx", (5, 2))])
def test_small_planes_are_read_ahead_and_each_chunk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: str, lengths: tuple[int, ...]
) -> None:
    pixels = numbers(*lengths, 23, 29)
    chunks = (1,) * len(lengths) + (13, 29)
    source = open_zarr(write_image(tmp_path / "a.zarr", pixels, axes, chunks=chunks))
    opened = opened_chunks(monkeypatch)
    expected = pixels.swapaxes(0, 1) if axes == "ztyx" else pixels.reshape(lengths[0], -1, 23, 29)
    places = list(itertools.product(range(source.header.length("T")), range(source.header.length("Z"))))
    np.testing.assert_array_equal(whole(source), expected[0, 0])
    assert len(opened) > 2
    for t, z in places:
        np.testing.assert_array_equal(whole(source, t, z), expected[t, z])
    assert sorted(opened) == sorted(set(opened))
    assert len(opened) == 2 * len(places)


@pytest.mark.usefixtures("three_ahead")
def test_threads_that_read_planes_of_the_same_chunks_decode_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = numbers(12, 23, 29)
    opened = opened_chunks(monkeypatch)
    for chunks in ((1, 23, 29), (4, 23, 29)):
        opened.clear()
        source = open_zarr(write_image(tmp_path / f"{chunks[0]}.zarr", pixels, "tyx", chunks=chunks))
        with ThreadPoolExecutor(4) as pool:
            for plane, expected in zip(pool.map(lambda t, one=source: whole(one, t), range(12)), pixels, strict=True):
                np.testing.assert_array_equal(plane, expected)
        assert len(opened) == 12 // chunks[0]


@pytest.mark.usefixtures("three_ahead")
def test_windows_of_a_plane_are_not_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = numbers(5, 23, 29)
    source = open_zarr(write_image(tmp_path / "a.zarr", pixels, "tyx", chunks=(1, 23, 29)))
    opened = opened_chunks(monkeypatch)
    np.testing.assert_array_equal(source.read(1, 0, slice(2, 19), slice(0, 29)), pixels[1, 2:19])
    assert len(opened) == 1


@pytest.mark.usefixtures("three_ahead")
def test_a_damaged_chunk_fails_its_own_plane_alone(tmp_path: Path) -> None:
    pixels = numbers(7, 23, 29)
    root = write_image(tmp_path / "a.zarr", pixels, "tyx", chunks=(1, 23, 29))
    (root / "0" / "c" / "1" / "0" / "0").write_bytes(b"")
    source = open_zarr(root)
    for t in (0, 2, 3, 6):
        np.testing.assert_array_equal(whole(source, t), pixels[t])
    for _ in range(2):
        with pytest.raises(ImageError, match="chunk 0/c/1/0/0 is empty"):
            whole(source, 1)
