from __future__ import annotations

import keras
import numpy as np
import pytest

from nucseg_batch.network.unet import HEADS, UNetConfig, build_unet, fold_weights, to_full_resolution

CONFIG = UNetConfig(widths=(4, 6, 8))


def trained(seed: int = 3) -> keras.Model:
    """A network whose normalisation layers have statistics far from those they start with."""
    keras.utils.set_random_seed(seed)
    network = build_unet(CONFIG, normalise=True, dtype="float32")
    rng = np.random.default_rng(seed)
    network.set_weights([w + rng.uniform(0.1, 0.4, w.shape).astype(w.dtype) for w in network.get_weights()])
    return network


def test_the_answer_has_the_size_of_the_image() -> None:
    """Half resolution inside, full resolution outside; sides are unequal so that a swapped axis shows."""
    image = np.zeros((2, 24, 40, 3), np.float32)
    heads = build_unet(CONFIG, normalise=False)(image)
    assert heads.shape == (2, 12, 20, 4 * HEADS)
    assert to_full_resolution(heads).shape == (2, 24, 40, HEADS)


def test_unfolding_puts_each_answer_at_its_pixel() -> None:
    """Pixel (y, x) is channel (y % 2, x % 2) of the block it lies in."""
    blocks = np.arange(1 * 3 * 5 * 4 * HEADS, dtype=np.float32).reshape(1, 3, 5, 4 * HEADS)
    full = keras.ops.convert_to_numpy(to_full_resolution(blocks))
    for y, x in np.ndindex(6, 10):
        expected = blocks[0, y // 2, x // 2].reshape(2, 2, HEADS)[y % 2, x % 2]
        np.testing.assert_array_equal(full[0, y, x], expected)


def test_folding_normalisation_into_convolutions_changes_nothing_but_rounding() -> None:
    """It makes inference three times faster on a CPU; it must not make it another model."""
    network = trained()
    inference = build_unet(CONFIG, normalise=False, dtype="float32")
    fold_weights(network, inference)
    image = np.random.default_rng(1).random((1, 32, 48, 3), np.float32)
    expected = keras.ops.convert_to_numpy(network(image, training=False))
    found = keras.ops.convert_to_numpy(inference(image, training=False))
    assert not any("norm" in layer.name for layer in inference.layers)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("widths", [(4, 6), (4, 6, 8), (4, 4, 6, 8)])
def test_nothing_beyond_the_halo_reaches_a_pixel(widths: tuple[int, ...]) -> None:
    """Tiles that overlap by the halo give exactly the answer of the whole image, so no seam can be seen."""
    config = UNetConfig(widths=widths)
    keras.utils.set_random_seed(2)
    network = build_unet(config, normalise=False, dtype="float32")
    halo, stride = config.halo, config.stride
    assert halo % stride == 0
    side = 2 * halo + stride
    image = np.random.default_rng(5).random((1, side, side, 3), np.float32)
    changed = image.copy()
    changed[:, 0], changed[:, -1], changed[:, :, 0], changed[:, :, -1] = 9, -9, 9, -9
    middle = slice(halo // 2, (halo + stride) // 2)
    first, second = (keras.ops.convert_to_numpy(network(x, training=False)) for x in (image, changed))
    np.testing.assert_array_equal(first[:, middle, middle], second[:, middle, middle])
    assert not np.array_equal(first, second)


def test_the_default_networks_reach_is_96_pixels() -> None:
    """The figure that tiles and regions are laid out with."""
    assert UNetConfig().halo == 96
    assert UNetConfig().stride == 16
