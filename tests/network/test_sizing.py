from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import disks, fluorescence

from nucseg_batch.arrays.widths import BINS, distribution
from nucseg_batch.network import sizing
from nucseg_batch.network.architectures import build, build_sizer, network_spec
from nucseg_batch.network.model_file import Model, ModelInfo
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.network.sizing import LOOKS, SizeEstimator
from nucseg_batch.settings import SegmentSettings


class Knows:
    """In the place of the device's program: it knows how wide nuclei are, or that there are none."""

    heads, heads_rescaled = "heads", "heads_rescaled"

    def __init__(self, width: float | None, seen: tuple[float, float] = (0, 1000)) -> None:
        self.scales: list[float] = []
        self.shapes: list[tuple[int, ...]] = []
        self._width = width
        self._seen = seen

    def run(self, name: str, pixels: NDArray[Any], low: Any, gain: Any, *there: Any, seen: int) -> NDArray[np.float32]:
        """As `Program.run`."""
        self.shapes.append(pixels.shape)
        rows = pixels.shape[1] if name == "heads" else there[0].shape[0]
        scale = rows / pixels.shape[1]
        self.scales.append(round(scale, 3))
        answer = np.full((len(pixels), max(1, rows // 32), 3, 1 + BINS.size), -9.0, np.float32)
        if self._width is not None:
            answer[..., 0] = 2.0
            shown = np.clip(self._width * scale, *self._seen)
            answer[..., 1:] = np.log(distribution(shown) + 1e-9)
        return answer


def width(knows: Knows, shape: tuple[int, ...]) -> float | None:
    return SizeEstimator(knows).width(np.zeros(shape, np.uint8), (0.0, 1.0))  # type: ignore[arg-type]


def test_one_look_at_half_the_scale_is_enough_for_most_images() -> None:
    """It costs a quarter of what the same network would at full scale."""
    knows = Knows(26.0)
    assert width(knows, (512, 544)) == pytest.approx(26, rel=0.05)
    assert knows.scales == [0.5]


@pytest.mark.parametrize(("side", "scale"), [(240, 1.0), (170, 2**0.5), (64, 2.0), (32, 2.0)])
def test_small_images_are_looked_at_larger(side: int, scale: float) -> None:
    """At half the scale hardly a cell would be left, and what is seen in one cell is no more than a guess."""
    knows = Knows(12.0)
    assert width(knows, (side, side)) == pytest.approx(12, rel=0.1)
    assert knows.scales == pytest.approx([scale], abs=0.1)


@pytest.mark.parametrize(("true", "scales"), [(120.0, [0.5, 0.18]), (7.0, [0.5, 2.0])])
def test_nuclei_that_are_seen_badly_are_looked_at_again(true: float, scales: list[float]) -> None:
    """From further away, or nearer."""
    knows = Knows(true)
    assert width(knows, (1536, 1536)) == pytest.approx(true, rel=0.08)
    assert list(dict.fromkeys(knows.scales)) == pytest.approx(scales, abs=0.06)  # in several windows


class Misled(Knows):
    """Nuclei that are too narrow in a look are not seen there, but what they form together is."""

    def run(self, name: str, pixels: NDArray[Any], low: Any, gain: Any, *there: Any, seen: int) -> NDArray[np.float32]:
        rows = pixels.shape[1] if name == "heads" else there[0].shape[0]
        true, self._width = self._width, 88.0 * pixels.shape[1] / rows if rows < pixels.shape[1] else self._width
        answer = super().run(name, pixels, low, gain, *there, seen=seen)
        self._width = true
        return answer


def test_where_two_looks_contradict_each_other_a_third_goes_the_other_way() -> None:
    """Without it, the nuclei of a field of tiny ones would be as wide as the field."""
    knows = Misled(10.0)
    assert width(knows, (1536, 1536)) == pytest.approx(10, rel=0.05)
    assert list(dict.fromkeys(knows.scales)) == pytest.approx([0.5, 0.18, 1.0], abs=0.06)  # in several windows


def test_looks_come_to_an_end() -> None:
    """Also where the network never finds them as it wants them."""
    knows = Knows(900.0, seen=(100, 150))
    assert width(knows, (512, 512)) is not None
    assert len(knows.scales) <= LOOKS


def test_an_empty_image_is_looked_at_once() -> None:
    """There is nothing to see from nearer."""
    knows = Knows(None)
    assert width(knows, (512, 512)) is None
    assert len(knows.scales) == 1


def test_of_a_large_image_windows_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread over it; no more than a few, however large it is."""
    monkeypatch.setattr(sizing, "WINDOW", 64)
    knows = Knows(26.0)
    assert width(knows, (1280, 640, 3)) == pytest.approx(26, rel=0.05)
    assert knows.shapes == [(sizing.WINDOWS, 128, 128, 3)]


def test_images_share_looks_and_are_looked_at_again_on_their_own() -> None:
    """Of seven, those with the narrowest and the widest nuclei need a second look each; none changes the others."""
    true = [26.0, 6.0, 30.0, 20.0, 150.0, 26.0, 22.0]
    images = [np.full((512, 544), round(width), np.uint8) for width in true]

    class KnowsEach(Knows):
        def run(self, name: str, pixels: NDArray[Any], *others: Any, seen: int) -> NDArray[np.float32]:
            answers = []
            for image in pixels:
                self._width = float(image.max()) or None  # images that only fill up are 0
                answers.append(super().run(name, image[None], *others, seen=seen))
            self.calls.append(len(pixels))
            return np.concatenate(answers)

        def __init__(self) -> None:
            super().__init__(None)
            self.calls: list[int] = []

    knows = KnowsEach()
    estimator = SizeEstimator(knows)  # type: ignore[arg-type]
    together = estimator.widths(images, [(0.0, 1.0)] * 7)
    assert together == pytest.approx(true, rel=0.1)
    assert knows.calls == [8, 1, 1], "filled up to a power of two"
    assert together == [estimator.width(image, (0.0, 1.0)) for image in images]


class Crowded(Knows):
    """A device that has room for so many windows in a call."""

    def __init__(self, room: int) -> None:
        super().__init__(26.0)
        self.calls: list[int] = []
        self._room = room

    def run(self, name: str, pixels: NDArray[Any], *others: Any, seen: int) -> NDArray[np.float32]:
        self.calls.append(len(pixels))
        if len(pixels) > self._room:
            raise MemoryError("the device has no room")
        return super().run(name, pixels, *others, seen=seen)


@pytest.mark.parametrize("full", [False, True])
def test_looks_that_do_not_fit_into_memory_are_made_of_fewer_images(full: bool) -> None:
    """Each size that failed is halved, and kept for what comes next; no image is lost, none is looked at twice."""
    knows = Crowded(3)
    estimator = SizeEstimator(knows, full=full)  # type: ignore[arg-type]
    images = [np.zeros((256, 256), np.uint8)] * 7
    assert estimator.widths(images, [(0.0, 1.0)] * 7) == pytest.approx([26.0] * 7, rel=0.05)
    tried = [16, 8, 4] if full else [8, 4]
    assert knows.calls == [*tried, 2, 2, 2, 2 if full else 1]
    assert estimator.at_once((256, 256)) == 2
    assert estimator.at_once((256, 320)) == 12, "of another padded shape nothing failed"
    before = len(knows.calls)
    estimator.widths(images[:2], [(0.0, 1.0)] * 2)
    assert knows.calls[before:] == [2]


def test_an_image_that_does_not_fit_alone_is_out_of_memory() -> None:
    """Its scale must not depend on the memory of a machine, so it is not looked at in another way."""
    knows = Crowded(0)
    with pytest.raises(MemoryError):
        SizeEstimator(knows).widths([np.zeros((256, 256), np.uint8)] * 2, [(0.0, 1.0)] * 2)  # type: ignore[arg-type]
    assert knows.calls == [2, 1]


def test_an_image_that_is_looked_at_alone_after_a_failure_is_no_full_batch() -> None:
    """Where each number of images costs a program a batch is always full, but not where a full one failed."""
    knows = Crowded(16)
    estimator = SizeEstimator(knows, full=True)  # type: ignore[arg-type]
    image = [np.zeros((256, 256), np.uint8)]
    estimator.widths(image, [(0.0, 1.0)])
    estimator.widths(image, [(0.0, 1.0)], fill=False)
    assert knows.calls == [16, 1]


@pytest.mark.parametrize(
    ("pixels", "shape", "count"), [(2**20, (256, 256), 16), (2**20, (1024, 1024), 4), (0, (64, 64), 1)]
)
def test_as_many_images_share_a_look_as_its_pixels_allow(pixels: int, shape: tuple[int, int], count: int) -> None:
    """Small images are looked at by the dozen; where each number of images costs a program, one at a time."""
    estimator = SizeEstimator(Knows(26.0), pixels=pixels)  # type: ignore[arg-type]
    assert estimator.at_once(shape) == count


def test_a_predictor_segments_at_the_scale_that_its_size_network_tells() -> None:
    """An untrained one answers something; every image of a batch gets its own scale, alone or with others."""
    spec = network_spec("default", "instances", (2, 3))
    model = Model(build(spec, normalise=True), ModelInfo("default", (2, 3), sized=True), build_sizer(normalise=True))
    predictor = Predictor(model, SegmentSettings(device="cpu", precision="float32"))
    assert predictor.sizes_alone
    images = [fluorescence(disks((96, 128), [(40, 50), (60, 90)], 6 + 9 * i), seed=i) for i in range(3)]
    together = predictor.predict_batch(images, adapt="each")
    for image, one in zip(images, together, strict=True):
        alone = predictor.look(image, 1.0)
        assert alone.scale == one.scale
        np.testing.assert_array_equal(alone.labels, one.labels)
