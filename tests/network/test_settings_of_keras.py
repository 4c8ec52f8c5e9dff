from __future__ import annotations

import threading
from collections.abc import Iterator

import keras
import numpy as np
import pytest

from nucseg_batch.executors.existing import default_model
from nucseg_batch.network import backend
from nucseg_batch.network.architectures import build, network_spec
from nucseg_batch.network.model_file import load_model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import SegmentSettings

OTHERS = {"floatx": "float16", "epsilon": 0.25, "image_data_format": "channels_first", "max_epochs": 1}


def present() -> dict[str, object]:
    return {name: getattr(keras.config, name)() for name in OTHERS} | {"policy": keras.config.dtype_policy().name}


@pytest.fixture
def others() -> Iterator[dict[str, object]]:
    """Settings that some other code, or keras.json, made."""
    before = present()
    for name, value in OTHERS.items():
        getattr(keras.config, f"set_{name}")(value)
    keras.config.set_dtype_policy("mixed_float16")
    yield present()
    for name in OTHERS:
        getattr(keras.config, f"set_{name}")(before[name])
    keras.config.set_dtype_policy(before["policy"])


def answers() -> list[bytes]:
    """Of the model that ships, for grey and colour, at two scales."""
    predictor = Predictor(load_model(default_model()), SegmentSettings(precision="float32", device="cpu"))
    pixels = np.random.default_rng(5).integers(0, 4096, (67, 101, 3)).astype(np.uint16)
    return [predictor.heads(one, scale).tobytes() for one in (pixels, pixels[..., 0]) for scale in (1.0, 0.5)]


def test_other_settings_of_keras_change_no_answer(others: dict[str, object]) -> None:
    """Neither data format nor floatx nor policy, set by a file or by other code; and that code finds them unchanged."""
    found = answers()
    assert present() == others
    for name, value in (("floatx", "float32"), ("image_data_format", "channels_last"), ("epsilon", 1e-7)):
        getattr(keras.config, f"set_{name}")(value)
    keras.config.set_dtype_policy("float32")
    assert answers() == found


def test_networks_are_float32_and_channels_last_whatever_the_surroundings(others: dict[str, object]) -> None:
    """Weights in float16 would have lost digits on loading."""
    network = build(network_spec("default", "instances"), normalise=True)
    assert {str(weight.dtype) for weight in network.weights} == {"float32"}
    assert {layer.dtype_policy.name for layer in network.layers} == {"float32"}
    assert network.output_shape[-1] > 3
    assert present() == others


def test_settings_of_others_are_back_when_the_last_thread_has_left(others: dict[str, object]) -> None:
    """Threads that come and go must neither restore them too early nor for ever keep ours."""
    entered, leave, seen = threading.Barrier(2, timeout=20), threading.Event(), list[object]()

    def first() -> None:
        with backend.own_settings():
            entered.wait()
            leave.wait(20)
            seen.append((keras.config.floatx(), keras.config.max_epochs(), keras.config.epsilon()))

    thread = threading.Thread(target=first)
    with backend.own_settings():
        thread.start()
        entered.wait()
    assert keras.config.floatx() == "float32", "the other thread is still in it"
    leave.set()
    thread.join(20)
    assert seen == [("float32", None, 1e-7)]
    assert present() == others


def test_settings_are_back_after_an_error(others: dict[str, object]) -> None:
    with pytest.raises(ZeroDivisionError), backend.own_settings():
        raise ZeroDivisionError
    assert present() == others
