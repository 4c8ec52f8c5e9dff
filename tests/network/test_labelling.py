from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pictures import disks, fluorescence

from nucseg_batch.arrays import geometry
from nucseg_batch.network import backend, large
from nucseg_batch.network import predictor as predictor_module
from nucseg_batch.network.labelling import DeviceSeparation, HostSeparation
from nucseg_batch.network.model_file import Model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import SegmentSettings


def image(shape: tuple[int, int], radius: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    places = [(int(y), int(x)) for y, x in rng.integers(8, np.array(shape) - 8, (9, 2))]
    return fluorescence(disks(shape, places, radius), seed=seed)


@pytest.fixture
def two_ways(default_network: Model, monkeypatch: pytest.MonkeyPatch) -> tuple[Predictor, Predictor]:
    """A predictor that separates nuclei on the host, and one that does so on the device, which is the processor too."""

    class AllOnDevice(Predictor):
        def _made(self, threshold: float, min_area: int, look: bool) -> DeviceSeparation:
            with monkeypatch.context() as changed:
                changed.setattr(predictor_module, "HostSeparation", self._on_device)
                labelling = super()._made(threshold, min_area, look)
            assert isinstance(labelling, DeviceSeparation)
            return labelling

        def _on_device(self, _: Any, *, look: bool, **options: Any) -> DeviceSeparation:
            network, spec = self._network, self.model.info.network
            program = predictor_module.Program(network, spec, device=self.device, look=look, **options)
            return DeviceSeparation(program, look=look)

    settings = SegmentSettings(device="cpu")
    host, device = Predictor(default_network, settings), AllOnDevice(default_network, settings)
    assert isinstance(host._labelling(0.5, 12), HostSeparation)
    return host, device


@pytest.mark.parametrize("scale", [1.0, 2**0.5, 0.5])
def test_both_ways_give_the_same_labels(two_ways: tuple[Predictor, Predictor], scale: float) -> None:
    """A run on a GPU and one on a processor differ by the network's arithmetic and by nothing else."""
    host, device = two_ways
    images = [image((93, 91), 9, seed) for seed in range(3)]
    for one, other in zip(host.predict_batch(images, scale), device.predict_batch(images, scale), strict=True):
        assert one.labels.max() > 2
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.support, other.support)


@pytest.mark.parametrize(("side", "dtype"), [(64, "uint16"), (1024, "int32")])
def test_labels_leave_a_gpu_in_two_bytes_where_all_fit(
    two_ways: tuple[Predictor, Predictor], side: int, dtype: str
) -> None:
    """As compiled for a GPU: which type it is follows from the size of images and of the smallest nucleus alone."""
    _, device = two_ways
    program = device._labelling(0.5, 12).program
    pixels = image((64, 64), 9, 3)[None, ..., None]
    heads = np.asarray(program.heads(pixels, np.zeros(1, np.float32), np.full(1, 1 / 255, np.float32)))
    beyond = side // program.spec.block - heads.shape[1]
    heads = np.pad(heads, ((0, 0), (0, beyond), (0, beyond), (0, 0)), constant_values=-9)  # nothing is there
    sides = np.full(1, side, np.int32)
    labels, support = (np.asarray(one) for one in backend.compiled(program.separate_small, "gpu")(heads, sides, sides))
    expected, _ = (np.asarray(one) for one in backend.compiled(program.separate, "gpu")(heads, sides, sides))
    assert (labels.dtype, expected.dtype, support.dtype) == (np.dtype(dtype), np.int32, np.uint8)
    assert labels.max() > 2
    np.testing.assert_array_equal(labels, expected)


def test_both_ways_see_the_same_in_a_look(two_ways: tuple[Predictor, Predictor]) -> None:
    """What a look finds decides the scale."""
    looked = [one.look(image((131, 127), 21, 4), 1.0) for one in two_ways]
    assert looked[0].scale == looked[1].scale
    assert looked[0].certainty == looked[1].certainty
    np.testing.assert_array_equal(looked[0].labels, looked[1].labels)


@pytest.mark.parametrize("scale", [1.0, 0.75])
def test_both_ways_label_a_region_alike(two_ways: tuple[Predictor, Predictor], scale: float) -> None:
    """The roots too, which decide to which region a nucleus belongs."""
    pixels = image((301, 283), 10, 7)
    found = []
    for one in two_ways:
        (tile,) = one.tiles(pixels.shape, scale, (slice(128, 256), slice(0, 128)), 128)
        found.append(one.label_tile(tile, pixels[tile.part("source")], (10.0, 200.0)))
    assert found[0][0].max() > 0
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_large_images_are_labelled_alike(
    two_ways: tuple[Predictor, Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that go through the network in tiles."""
    side = 2 * two_ways[0].model.info.network.halo + 160
    for module in (geometry, large):
        monkeypatch.setattr(module, "TILE", side)
    pixels = image((701, 583), 10, 8)
    one, other = (predictor.predict(pixels) for predictor in two_ways)
    assert one.max() > 2
    np.testing.assert_array_equal(one, other)


def test_one_tile_holds_an_answer_at_a_time_on_few_cores(
    default_network: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two threads with a large image each: answers for whole windows are the largest arrays that a run has."""
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    predictor = Predictor(default_network, SegmentSettings(device="cpu", precision="float32"))
    pixels = image((211, 173), 11, 5)
    joined, separated = HostSeparation.joined, HostSeparation.window
    holding, most, both = [0], [0], threading.Barrier(2)

    def held(self: HostSeparation, *given: Any) -> Any:
        answer = joined(self, *given)
        holding[0] += 1
        most[0] = max(most[0], holding[0])
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(2)  # for the other thread, which must not come this far
        return answer

    def freed(self: HostSeparation, *given: Any) -> Any:
        holding[0] -= 1
        return separated(self, *given)

    monkeypatch.setattr(HostSeparation, "joined", held)
    monkeypatch.setattr(HostSeparation, "window", freed)
    (tile,) = predictor.tiles(pixels.shape, 1.0, (slice(0, 211), slice(0, 173)), 211)
    source = pixels[tile.part("source")]
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(predictor.label_tile, tile, source, (10.0, 200.0)) for _ in range(2)]
        first, second = (one.result() for one in found)
    assert most == [1]
    assert first.labels.max() > 2
    np.testing.assert_array_equal(first.labels, second.labels)
