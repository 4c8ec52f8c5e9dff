"""Fixtures shared by all tests: real data where it is at hand, small pictures that need none, and the default model."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
import tifffile
from command import Output, run
from pictures import disks, fluorescence
from tiers import LONG

if TYPE_CHECKING:
    from nucseg_batch.network.model_file import Model
    from nucseg_batch.network.predictor import Predictor

for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):  # Typer and Rich colour what they print where one is set
    os.environ.pop(name, None)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="nucseg-cache-")  # what others measured here must not matter
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

SHARED = Path(os.environ.get("NUCSEG_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks the tests of `LONG`, and those that wait for a whole run of the command, before `-m` selects."""
    here = item.path.relative_to(Path(__file__).parent)
    if any(here.is_relative_to(place) for place in LONG) or "segmented" in getattr(item, "fixturenames", ()):
        item.add_marker("long")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's shared data folder; tests that need it skip without it, or fail if it must be there."""
    if not SHARED.is_dir():
        if os.environ.get("NUCSEG_REQUIRE_TEST_DATA"):
            pytest.fail(f"NUCSEG_REQUIRE_TEST_DATA is set and there is no shared data folder {SHARED}")
        pytest.skip(f"needs the shared data folder {SHARED} (or NUCSEG_TEST_DATA)")
    return SHARED


def five_images(folder: Path) -> Path:
    """Five images of three shapes and several kinds, in nested folders; each shows two or three round nuclei."""
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


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """The five images, in a folder of the test's own."""
    return five_images(tmp_path / "in")


@pytest.fixture
def one_image(tmp_path: Path) -> Path:
    """A folder with one image of two nuclei, where images are not the point."""
    folder = tmp_path / "in"
    folder.mkdir()
    picture = fluorescence(disks((67, 83), [(20, 21), (45, 60)], 11), seed=1)
    (folder / "small8.png").write_bytes(imagecodecs.png_encode(picture))
    return folder


@pytest.fixture(scope="session")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """The five images, segmented with all defaults by a process of its own; made once, because it takes long."""
    folder = five_images(tmp_path_factory.mktemp("segmented") / "in")
    store = folder.parent / "out.zarr"
    return Output(folder, store, run("segment", folder, store).stdout)


@pytest.fixture(scope="session")
def default_network() -> Model:
    """The model that ships with the package; to be read only."""
    from nucseg_batch.executors.existing import default_model
    from nucseg_batch.network.model_file import load_model

    return load_model(default_model())


@pytest.fixture(scope="session")
def predictor(default_network: Model) -> Predictor:
    """The default model on the CPU; one for all tests, because each builds its graphs anew, which takes seconds."""
    from nucseg_batch.network.predictor import Predictor
    from nucseg_batch.settings import SegmentSettings

    return Predictor(default_network, SegmentSettings(device="cpu"))
