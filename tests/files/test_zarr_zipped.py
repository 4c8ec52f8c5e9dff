"""Zarr stores in zip archives: the images of the folder that was packed, with the guards that a folder has."""

from __future__ import annotations

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr_examples import Version, numbers, write_image, write_plate

from nucseg_batch.cli.progress import RunProgress
from nucseg_batch.errors import ImageError, NothingToDoError, UsageError
from nucseg_batch.executors.job import prepare
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.header_scan import HeaderScan, scan_headers
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.files.zarr.source import ZarrSource, open_zarr
from nucseg_batch.plan import Plane
from nucseg_batch.settings import SegmentSettings

PIXELS = numbers(3, 47, 61)


def packed(folder: Path, archive: Path, *, compression: int = zipfile.ZIP_STORED, inside: str = "") -> Path:
    """A zip archive of a folder, as `zip -r` makes it."""
    with zipfile.ZipFile(archive, "w", compression) as file:
        for place, _, names in os.walk(folder):
            for name in names:
                path = Path(place, name)
                file.write(path, (Path(inside) / path.relative_to(folder)).as_posix())
    return archive


def image(folder: Path, version: Version = "0.5") -> Path:
    return write_image(folder / "plain.zarr", PIXELS, "zyx", version=version)


def whole(source: ZarrSource, z: int) -> np.ndarray:
    return source.read(0, z, slice(0, 47), slice(0, 61))


def planes(place: Path) -> list[np.ndarray]:
    return [whole(open_zarr(place), z) for z in range(3)]


def found(place: Path) -> HeaderScan:
    return scan_headers(discover(str(place)), SegmentSettings(), lambda _: None)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_reads_as_the_folder_that_was_packed(tmp_path: Path, version: Version, compression: int) -> None:
    archive = packed(image(tmp_path, version), tmp_path / "a.ozx", compression=compression)
    source = open_zarr(archive)
    assert source.header.axes == "ZYX"
    for z in range(3):
        np.testing.assert_array_equal(whole(source, z), PIXELS[z])
    np.testing.assert_array_equal(source.read(0, 1, slice(5, 30), slice(11, 61)), PIXELS[1, 5:30, 11:61])
    assert source.header.mtime_ns == archive.stat().st_mtime_ns


def test_shards_in_an_archive_are_read_in_parts(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "s.zarr", data=PIXELS[0], shards=(26, 39), chunks=(13, 13))
    source = open_zarr(packed(tmp_path / "s.zarr", tmp_path / "s.zarr.zip"))
    np.testing.assert_array_equal(source.read(0, 0, slice(0, 47), slice(0, 61)), PIXELS[0])
    np.testing.assert_array_equal(source.read(0, 0, slice(14, 20), slice(14, 20)), PIXELS[0, 14:20, 14:20])


@pytest.mark.parametrize("name", ["a.ozx", "a.zarr.zip", "A.OZX"])
def test_archives_in_a_folder_are_found_and_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    packed(image(tmp_path), folder / name)
    (tmp_path / "in" / "other.zip").write_bytes((folder / name).read_bytes())
    scan = found(tmp_path / "in")
    (info,) = scan.images
    assert info.key == f"deep/{name}"
    assert scan.found.skipped == {"file that is no image": 1}
    with ImageReader(tmp_path / "in", SegmentSettings()) as images:
        np.testing.assert_array_equal(images.read(Plane(info, z=2)), PIXELS[2])


def test_a_plate_in_an_archive_keeps_its_wells(tmp_path: Path) -> None:
    write_plate(tmp_path / "plate.zarr", ["A/1", "B/3"], 2, PIXELS[2], "yx")
    folder = tmp_path / "in"
    folder.mkdir()
    packed(tmp_path / "plate.zarr", folder / "plate.ozx")
    for place, before in ((folder, "plate.ozx/"), (folder / "plate.ozx", "")):
        scan = found(place)
        assert [info.key for info in scan.images] == [f"{before}{well}/{i}" for well in ("A/1", "B/3") for i in (0, 1)]
        with ImageReader(scan.found.root, SegmentSettings()) as images:
            np.testing.assert_array_equal(images.read(Plane(scan.images[2])), PIXELS[2])


def test_a_folder_that_was_packed_with_its_name_is_found_below_it(tmp_path: Path) -> None:
    archive = packed(image(tmp_path), tmp_path / "a.ozx", inside="plain.zarr")
    (info,) = found(archive).images
    assert info.key == "plain.zarr"
    np.testing.assert_array_equal(whole(open_zarr(archive, info.group or ""), 1), PIXELS[1])


def test_a_zip_that_is_given_by_name_is_read(tmp_path: Path) -> None:
    archive = packed(image(tmp_path), tmp_path / "a.zip")
    assert len(found(archive).images) == 1


def test_threads_read_one_archive_at_once(tmp_path: Path) -> None:
    archive = packed(image(tmp_path), tmp_path / "a.ozx", compression=zipfile.ZIP_DEFLATED)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: whole(open_zarr(archive), i % 3), range(24)))
    for number, plane in enumerate(read):
        np.testing.assert_array_equal(plane, PIXELS[number % 3])


def test_an_archive_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    archive = packed(image(tmp_path), tmp_path / "a.ozx")
    before = open_zarr(archive).header
    write_image(tmp_path / "other.zarr", PIXELS[:, ::-1], "zyx")
    packed(tmp_path / "other.zarr", archive)
    os.utime(archive, ns=(1, before.mtime_ns + 10**9))
    after = open_zarr(archive)
    assert after.header.mtime_ns != before.mtime_ns
    np.testing.assert_array_equal(whole(after, 0), PIXELS[0, ::-1])


def chunk(archive: Path) -> zipfile.ZipInfo:
    with zipfile.ZipFile(archive) as file:
        return next(info for info in file.infolist() if "/c/" in info.filename)


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_cut_archive_is_refused(tmp_path: Path, share: float) -> None:
    archive = packed(image(tmp_path), tmp_path / "a.ozx")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(NothingToDoError, match="damaged or truncated"):
        discover(str(archive))
    (tmp_path / "plain.zarr").rename(tmp_path / "b.zarr")
    (failure,) = found(tmp_path).failures
    assert failure.image == "a.ozx"


def test_a_flipped_bit_in_a_chunk_is_noticed(tmp_path: Path) -> None:
    """An archive has a checksum of each of its files, which a folder has not."""
    archive = packed(image(tmp_path), tmp_path / "a.ozx")
    info, content = chunk(archive), bytearray(archive.read_bytes())
    content[info.header_offset + 30 + len(info.filename) + info.file_size // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ImageError, match="CRC"):
        planes(archive)


def test_a_chunk_that_would_unpack_to_far_more_than_its_pixels_is_refused(tmp_path: Path) -> None:
    archive = packed(image(tmp_path), tmp_path / "a.ozx")
    name = chunk(archive).filename
    bomb = tmp_path / "b.ozx"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, bytes(50_000_000) if info.filename == name else old.read(info))
    assert bomb.stat().st_size < 10**6
    with pytest.raises(ImageError, match="50000000 bytes, where at most"):
        planes(bomb)


def test_metadata_that_would_unpack_to_too_much_are_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "b.ozx"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("zarr.json", b" " * (2**26 + 1))
    with pytest.raises(NothingToDoError, match="more than any metadata needs"):
        discover(str(bomb))


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    archive = packed(image(tmp_path), tmp_path / "a.ozx")
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(NothingToDoError, match="encrypted"):
        discover(str(archive))


def test_an_archive_without_a_store_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ozx", "w") as file:
        file.writestr("readme.txt", "nothing")
    with pytest.raises(NothingToDoError, match="holds no image"):
        discover(str(tmp_path / "a.ozx"))


def test_labels_are_not_written_into_an_archive(tmp_path: Path) -> None:
    archive = packed(image(tmp_path), tmp_path / "a.ozx")
    with pytest.raises(UsageError, match="cannot be changed"):
        prepare(archive, archive, None, SegmentSettings(), RunProgress(), in_place=True)
