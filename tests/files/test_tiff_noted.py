"""TIFFs that differ in nothing but their pixels are parsed once; whatever else differs is found all the same."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import open_file
from nucseg_batch.files.source import Header
from nucseg_batch.files.tiff import image
from nucseg_batch.files.tiff.file import OpenTiff
from nucseg_batch.files.tiff.noted import MISSES, SOME, KnownHeaders, NotedFile

SHAPE = (61, 67)
Writer = Callable[[Path, NDArray[Any]], object]


def of_tifffile(path: Path, pixels: NDArray[Any]) -> None:
    tifffile.imwrite(path, pixels)


def of_imagej(path: Path, pixels: NDArray[Any]) -> None:
    tifffile.imwrite(path, pixels, imagej=True, resolution=(2.0, 2.0), metadata={"unit": "um"})


def of_strips(path: Path, pixels: NDArray[Any]) -> None:
    tifffile.imwrite(path, pixels, rowsperstrip=7, metadata=None, byteorder=">")


def of_white(path: Path, pixels: NDArray[Any]) -> None:
    tifffile.imwrite(path, pixels, photometric="miniswhite", metadata=None)


def of_pillow(path: Path, pixels: NDArray[Any]) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(path)


WRITERS: tuple[Writer, ...] = (of_tifffile, of_imagej, of_strips, of_white, of_pillow)


@pytest.fixture
def noted() -> list[str]:
    """Names of the files of which it is noted what is read, in a test."""
    return []


@pytest.fixture(autouse=True)
def parsed(monkeypatch: pytest.MonkeyPatch, noted: list[str]) -> list[str]:
    """Names of the files that are parsed in a test, of which no header is known when it begins."""
    names: list[str] = []

    class Counted(OpenTiff):
        def __init__(self, path: Path, *, noting: bool = False) -> None:
            names.append(path.name)
            noted.extend([path.name] if noting else [])
            super().__init__(path, noting=noting)

    monkeypatch.setattr(image, "OpenTiff", Counted)
    monkeypatch.setattr(image, "_KNOWN", KnownHeaders())
    return names


def made(seed: int) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 250, SHAPE).astype(np.uint16)


def opened(path: Path) -> tuple[Header, NDArray[Any]] | str:
    """Header and pixels of a file, or what is wrong with it."""
    try:
        source = open_file(path, max_pixels=10**6)
        header = source.header
        return header, source.read(0, 0, slice(0, header.length("Y")), slice(0, header.length("X")))
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize("write", WRITERS)
def test_files_that_differ_in_pixels_alone_are_parsed_once(tmp_path: Path, write: Writer, parsed: list[str]) -> None:
    for number in range(5):
        write(tmp_path / f"{number}.tif", made(number))
        os.utime(tmp_path / f"{number}.tif", (number, number))
    with ThreadPoolExecutor(1) as pool:
        found = list(pool.map(opened, sorted(tmp_path.iterdir())))
    assert parsed == ["0.tif"]
    for number, one in enumerate(found):
        assert not isinstance(one, str), one
        header, pixels = one
        expected = 65535 - made(number) if write is of_white else made(number)
        np.testing.assert_array_equal(pixels, expected)
        assert header.mtime_ns == number * 10**9
        assert (header.pixel_size == 0.5) is (write is of_imagej)


@pytest.mark.parametrize("write", WRITERS)
def test_a_byte_that_differs_is_seen_as_in_a_file_by_itself(
    tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, path = tmp_path / "good.tif", tmp_path / "changed.tif"
    write(good, made(0))
    content = good.read_bytes()
    rng = random.Random(write.__name__)
    for place in rng.sample(range(350), 120):
        changed = bytearray(content)
        changed[place] ^= rng.choice((1, 0x10, 0xFF))
        path.write_bytes(changed)
        os.utime(path, (1, 1))
        opened(good)
        after = opened(path)
        with monkeypatch.context() as alone:
            alone.setattr(image, "_KNOWN", KnownHeaders())
            by_itself = opened(path)
        if isinstance(after, str) or isinstance(by_itself, str):
            assert after == by_itself
        else:
            assert after[0] == by_itself[0]
            np.testing.assert_array_equal(after[1], by_itself[1])


def test_a_file_that_is_cut_or_longer_is_parsed(tmp_path: Path, parsed: list[str]) -> None:
    for name in ("a", "cut", "longer"):
        of_tifffile(tmp_path / f"{name}.tif", made(1))
    os.truncate(tmp_path / "cut.tif", 5000)
    with (tmp_path / "longer.tif").open("ab") as file:
        file.write(b"\0")
    found = [opened(tmp_path / f"{name}.tif") for name in ("a", "cut", "longer")]
    assert parsed == ["a.tif", "cut.tif", "longer.tif"]
    assert found[1] == "the TIFF is truncated: pixel data lies beyond the end of the file."


def test_files_whose_names_or_other_pages_count_are_parsed_each(tmp_path: Path, parsed: list[str]) -> None:
    for number in range(2):
        tifffile.imwrite(tmp_path / f"{number}.ome.tif", made(number))
        tifffile.imwrite(
            tmp_path / f"{number}-pages.tif",
            np.stack([made(number)] * 3),
            photometric="minisblack",
            metadata={"axes": "ZYX"},
        )
        tifffile.imwrite(tmp_path / f"{number}-big.tif", made(number), bigtiff=True)
    for path in sorted(tmp_path.iterdir()):
        assert not isinstance(opened(path), str)
    assert sorted(set(parsed)) == sorted(path.name for path in tmp_path.iterdir())


def test_files_that_all_differ_are_looked_up_rarely_until_some_are_alike(
    tmp_path: Path, parsed: list[str], noted: list[str]
) -> None:
    for number in range(40):
        path = tmp_path / f"{number:02}.tif"
        tifffile.imwrite(path, made(0), metadata=None, description=f"{number:02}")
        assert not isinstance(opened(path), str)
    assert len(parsed) == 40
    assert noted == [f"{number:02}.tif" for number in (*range(MISSES + 1), MISSES + SOME)]
    parsed.clear()
    for _ in range(3 * SOME):
        assert not isinstance(opened(tmp_path / noted[-1]), str)
    assert len(parsed) < SOME


def test_axes_that_are_given_count(tmp_path: Path) -> None:
    for name in "ab":
        of_tifffile(tmp_path / f"{name}.tif", made(0))
    for axes in (None, "ZYX", None, "YX"):
        for name in "ab":
            source = open_file(tmp_path / f"{name}.tif", max_pixels=10**6, axes=axes)
            assert source.header.unused_axes is (axes == "ZYX")


def test_what_is_read_is_noted_once_and_joined(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    with NotedFile(tmp_path / "a") as file:
        file.seek(10)
        assert file.read(5) == bytes(range(10, 15))
        assert file.readinto(bytearray(7)) == 7
        file.seek(-3, os.SEEK_END)
        assert file.read(9) == bytes((97, 98, 99))
        file.note(8, 4)
        assert file.noted == ((8, bytes(range(8, 22))), (97, bytes((97, 98, 99))))
        file.note(0, 1)
        file._bytes = 10**6
        assert file.noted is None
