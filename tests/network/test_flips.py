from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray

from nucseg_batch.network.architectures import build, network_spec, to_full_resolution
from nucseg_batch.network.model_file import Model, ModelInfo
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import Architecture, SegmentSettings, Task

SIDES = (64, 96)
"""Multiples of the stride, so that nothing is padded on one side only."""


def predictor_of(architecture: Architecture, task: Task, *, augment: bool) -> Predictor:
    """A network of random weights, the same each time."""
    spec = network_spec(architecture, task, (3, 5, 7))
    network = build(spec, normalise=True)
    rng = np.random.default_rng(3)
    network.set_weights([np.abs(rng.normal(0, 0.3, w.shape)) for w in network.get_weights()])
    model = Model(network, ModelInfo(spec.architecture, spec.widths, spec.task, 26.0))
    return Predictor(model, SegmentSettings(augment=augment, precision="float32", device="cpu"))


def answers(predictor: Predictor, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(height, width, outputs) of an image."""
    spec = predictor.model.info.network
    heads = to_full_resolution(predictor.heads(image)[None], spec.block, spec.outputs)
    return np.asarray(ops.convert_to_numpy(heads))[0]


@pytest.mark.parametrize("axes", [(0,), (1,)])
@pytest.mark.parametrize("architecture", ["default", "unet"])
@pytest.mark.parametrize("task", ["instances", "semantic"])
def test_a_mirror_image_gets_the_mirrored_answer(task: Task, architecture: Architecture, axes: tuple[int, ...]) -> None:
    """Offsets along a mirrored axis point the other way; without averaging a network does not answer so."""
    image = np.random.default_rng(1).integers(0, 256, SIDES, np.uint8)
    differences = []
    for augment in (True, False):
        predictor = predictor_of(architecture, task, augment=augment)
        straight, mirrored = answers(predictor, image), answers(predictor, np.flip(image, axes))
        signs = np.ones(straight.shape[-1])
        if task == "instances":
            signs[[1 + axis for axis in axes]] = -1
        back = np.flip(mirrored, axes) * signs
        differences.append(np.abs(back - straight).max() / straight.std())
    assert differences[0] < 1e-4
    assert differences[1] > 0.01


def test_the_average_is_that_of_the_four_answers() -> None:
    """Worked out by hand for the foreground."""
    image = np.random.default_rng(2).integers(0, 256, SIDES, np.uint8)
    plain = predictor_of("default", "instances", augment=False)
    four = [np.flip(answers(plain, np.flip(image, axes))[..., 0], axes) for axes in ((), (0,), (1,), (0, 1))]
    averaged = answers(predictor_of("default", "instances", augment=True), image)[..., 0]
    np.testing.assert_allclose(averaged, np.mean(four, axis=0), rtol=1e-4, atol=1e-4)


def test_the_size_network_looks_once(default_network: Model) -> None:
    """Widths need no finer answer, and a look is to be cheap."""
    predictor = Predictor(default_network, SegmentSettings(augment=True, device="cpu"))
    if not predictor.sizes_alone:
        pytest.skip("the default model has no size network")
    image = np.random.default_rng(1).integers(0, 256, SIDES, np.uint8)
    plain = Predictor(default_network, SegmentSettings(device="cpu"))
    assert predictor.width(image) == plain.width(image)
