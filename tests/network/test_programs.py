"""How many programs are compiled where each shape needs its own: seconds each, and on a GPU the same again."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest

from nucseg_batch.arrays.geometry import ResampleGeometry
from nucseg_batch.network.architectures import build, network_spec
from nucseg_batch.network.program import Program
from nucseg_batch.plan import COARSE_SIDES, TILE, bucket_shape, coarse_bucket_shape

SHAPES_OF_DSB2018 = [(256, 256), (256, 320), (260, 347), (360, 360), (512, 640), (519, 253), (519, 162), (520, 696)]
"""Shapes of the images of the Data Science Bowl, without its largest."""
COUNT = """
import sys
import jax
import numpy as np
compiled = []
def heard(event, seconds, **more):
    if event.endswith("backend_compile_duration"):
        compiled.append(event)
jax.monitoring.register_event_duration_secs_listener(heard)

from nucseg_batch.network.architectures import build, network_spec
from nucseg_batch.network.model_file import Model, ModelInfo
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import SegmentSettings

spec = network_spec("unet", "instances", (4, 6))
model = Model(build(spec, normalise=True), ModelInfo("unet", (4, 6)))
predictor = Predictor(model, SegmentSettings(device="cpu", precision="float32"))
rng = np.random.default_rng(2)
compiled.clear()
for shape, scale in {cases}:
    for _ in range(2):
        images = [rng.integers(0, 255, shape, np.uint8) for _ in range(predictor.batch_size(shape, scale))]
        predictor.predict_batch(images, scale)
print(len(compiled))
"""


def frames(shapes: list[tuple[int, int]], scales: list[float]) -> set[object]:
    """What programs are compiled for."""
    found = [ResampleGeometry.of(shape, scale, coarse=True) for shape in shapes for scale in scales]
    return {(one.native_bucket, one.bucket, one.is_native) for one in found if not one.is_large}


def test_padded_shapes_are_few_where_each_is_compiled() -> None:
    """Images of one magnification in fifty shapes, and those of a mixed collection at five scales."""
    rng = np.random.default_rng(3)
    fifty = [(int(height), int(width)) for height, width in rng.integers(200, 1100, (50, 2))]
    assert len({bucket_shape(*shape) for shape in fifty}) > 40
    assert len(frames(fifty, [1.0])) <= 20
    assert len(frames(fifty, [2**0.5])) <= 20
    assert len(frames(SHAPES_OF_DSB2018, [0.5, 2**-0.5, 1.0, 2**0.5, 2.0])) <= 26


@pytest.mark.parametrize("shape", [(1, 1), (255, 257), (257, 1023), (1025, 400), (TILE, TILE)])
def test_a_coarse_bucket_holds_the_image_and_wastes_less_than_it_may(shape: tuple[int, int]) -> None:
    """Both sides are of the list; a long image is not padded to a square."""
    bucket = coarse_bucket_shape(*shape)
    assert all(side >= length and side in COARSE_SIDES for side, length in zip(bucket, shape, strict=True))
    assert bucket[0] == bucket[1] or max(bucket) > 1.5 * min(bucket)


def test_an_image_that_fits_the_padded_shape_of_the_network_is_padded_to_that() -> None:
    """Else each pair of shapes would be a program of its own."""
    enlarged, reduced = (ResampleGeometry.of((200, 210), scale, coarse=True) for scale in (2.0, 0.5))
    assert enlarged.native_bucket == enlarged.bucket == (512, 512)
    assert (reduced.native_bucket, reduced.bucket) == ((256, 256), (256, 256))


@pytest.mark.long
def test_jax_compiles_one_program_for_each_coarse_frame() -> None:
    """Whatever the size of batches, and once."""
    pytest.importorskip("jax")
    cases = [((97, 101), 1.0), ((150, 131), 1.0), ((260, 257), 1.0), ((97, 101), 2.0), ((113, 90), 2.0**0.5)]
    done = subprocess.run(
        [sys.executable, "-c", COUNT.replace("{cases}", repr(cases))],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    expected = frames([shape for shape, _ in cases[:3]], [1.0]) | frames([cases[3][0]], [2.0])
    expected |= frames([cases[4][0]], [2**0.5])
    assert int(done.stdout) <= len(expected) + 1


class Counted(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Passes values on, and counts how often a graph is made of it."""

    graphs = 0

    def call(self, values: Any) -> Any:
        """The same values."""
        self.graphs += 1
        return values


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one graph for all shapes is TensorFlow's")
@pytest.mark.parametrize("apart", [False, True], ids=["batches", "image by image"])
def test_on_a_processor_the_graph_of_the_network_is_made_once_for_all_programs(apart: bool) -> None:
    """It takes longer than all else that is done before the first image; answers are those of the network."""
    spec = network_spec("unet", "instances", (4, 6))
    inner = build(spec, normalise=False)
    counted = Counted()
    network = keras.Model(inner.inputs, counted(inner.outputs[0]))
    program = Program(network, spec, device="cpu:0", apart=apart)
    counted.graphs = 0
    rng = np.random.default_rng(5)
    low, gain = np.zeros(2, np.float32), np.full(2, 1 / 255, np.float32)
    for channels, kind in ((1, np.uint8), (1, np.uint16), (3, np.uint8)):
        pixels = rng.integers(0, 255, (2, 26, 34, channels)).astype(kind)
        seen = np.broadcast_to(pixels / np.float32(255), (2, 26, 34, 3))
        found = program.run(program.heads, pixels, low, gain)
        np.testing.assert_allclose(found, inner.predict_on_batch(seen), rtol=1e-4, atol=1e-5)
    rows, columns = np.eye(28, 26, dtype=np.float32), np.eye(36, 34, dtype=np.float32)
    program.run(program.heads_rescaled, pixels, low, gain, rows, columns)
    assert counted.graphs == 1
