"""Fixtures shared by all tests: real data where it is at hand, small pictures that need none, and the default model."""

from __future__ import annotations

import os
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from pictures import disks, fluorescence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

SHARED = Path(os.environ.get("NUCSEG_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's shared data folder; tests that need it skip elsewhere, and fail in CI, where it must be."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI needs the shared data folder {SHARED}")
        pytest.skip(f"needs the shared data folder {SHARED} (or NUCSEG_TEST_DATA)")
    return SHARED


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Five images of three shapes and several kinds, in nested folders; each shows two or three round nuclei."""
    folder = tmp_path / "in"
    (folder / "plate" / "well").mkdir(parents=True)
    small = disks((67, 83), [(20, 21), (45, 60)], 11)
    wide = disks((97, 131), [(25, 30), (60, 50), (50, 100)], 13)
    tall = disks((101, 61), [(30, 30), (75, 25)], 12)
    (folder / "small8.png").write_bytes(imagecodecs.png_encode(fluorescence(small, seed=1)))
    sixteen = fluorescence(small, seed=2).astype(np.uint16) * 200 + 300
    (folder / "plate" / "small16.png").write_bytes(imagecodecs.png_encode(sixteen))
    rgb = np.repeat(fluorescence(wide, seed=3)[..., None], 3, axis=2)
    (folder / "plate" / "colour.jpg").write_bytes(imagecodecs.jpeg8_encode(rgb, level=97))
    tifffile.imwrite(folder / "plate" / "well" / "wide.tif", fluorescence(wide, seed=4).astype(np.uint16) * 100)
    tifffile.imwrite(folder / "tall.tiff", fluorescence(tall, seed=5).astype(np.float32) / 7)
    return folder
