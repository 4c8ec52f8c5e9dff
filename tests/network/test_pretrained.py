from __future__ import annotations

import functools
import socket
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from nucseg_batch.errors import InputMissingError, ModelError, UsageError
from nucseg_batch.network.architectures import NetworkSpec, build, load_encoder

V2 = NetworkSpec("mobilenetv2", (4, 5, 6, 7), "instances")
V3 = NetworkSpec("mobilenetv3", (4, 5, 6, 7), "instances")
LITE = NetworkSpec("efficientnetlite0", (4, 5, 6), "instances")


@functools.cache
def classifier(spec: NetworkSpec, seed: int = 5) -> keras.Model:
    """A classifier without its top, as its own library makes it, with random weights of which none is 0 or 1.

    To be read only: making one takes seconds.
    """
    keras.utils.set_random_seed(seed)
    assert spec.recipe.encoder is not None
    network = spec.recipe.encoder.application(weights=None, input_shape=(64, 64, 3))
    rng = np.random.default_rng(seed)
    network.set_weights([w + rng.uniform(0.01, 0.02, w.shape).astype(w.dtype) for w in network.get_weights()])
    return network


def write_as_published(network: keras.Model, path: Path) -> None:
    """The old layout, in which the published files are: a group for each layer, named in attributes."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        for layer in network.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, layer.get_weights(), strict=True):
                group[name] = value


def write_as_pytorch(network: keras.Model, path: Path, without: str = "") -> None:
    """An archive of arrays in PyTorch's order of axes, under the names of the published EfficientNet-Lite0."""
    arrays: dict[str, Any] = {}
    norms = {"stem": "_bn0", "expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    for layer in network.layers:
        if not layer.weights:
            continue
        block, _, part = layer.name.removesuffix("_bn").rpartition("_")
        where = f"_blocks.{block.removeprefix('block')}." if block else ""
        if isinstance(layer, keras.layers.BatchNormalization):
            for name, value in zip(("weight", "bias", "running_mean", "running_var"), layer.get_weights(), strict=True):
                arrays[f"{where}{norms[part]}.{name}"] = value
        else:
            (kernel,) = layer.get_weights()
            rows, columns, first, second = range(4)
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            order = (first, second, rows, columns) if depthwise else (second, first, rows, columns)
            arrays[f"{where}_{part}_conv.weight" if block else "_conv_stem.weight"] = kernel.transpose(order)
    arrays.pop(without, None)
    write_arrays(path, arrays)


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (V2, "published.h5"),
        (V2, "own.weights.h5"),
        (V2, "own.keras"),
        (V3, "published.h5"),
        (LITE, "published.npz"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.architecture,
)
def test_an_encoder_starts_from_a_file(tmp_path: Path, spec: NetworkSpec, name: str) -> None:
    """In each layout that Keras writes or publishes: our features are then those of the classifier."""
    given = classifier(spec)
    path = tmp_path / name
    if name.endswith(".npz"):
        write_as_pytorch(given, path)
    elif name.startswith("published"):
        write_as_published(given, path)
    elif name.endswith(".keras"):
        given.save(path)
    else:
        given.save_weights(path)
    network = build(spec, normalise=True)
    load_encoder(spec, network, str(path))

    image = np.random.default_rng(6).random((1, 64, 64, 3), np.float32)
    assert spec.recipe.encoder is not None
    expected = keras.Model(given.inputs[0], given.get_layer(spec.recipe.encoder.skips[-1]).output)
    found = keras.Model(network.inputs[0], network.get_layer(f"up{len(spec.widths) - 1}_grow").input)
    features = keras.ops.convert_to_numpy(expected(image * 2 - 1, training=False))
    assert features.std() > 1e-3
    np.testing.assert_allclose(found(image, training=False), features, rtol=1e-3, atol=1e-3 * features.std())


def test_none_leaves_the_random_start() -> None:
    """Nothing is read or downloaded."""
    network = build(V2, normalise=True)
    before = network.get_weights()
    load_encoder(V2, network, "none")
    for first, second in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("spec", [V2, V3], ids=lambda spec: spec.architecture)
def test_where_nothing_can_be_downloaded_the_error_says_how_to_do_it_elsewhere(
    spec: NetworkSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes of a cluster have no internet: one line, at once, with the address and the option that takes the file."""
    attempts = []

    def unreachable(address: object, *_: object, **__: object) -> None:
        attempts.append(address)
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))  # nothing in its cache
    with pytest.raises(InputMissingError) as caught:
        load_encoder(spec, build(spec, normalise=True), "imagenet")
    assert len(attempts) == 1
    assert spec.recipe.encoder is not None
    for part in ("imagenet", "cannot be downloaded", "unreachable", spec.recipe.encoder.weights_url, "FILE", "none"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert socket.getdefaulttimeout() is None


def test_a_file_that_is_not_there_is_told_apart_from_one_that_does_not_fit(tmp_path: Path) -> None:
    """66 for a typing error."""
    with pytest.raises(InputMissingError, match=r"nowhere\.h5: there is no such file"):
        load_encoder(V2, build(V2, normalise=True), str(tmp_path / "nowhere.h5"))


def test_a_file_that_does_not_fit_is_refused_in_words(tmp_path: Path) -> None:
    """Of the other encoder, of no known kind, cut, and with weights that are not numbers; nothing is half loaded."""
    write_as_published(classifier(V3), tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("weights")
    (tmp_path / "strange.pt").write_bytes(b"PK")
    classifier(V2).save_weights(tmp_path / "cut.weights.h5")
    content = (tmp_path / "cut.weights.h5").read_bytes()
    (tmp_path / "cut.weights.h5").write_bytes(content[: len(content) // 2])
    network = build(V2, normalise=True)
    before = network.get_weights()
    for name in ("other.h5", "text.h5", "strange.pt", "cut.weights.h5"):
        with pytest.raises(ModelError, match="does not hold the weights of MobileNetV2") as caught:
            load_encoder(V2, network, str(tmp_path / name))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    bad = keras.models.clone_model(classifier(V2))
    bad.set_weights([np.full_like(w, np.nan) for w in bad.get_weights()])
    bad.save_weights(tmp_path / "nan.weights.h5")
    with pytest.raises(ModelError, match="not numbers"):
        load_encoder(V2, network, str(tmp_path / "nan.weights.h5"))
    for first, second in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_an_archive_that_does_not_fit_is_refused_in_words(tmp_path: Path) -> None:
    """One array missing, one of another shape, pickled objects, and what is no archive."""
    write_as_pytorch(classifier(LITE), tmp_path / "missing.npz", without="_blocks.5._bn1.bias")
    write_arrays(tmp_path / "pickled.npz", {"_conv_stem.weight": np.array([{}], object)})
    write_arrays(tmp_path / "shape.npz", {"_conv_stem.weight": np.zeros((3, 3, 3, 3), np.float32)})
    (tmp_path / "text.npz").write_text("weights")
    network = build(LITE, normalise=True)
    before = network.get_weights()
    for name in ("missing.npz", "pickled.npz", "shape.npz", "text.npz"):
        with pytest.raises(ModelError, match=f"{name}: it does not hold the weights of EfficientNet-Lite0") as caught:
            load_encoder(LITE, network, str(tmp_path / name))
        assert "\n" not in str(caught.value)
    for first, second in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_weights_that_nobody_serves_are_asked_for_as_a_file() -> None:
    """Without waiting for a download that cannot be."""
    with pytest.raises(InputMissingError, match=r"cannot be downloaded by Keras.*--encoder-weights FILE"):
        load_encoder(LITE, build(LITE, normalise=True), "imagenet")


def test_a_network_without_a_given_encoder_takes_no_weights() -> None:
    """Ignoring the option would be a night of training from another start than was meant."""
    spec = NetworkSpec("unet", (4, 6), "instances")
    with pytest.raises(UsageError, match="--architecture unet"):
        load_encoder(spec, build(spec, normalise=True), "imagenet")
