"""Flat fields that are given as files, and those in a run folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg_batch.errors import InputMissingError, OutputError, UsageError
from nucseg_batch.files.flat_field_file import field_shape, read_flat_field
from nucseg_batch.files.flat_fields import INDEX, GivenFields, listed_flat_fields, read_flat_fields, write_flat_fields
from nucseg_batch.plan import FieldShape, ImageInfo

SHAPE = (23, 31)
RANDOM = np.random.default_rng(11)
FIELD = RANDOM.uniform(0.5, 1.5, SHAPE).astype(np.float32)
ALL = slice(0, SHAPE[0]), slice(0, SHAPE[1])
INFO = ImageInfo("a.tif", 1, 1, *SHAPE, channels=1, dtype="uint16")


@pytest.mark.parametrize("suffix", ["npy", "tif", "png"])
def test_a_field_is_read_from_an_array_or_an_image_and_has_mean_1(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"field.{suffix}"
    values = FIELD if suffix != "png" else (FIELD * 1000).astype(np.uint16)
    if suffix == "npy":
        np.save(path, values)
    elif suffix == "tif":
        tifffile.imwrite(path, values)
    else:
        Image.fromarray(values).save(path)
    field = read_flat_field(path, 10_000)
    assert field_shape(field) == FieldShape(*SHAPE)
    np.testing.assert_allclose(field, values / values.mean(dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("kind", ["pages", "channels", "colours", "array"])
def test_planes_of_a_field_are_its_channels_and_each_has_mean_1(tmp_path: Path, kind: str) -> None:
    planes = np.stack([FIELD, FIELD[::-1] * 3, FIELD[:, ::-1] * 7])
    path = tmp_path / ("field.npy" if kind == "array" else "field.ome.tif" if kind == "channels" else "field.tif")
    if kind == "array":
        np.save(path, planes)
    elif kind == "pages":
        tifffile.imwrite(path, planes, photometric="minisblack")
    elif kind == "channels":
        tifffile.imwrite(path, planes, metadata={"axes": "CYX"}, ome=True)
    else:
        planes = (planes * 30).clip(1, 255).astype(np.uint8)
        tifffile.imwrite(path, np.moveaxis(planes, 0, -1), photometric="rgb")
    field = read_flat_field(path, 10_000)
    assert field_shape(field) == FieldShape(*SHAPE, 3)
    np.testing.assert_allclose(field, planes / planes.mean(axis=(1, 2), dtype=np.float64, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.where(FIELD > 1.4, 0, FIELD), "all values must be above 0, but the lowest is 0;"),
        (
            np.where(FIELD > 1.4, np.nan, FIELD),
            f"{(FIELD > 1.4).sum()} of its {FIELD.size} values are NaN or infinite;",
        ),
        (np.where(FIELD > 1.4, np.inf, FIELD), "are NaN or infinite;"),
        (np.ones((2, 3, 4, 5)), "must be numbers with the axes yx or cyx, but is float64 of shape 2 x 3 x 4 x 5"),
        (np.ones((0, 5)), "of shape 0 x 5"),
        (FIELD.astype(str), "must be numbers"),
    ],
    ids=["zero", "nan", "infinite", "axes", "empty", "text"],
)
def test_a_field_that_cannot_be_divided_by_is_refused(tmp_path: Path, values: np.ndarray, told: str) -> None:
    path = tmp_path / "field.npy"
    np.save(path, values)
    with pytest.raises(UsageError, match=f"--flatfield .*field.npy: .*{told}"):
        read_flat_field(path, 10_000)


def test_a_file_that_is_missing_or_damaged_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="there is no such file; give an image, or `estimate`"):
        read_flat_field(tmp_path / "none.tif", 10_000)
    with pytest.raises(InputMissingError, match=r"it is a folder; give an image, a \.npy file, or `estimate`"):
        read_flat_field(tmp_path, 10_000)
    for name, content in (("cut.npy", b"no array"), ("empty.npy", b""), ("cut.tif", b"II*\0no image")):
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with open(tmp_path / "archive.npy", "wb") as file:
        np.savez(file, FIELD)
    for name, reason in (
        ("cut.npy", "it is damaged, or no array of numbers; write it again with numpy.save."),
        ("objects.npy", "it is damaged, or no array of numbers; write it again with numpy.save."),
        ("archive.npy", "it is an archive of arrays; save one array with numpy.save."),
        ("empty.npy", "the file is empty."),
        ("cut.tif", ""),
    ):
        with pytest.raises(UsageError, match=f"{name}: {reason}") as told:
            read_flat_field(tmp_path / name, 10_000)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pixels_are_divided_by_the_field_of_their_channel(tmp_path: Path, dtype: str) -> None:
    """By name or number; of colour pictures and of grey ones; a channel without a field stays as it is."""
    fields: list[GivenFields] = [
        (SHAPE, "DAPI", 9, FIELD),
        (SHAPE, 0, 0, FIELD * 2),
        (SHAPE, "green", 9, FIELD * 3),
        (SHAPE, "", 9, FIELD),
    ]
    pixels = RANDOM.integers(0, 255, (3, *SHAPE)).astype(dtype)
    write_flat_fields(tmp_path, fields[:1])
    found = read_flat_fields(tmp_path)
    assert found is not None
    channels = dataclasses.replace(INFO, names=("GFP", "DAPI", "x"), dtype=dtype)
    corrected = found.corrected(pixels, channels, *ALL)
    assert corrected.dtype == np.float32
    for one, expected in zip(corrected, (pixels[0], pixels[1] / FIELD, pixels[2]), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-6)
    write_flat_fields(tmp_path, fields[1:])
    found = read_flat_fields(tmp_path)
    assert found is not None
    expected = np.stack([pixels[0] / (FIELD * 2), pixels[1] / (FIELD * 3), pixels[2]], axis=-1)
    colours = np.moveaxis(pixels, 0, -1)
    np.testing.assert_allclose(
        found.corrected(colours, dataclasses.replace(INFO, channels=3), *ALL), expected, rtol=1e-6
    )


def test_a_window_is_corrected_as_it_is_in_the_whole_plane(tmp_path: Path) -> None:
    write_flat_fields(tmp_path, [(SHAPE, None, 0, FIELD)])
    found = read_flat_fields(tmp_path)
    assert found is not None
    pixels = RANDOM.integers(0, 60000, SHAPE).astype(np.uint16)
    whole = found.corrected(pixels, INFO, *ALL)
    window = slice(3, 17), slice(11, 30)
    np.testing.assert_array_equal(found.corrected(pixels[window], INFO, *window), whole[window])


def test_fields_that_changed_or_are_gone_are_damage_and_none_is_no_damage(tmp_path: Path) -> None:
    assert read_flat_fields(tmp_path) is None
    write_flat_fields(tmp_path, [(SHAPE, "", 9, FIELD), (SHAPE, "x", 9, FIELD * 2)])
    listed = listed_flat_fields(tmp_path)
    assert listed is not None
    assert [(one.channel, one.planes, one.highest) for one in listed] == [
        ("", 9, float(FIELD.max())),
        ("x", 9, float(FIELD.max() * 2)),
    ]
    (tmp_path / "flatfield" / "1.npy").write_bytes((tmp_path / "flatfield" / "0.npy").read_bytes())
    with pytest.raises(OutputError, match=r"1\.npy: it is missing or damaged.*--overwrite"):
        read_flat_fields(tmp_path)
    (tmp_path / "flatfield" / INDEX).write_text("[{")
    with pytest.raises(OutputError, match=INDEX):
        read_flat_fields(tmp_path)
