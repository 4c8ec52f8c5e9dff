"""Fixtures of the fault tests: a network that computes in no time, and what it makes of a few images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from faults.harness import FIXED, call, image_folder
from faults.sweep import Sweep
from faults.tree import REGION, Driver, pictures


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few weights that were never trained: it finds something everywhere, and always the same."""
    import keras

    from nucseg_batch.network.architectures import build
    from nucseg_batch.network.model_file import Model, ModelInfo, save_model

    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    info = ModelInfo("default", (2, 3), diameter=26.0, min_area=7)
    keras.utils.set_random_seed(1)
    save_model(Model(build(info.network, normalise=True), info), path)
    return path


@pytest.fixture(scope="session")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of six images, and an output of them that nothing disturbed."""
    folder = tmp_path_factory.mktemp("plain")
    store = folder / "out.zarr"
    call("segment", image_folder(folder / "in"), store, "--model", tiny, *FIXED)
    return folder / "in", store


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Driver]]:
    """Two processes that run the program with a network that takes no time, for what is compared many times."""
    with ExitStack() as stack:
        yield [stack.enter_context(Driver(tmp_path_factory.mktemp("driver"))) for _ in range(2)]


@pytest.fixture
def driver(drivers: Sequence[Driver]) -> Driver:
    """One of them."""
    return drivers[0]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight files of `pictures`."""
    return pictures(tmp_path_factory.mktemp("pictures") / "in")


@pytest.fixture(scope="session")
def sweep(drivers: Sequence[Driver], images: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A run of these by one command."""

    def commands(store: Path) -> list[tuple[object, ...]]:
        return [("segment", images, store, *REGION)]

    return Sweep(drivers, tmp_path_factory.mktemp("sweep"), commands).prepare()
