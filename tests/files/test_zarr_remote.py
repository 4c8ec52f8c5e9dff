from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr_examples import Version, numbers, serving, write_array, write_group, write_image, write_plate

from nucseg_batch.errors import InputMissingError
from nucseg_batch.files.zarr.find import find_images
from nucseg_batch.files.zarr.source import open_zarr

VERSIONS: tuple[Version, ...] = ("0.4", "0.5")
WELLS = ("A/1", "A/3", "C/1")


@pytest.mark.parametrize("url", ["gs://bucket/a.zarr", "nonsense://a.zarr"])
def test_a_url_that_cannot_be_opened_says_what_to_do(url: str) -> None:
    pytest.importorskip("fsspec")
    if url.startswith("gs"):
        try:
            import gcsfs  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("needs an environment without gcsfs")
    with pytest.raises(InputMissingError, match=r"nucseg-batch\[remote\]|give a path") as caught:
        find_images(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plate_behind_a_url_is_found_with_few_requests_and_read(tmp_path: Path, version: Version) -> None:
    """Each request is a round trip: none is made for what the metadata already say."""
    pytest.importorskip("aiohttp", reason="http needs aiohttp")
    pixels = numbers(23, 29)
    write_plate(tmp_path / "p.zarr", WELLS, 2, pixels, "yx", version=version)
    with serving(tmp_path) as server:
        content = find_images(f"{server.url}/p.zarr")
        assert [image.path for image in content.images] == [f"{well}/{number}" for well in WELLS for number in (0, 1)]
        groups, arrays = len(WELLS) * 3, len(WELLS) * 2
        files = groups + arrays if version == "0.5" else 2 * groups + arrays
        assert len(server.asked) <= files + 10
        source = open_zarr(f"{server.url}/p.zarr/", "C/1/1")
        assert source.header == content.images[-1].header
        np.testing.assert_array_equal(source.read(0, 0, slice(3, 20), slice(5, 29)), pixels[3:20, 5:29])
        assert source.missing_chunks() is None


def test_a_web_server_that_knows_no_ranges_of_bytes_serves_shards_all_the_same(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="http needs aiohttp")
    pixels = numbers(61, 67)
    write_array(tmp_path / "s.zarr", pixels, chunks=(8, 8), shards=(32, 32))
    with serving(tmp_path) as server:
        source = open_zarr(f"{server.url}/s.zarr")
        np.testing.assert_array_equal(source.read(0, 0, slice(3, 10), slice(30, 50)), pixels[3:10, 30:50])


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_web_server_cannot_list_is_found_through_consolidated_metadata(tmp_path: Path, version: Version) -> None:
    pytest.importorskip("aiohttp", reason="http needs aiohttp")
    root = write_group(tmp_path / "h.zarr", version=version)
    write_group(root / "deep", version=version)
    write_array(root / "deep" / "plain", numbers(17, 19), version=version)
    with serving(tmp_path) as server:
        (trouble,) = find_images(f"{server.url}/h.zarr").troubles
        assert "cannot be listed" in trouble.message
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr warns that format 3 has no standard for it yet
            zarr.consolidate_metadata(root)
        content = find_images(f"{server.url}/h.zarr")
        assert [image.path for image in content.images] == ["deep/plain"]
        assert content.images[0].header == open_zarr(f"{server.url}/h.zarr", "deep/plain").header


def test_numbered_series_are_found_behind_a_url_that_cannot_be_listed(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="http needs aiohttp")
    root = write_group(tmp_path / "c.zarr", {"bioformats2raw.layout": 3}, version="0.4")
    for number in range(17):
        write_image(root / str(number), numbers(5, 7), "yx", version="0.4")
    with serving(tmp_path) as server:
        assert len(find_images(f"{server.url}/c.zarr").images) == 17


def test_a_url_with_nothing_behind_it_is_an_error_of_the_input(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="http needs aiohttp")
    with serving(tmp_path) as server:
        url = server.url
        with pytest.raises(InputMissingError, match="no zarr group or array"):
            find_images(f"{url}/nothing.zarr")
    with pytest.raises(InputMissingError, match="cannot be read") as caught:
        find_images(f"{url}/nothing.zarr")
    assert "\n" not in str(caught.value)
