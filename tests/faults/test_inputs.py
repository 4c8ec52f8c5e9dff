"""Rows 22 to 32 of the fault matrix through the whole program: what is odd but right has a mask of its name."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from faults.harness import FIXED, call, digest, image_folder, nuclei, rows
from PIL import Image

import nucseg_batch


def odd_images(folder: Path) -> dict[str, tuple[int, int]]:
    """Writes images of odd kinds and shapes, all of which can be used; height and width by name."""
    grey = nuclei((64, 96))
    colour = np.dstack([grey, grey[::-1], grey[:, ::-1]])
    holes = grey.astype(np.float32)
    holes[:9, :9], holes[30, 40], holes[31, 41] = np.nan, np.inf, -np.inf
    images: dict[str, Any] = {
        "f64.tif": grey / 3.0,
        "float_with_holes.tif": holes,
        "i16.tif": grey.astype(np.int16) - 128,
        "i8.tif": (grey.astype(np.int16) - 128).astype(np.int8),
        "u32.tif": grey.astype(np.uint32) << 23,
        "bool.tif": grey > 100,
        "flat.tif": np.full((64, 96), 9, np.uint16),
        "black.tif": np.zeros((64, 96), np.uint8),
        "saturated.tif": np.full((64, 96), 65535, np.uint16),
        "one_pixel.tif": grey[:1, :1],
        "row.tif": grey[20:21],
        "column.tif": np.ascontiguousarray(grey[:, 20:21]),
        "5x7.tif": grey[18:23, 17:24],
        "33x47.tif": grey[:33, :47],
        "3x96.tif": grey[:3],
    }
    for name, pixels in images.items():
        tifffile.imwrite(folder / name, pixels)
    pictures = {
        "rgba.png": Image.fromarray(np.dstack([colour, grey]), mode="RGBA"),
        "grey_alpha.png": Image.fromarray(np.dstack([grey, grey]), mode="LA"),
        "palette.png": Image.fromarray(colour).quantize(16),
        "bit.png": Image.fromarray(grey > 100),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    tifffile.imwrite(folder / "white_is_zero.tif", 255 - grey, photometric="miniswhite")
    return {name: pixels.shape[:2] for name, pixels in images.items()} | dict.fromkeys(
        [*pictures, "white_is_zero.tif"], (64, 96)
    )


def test_odd_images_get_masks_of_their_own_shape(tmp_path: Path) -> None:
    """Rows 23, 24, 26, 27: with the default model; what shows nothing has no nuclei, and is no failure."""
    folder, store = tmp_path / "in", tmp_path / "out.zarr"
    folder.mkdir()
    shapes = odd_images(folder)
    call("segment", folder, store, *FIXED)
    masks = nucseg_batch.open_masks(store)
    assert {name: mask.shape for name, mask in masks.items()} == shapes
    found = {row["image"]: row for row in rows(store, "images")}
    assert {name: int(row["nuclei"]) for name, row in found.items()} == {
        name: int(masks[name].max()) for name in shapes
    }
    assert [found[name]["nuclei"] for name in ("flat.tif", "black.tif", "saturated.tif", "one_pixel.tif")] == ["0"] * 4
    alike = ["f64.tif", "i16.tif", "i8.tif", "u32.tif", "grey_alpha.png", "white_is_zero.tif"]
    assert masks[alike[0]].max() == 3
    for name in alike:  # the same picture in other numbers
        np.testing.assert_array_equal(masks[name] > 0, masks[alike[0]] > 0, err_msg=name)


def test_a_hole_in_a_stored_image_is_told_where_it_can_be(tiny: Path, tmp_path: Path) -> None:
    """Rows 22, 26 and 27: a tile that was never written, no finite pixel, no pixel at all."""
    folder, store = image_folder(tmp_path / "in", 2), tmp_path / "out.zarr"
    tifffile.imwrite(folder / "nan.tif", np.full((64, 96), np.nan, np.float32))
    tifffile.imwrite(folder / "sparse.tif", nuclei((64, 96)), tile=(32, 32))
    with tifffile.TiffFile(folder / "sparse.tif") as file:
        offsets = file.pages.first.tags["TileOffsets"]
        place, size = offsets.valueoffset, 4
    content = bytearray((folder / "sparse.tif").read_bytes())
    content[place : place + size] = bytes(size)
    (folder / "sparse.tif").write_bytes(content)
    call("segment", folder, store, "--model", tiny, *FIXED, code=3)
    failed = {row["image"]: row["message"] for row in rows(store, "failures")}
    assert failed.keys() == {"nan.tif", "sparse.tif"}
    assert "offset 0" in failed["sparse.tif"]


NAMES = [
    *("a b.png", "a\nb.png", "a\tb.png", "a\"b',c.png", "=1+1.png", "+1.png", "-rf.png", "@list.png", "😀.png"),
    *("%41.png", "A.png", "x..%2f..%2fa.png", "x/y.png", "x_y.png", "zarr.json.png", "c.png", "n" * 251 + ".png"),
    *("a.png", "a.tif", "é.png", unicodedata.normalize("NFD", "é.png"), os.fsdecode(b"\xff\xfe.png"), "labels.png"),
]


def test_every_name_finds_its_own_mask(tiny: Path, tmp_path: Path) -> None:
    """Rows 29 and 30: each image has nuclei of its own, so that a mask under another's name would be seen."""
    folder, store = tmp_path / "in", tmp_path / "out.zarr"
    (folder / "x").mkdir(parents=True)
    numbered = image_folder(tmp_path / "numbered", len(NAMES))
    for number, name in enumerate(NAMES):
        shutil.copy(numbered / f"{number}.png", folder / name)
    call("segment", folder, store, "--model", tiny, *FIXED)
    call("segment", numbered, tmp_path / "numbered.zarr", "--model", tiny, *FIXED)
    masks, expected = nucseg_batch.open_masks(store), nucseg_batch.open_masks(tmp_path / "numbered.zarr")
    assert set(masks) == set(NAMES)
    for number, name in enumerate(NAMES):
        np.testing.assert_array_equal(masks[name], expected[f"{number}.png"], err_msg=repr(name))
    assert len({mask[...].tobytes() for mask in masks.values()}) == len(NAMES)
    table = store.with_suffix(".images.csv").read_bytes().decode("utf-8")
    assert len(rows(store, "images")) == len({row["image"] for row in rows(store, "images")}) == len(NAMES)
    assert "\r" not in table
    for name in ("a\nb.png", "a\"b',c.png", "é.png", "😀.png"):
        assert name in {row["image"] for row in rows(store, "images")}
    before = digest(store)
    assert "everything was done already" in call("segment", folder, store, "--model", tiny, *FIXED).output
    assert digest(store) == before


def test_names_of_failures_parse_back_too(tiny: Path, tmp_path: Path) -> None:
    """Row 30: the table that people open first must not be broken by the file that it is about."""
    folder, store = image_folder(tmp_path / "in", 1), tmp_path / "out.zarr"
    bad = [name for name in NAMES if "/" not in name and not name.startswith("n")]
    for name in bad:
        (folder / name).write_bytes(b"no image")
    done = call("segment", folder, store, "--model", tiny, *FIXED, code=3)
    assert len(rows(store, "failures")) == len(bad)
    assert {name for name in bad if name.isascii() and "%" not in name} <= {
        row["image"] for row in rows(store, "failures")
    }
    assert done.noise <= 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "no image was found"),
        ({"notes.txt": b"x", "table.csv": b"1"}, "skipped: 2 x file that is no image"),
        ({"a.png": b"", "b.tif": b"II*\0", "c.jpg": b"\xff\xd8\xff"}, "none of its 3 images can be used"),
    ],
    ids=["nothing", "no images", "bad images"],
)
def test_an_input_of_which_nothing_can_be_used_is_told_with_counts(
    tmp_path: Path, content: dict[str, bytes], words: str
) -> None:
    """Row 32: 65 each, and no output is begun."""
    (tmp_path / "in").mkdir()
    for name, data in content.items():
        (tmp_path / "in" / name).write_bytes(data)
    assert words in call("segment", tmp_path / "in", tmp_path / "out.zarr", code=65).refusal
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_sockets_pipes_devices_and_links_are_told_and_never_waited_for(tiny: Path, tmp_path: Path) -> None:
    """Row 31: through the program, with a limit of pytest's to end what hangs."""
    folder = image_folder(tmp_path / "in", 2)
    os.mkfifo(folder / "pipe.tif")
    os.symlink("/dev/zero", folder / "zero.png")
    os.symlink(".", folder / "loop")
    os.symlink("nowhere.png", folder / "dangling.png")
    shutil.copy(folder / "0.png", tmp_path / "outside.png")
    os.symlink(tmp_path / "outside.png", folder / "out.png")
    os.symlink("0.png", folder / "inside.png")
    done = call("segment", folder, tmp_path / "out.zarr", "--model", tiny, *FIXED)
    (told,) = [line for line in done.errors.splitlines() if line.startswith("skipped")]
    for reason in ("device, pipe or socket", "link to a folder", "link that leads nowhere", "link out of the folder"):
        assert reason in told
    assert set(nucseg_batch.open_masks(tmp_path / "out.zarr")) == {"0.png", "1.png", "inside.png"}
