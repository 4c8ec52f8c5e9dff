from __future__ import annotations

import keras
import numpy as np
import pytest

from nucseg_batch.errors import UsageError
from nucseg_batch.network.architectures import NetworkSpec, build, fold_weights, network_spec, to_full_resolution
from nucseg_batch.settings import Architecture, Task

DEFAULT = NetworkSpec("default", (4, 6, 8), "instances")
UNET = NetworkSpec("unet", (4, 6, 8), "instances")
V2 = NetworkSpec("mobilenetv2", (4, 5, 6, 7), "instances")
V3 = NetworkSpec("mobilenetv3", (4, 5, 6, 7), "instances")
LITE = NetworkSpec("efficientnetlite0", (4, 5, 6), "instances")
SMALL = [DEFAULT, UNET, V2, V3, LITE]

every_architecture = pytest.mark.parametrize("spec", SMALL, ids=lambda spec: spec.architecture)


def trained(spec: NetworkSpec, seed: int = 3) -> keras.Model:
    """A network whose normalisation layers have statistics far from those they start with."""
    keras.utils.set_random_seed(seed)
    network = build(spec, normalise=True, dtype="float32")
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([w + rng.uniform(0.1, 0.4, w.shape).astype(w.dtype) for w in layer.get_weights()])
    return network


def answer(network: keras.Model, image: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(network(image, training=False))


@every_architecture
@pytest.mark.parametrize("task", ["instances", "semantic"])
def test_the_answer_has_the_size_of_the_image(spec: NetworkSpec, task: Task) -> None:
    """At any multiple of the stride, also odd ones; sides are unequal so that a swapped axis shows."""
    spec = NetworkSpec(spec.architecture, spec.widths, task)
    outputs = {"instances": 3, "semantic": 1}[task]
    height, width = 3 * spec.stride, 5 * spec.stride
    heads = build(spec, normalise=False)(np.zeros((2, height, width, 3), np.float32))
    assert heads.shape == (2, height // spec.block, width // spec.block, spec.block**2 * outputs)
    assert heads.dtype == "float32"
    assert to_full_resolution(heads, spec.block, spec.outputs).shape == (2, height, width, outputs)


@pytest.mark.parametrize(("block", "outputs"), [(1, 3), (2, 3), (2, 1), (3, 2)])
def test_unfolding_puts_each_answer_at_its_pixel(block: int, outputs: int) -> None:
    """Pixel (y, x) is channel (y % block, x % block) of the block it lies in."""
    blocks = np.arange(3 * 5 * block**2 * outputs, dtype=np.float32).reshape(1, 3, 5, block**2 * outputs)
    full = keras.ops.convert_to_numpy(to_full_resolution(blocks, block, outputs))
    for y, x in np.ndindex(3 * block, 5 * block):
        inside = blocks[0, y // block, x // block].reshape(block, block, outputs)
        np.testing.assert_array_equal(full[0, y, x], inside[y % block, x % block])


@every_architecture
def test_folding_normalisation_into_convolutions_changes_nothing_but_rounding(spec: NetworkSpec) -> None:
    """It makes inference up to three times faster on a CPU; it must not make it another model."""
    network = trained(spec)
    inference = build(spec, normalise=False, dtype="float32")
    fold_weights(network, inference)
    image = np.random.default_rng(1).random((1, spec.stride, 2 * spec.stride, 3), np.float32)
    expected = answer(network, image)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in inference.layers)
    np.testing.assert_allclose(answer(inference, image), expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


@every_architecture
def test_a_network_is_built_the_same_way_every_time(spec: NetworkSpec) -> None:
    """Weights find their layers by order and name, so neither may depend on what the process built before."""
    first, second = build(spec, normalise=True), build(spec, normalise=True)
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert [w.path for w in first.weights] == [w.path for w in second.weights]
    assert len({layer.name for layer in first.layers}) == len(first.layers)
    second.set_weights(first.get_weights())
    image = np.random.default_rng(4).random((1, spec.stride, spec.stride, 3), np.float32)
    np.testing.assert_array_equal(answer(first, image), answer(second, image))


@every_architecture
def test_precision_holds_for_all_layers_but_the_head_and_leaves_no_trace(spec: NetworkSpec) -> None:
    """A forgotten float32 layer is slow; a changed global policy would change other networks of the process."""
    before = keras.config.dtype_policy().name
    network = build(spec, normalise=True, dtype="mixed_bfloat16")
    policies = {layer.dtype_policy.name for layer in network.layers[1:-1]}
    assert policies == {"mixed_bfloat16"}
    assert network.layers[-1].dtype_policy.name == "float32"
    assert {w.dtype for w in network.weights} == {"float32"}
    assert keras.config.dtype_policy().name == before


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec("default", (4, 6), "instances"),
        NetworkSpec("default", (4, 6, 8), "instances"),
        NetworkSpec("default", (4, 4, 6, 8), "instances"),
        NetworkSpec("unet", (4, 6, 8), "instances"),
        NetworkSpec("unet", (4, 4, 4, 6, 8), "instances"),
        V2,
        LITE,
    ],
    ids=lambda spec: f"{spec.architecture}-{len(spec.widths)}",
)
def test_nothing_beyond_the_halo_reaches_a_pixel(spec: NetworkSpec) -> None:
    """Tiles that overlap by the halo give exactly the answer of the whole image, so no seam can be seen."""
    keras.utils.set_random_seed(2)
    network = build(spec, normalise=False, dtype="float32")
    halo, stride, block = spec.halo, spec.stride, spec.block
    assert halo % stride == 0
    side = 2 * halo + 3 * stride
    image = np.random.default_rng(5).random((1, side, side, 3), np.float32)
    changed = np.full_like(image, 9)
    changed[:, stride:-stride, stride:-stride] = image[:, stride:-stride, stride:-stride]
    middle = slice((stride + halo) // block, (2 * stride + halo) // block)
    first, second = answer(network, image), answer(network, changed)
    np.testing.assert_array_equal(first[:, middle, middle], second[:, middle, middle])
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("architecture", "stride", "halo", "block"),
    [
        ("default", 16, 96, 2),
        ("unet", 16, 96, 1),
        ("mobilenetv2", 32, 320, 2),
        ("mobilenetv3", 32, 192, 2),
        ("efficientnetlite0", 16, 208, 2),
    ],
)
def test_the_figures_that_tiles_are_laid_out_with(
    architecture: Architecture, stride: int, halo: int, block: int
) -> None:
    """Images are padded to multiples of 32 pixels, and tiles must keep a core."""
    spec = network_spec(architecture, "instances")
    assert (spec.stride, spec.halo, spec.block) == (stride, halo, block)
    assert 32 % spec.stride == 0


def test_squeeze_and_excite_sees_the_whole_input() -> None:
    """Why mobilenetv3 has no exact halo: its file and the README say that tiles are not bit-identical."""
    keras.utils.set_random_seed(2)
    network = build(V3, normalise=False, dtype="float32")
    image = np.random.default_rng(5).random((1, 64, 864, 3), np.float32)
    changed = image.copy()
    changed[:, :, -32:] = 9
    assert not np.array_equal(answer(network, image)[:, :, :4], answer(network, changed)[:, :, :4])


@pytest.mark.parametrize(
    ("spec", "task"),
    [(DEFAULT, "semantic"), (UNET, "instances"), (V2, "instances"), (V3, "semantic"), (LITE, "instances")],
    ids=lambda value: value if isinstance(value, str) else value.architecture,
)
def test_a_few_steps_of_training_lower_the_loss(spec: NetworkSpec, task: Task) -> None:
    """Gradients reach all weights of every architecture."""
    keras.utils.set_random_seed(6)
    spec = NetworkSpec(spec.architecture, spec.widths, task)
    rng = np.random.default_rng(6)
    image = rng.random((2, 64, 32, 3), np.float32)
    target = np.zeros((2, 64, 32, 5), np.float32)
    target[..., 0] = target[..., 4] = image[..., 0] > 0.5
    target[..., 1] = 1
    target[..., 2:4] = target[..., :1] * 0.7
    network = build(spec, normalise=True)
    before = network.get_weights()
    network.compile(keras.optimizers.Adam(3e-3), loss=spec.loss, run_eagerly=True)
    losses = network.fit(image, target, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < 0.97 * losses[0]
    changed = [not np.array_equal(old, new) for old, new in zip(before, network.get_weights(), strict=True)]
    assert all(changed)


@pytest.mark.parametrize(
    ("architecture", "widths", "task", "wrong"),
    [
        ("resnet", (4, 6), "instances", "architecture"),
        ("unet", (4, 6), "panoptic", "task"),
        ("mobilenetv2", (4, 6), "instances", "widths"),
        ("default", (4, 0, 6), "instances", "widths"),
        ("default", (4, 10**9), "instances", "widths"),
    ],
)
def test_a_network_that_does_not_exist_is_refused_by_name(
    architecture: Architecture, widths: tuple[int, ...], task: Task, wrong: str
) -> None:
    """Before any layer is made, and before a damaged record can fill memory."""
    with pytest.raises(UsageError, match=wrong):
        NetworkSpec(architecture, widths, task)
