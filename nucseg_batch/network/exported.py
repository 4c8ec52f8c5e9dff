"""A network for other programs: normalised pixels in, named channels at full resolution out, as ONNX or SavedModel.

The graph is the network that `Predictor` runs, without normalisation layers, in float32. What lies around it there, the
range of intensities, rescaling and the separation of nuclei, is not in the graph; `arrays.prepared` has it for programs
that run the graph themselves.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from nucseg_batch.arrays.outputs import OFFSET_UNIT, OUTPUT_OFFSETS, Output
from nucseg_batch.errors import DeviceError, ModelError
from nucseg_batch.network import backend, stderr_held_back
from nucseg_batch.network.architectures import NetworkSpec, build, fold_weights, to_full_resolution
from nucseg_batch.network.model_file import Model

INPUT, OUTPUT = "image", "nuclei"
"""Names of the tensors of an ONNX file; of a SavedModel, that of its input."""
TOLERANCE = 1e-3
"""How far answers of an exported graph may be from those of Keras, in probability and in pixels."""


class ExportedNetwork(keras.Model):
    """The network of a model: (batch, 1 or 3, height, width) in, (batch, channels, height, width) out, float32 both.

    In: values that are mostly from 0 to 1; a single channel is repeated for the three that the network has. Height and
    width are multiples of `spec.stride`. Out: the probability of the foreground and, of a model that tells nuclei
    apart, the offsets along y and x to the centre of the nucleus, in pixels; the channels of `Output`.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(name="nucseg_batch", trainable=False)
        self.spec: NetworkSpec = model.info.network
        self._network = build(self.spec, normalise=False, dtype="float32")
        fold_weights(model.network, self._network)

    def call(self, image: Any) -> Any:
        """See the class."""
        image = ops.transpose(image, (0, 2, 3, 1))
        image = ops.broadcast_to(image, (*ops.shape(image)[:3], 3))
        heads = self._network(image, training=False)
        answer = to_full_resolution(heads, self.spec.block, self.spec.outputs)
        parts = [ops.sigmoid(answer[..., Output.FOREGROUND : Output.FOREGROUND + 1])]
        if self.spec.head.one_by_one:
            parts.append(answer[..., OUTPUT_OFFSETS] * OFFSET_UNIT)
        return ops.transpose(ops.concatenate(parts, axis=-1), (0, 3, 1, 2))

    def answer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """What Keras computes for one batch."""
        with backend.on_device("cpu:0"):
            return np.asarray(ops.convert_to_numpy(self(image)))


@backend.own_settings()
def exported_network(model: Model) -> ExportedNetwork:
    """The network of a model for other programs; DeviceError where Keras does not run on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise DeviceError(
            f"models export needs TensorFlow, but Keras runs on {keras.backend.backend()} here; set "
            "KERAS_BACKEND=tensorflow."
        )
    network = ExportedNetwork(model)
    network.answer(
        np.zeros((1, 3, network.spec.stride, network.spec.stride), np.float32)
    )  # Keras exports what is built
    return network


@backend.own_settings()
def write_onnx(network: ExportedNetwork, path: Path, record: Mapping[str, str]) -> int:
    """Writes a network as an ONNX file with named tensors and axes; returns the version of its operators.

    record: what the metadata of the file say. Needs onnx and tf2onnx.
    """
    import onnx

    with _quiet():
        network.export(str(path), format="onnx", verbose=False, input_signature=[_signature()])
    model = onnx.load_model(str(path))
    (given,), (answer,) = model.graph.input, model.graph.output
    names = {given.name: INPUT, answer.name: OUTPUT}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in (given, answer):
        tensor.name = names[tensor.name]
        for axis, name in zip(tensor.type.tensor_type.shape.dim, ("batch", "channel", "y", "x"), strict=True):
            if not axis.HasField("dim_value"):
                axis.dim_param = name
    model.producer_name = "nucseg-batch"
    onnx.helper.set_model_props(model, dict(record))
    onnx.checker.check_model(model)
    onnx.save_model(model, str(path))
    return next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))


@backend.own_settings()
def write_saved_model(network: ExportedNetwork, folder: Path) -> None:
    """Writes a network as a SavedModel of TensorFlow with the endpoint `serve`."""
    with _quiet():
        network.export(str(folder), format="tf_saved_model", verbose=False, input_signature=[_signature()])


def onnx_answer(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What ONNX Runtime computes for one batch on the processor; needs onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT], {INPUT: image})[0])


@backend.own_settings()
def saved_model_answer(folder: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a SavedModel computes for one batch."""
    layer = keras.layers.TFSMLayer(str(folder), call_endpoint="serve")
    return np.asarray(ops.convert_to_numpy(layer(image)))


def check_answer(what: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Raises ModelError where an exported graph answers otherwise than the network itself."""
    if found.shape != expected.shape:
        raise ModelError(f"{what}: the exported graph gives {found.shape}, but the model {expected.shape}.")
    apart = float(np.abs(found - expected).max())
    if not apart <= TOLERANCE:
        raise ModelError(
            f"{what}: answers of the exported graph differ from those of the model by up to {apart:.2g}; other "
            "versions of tensorflow, tf2onnx or onnxruntime may help."
        )


def _signature() -> keras.InputSpec:
    return keras.InputSpec(shape=(None, None, None, None), dtype="float32", name=INPUT)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what converters print and warn of on the way: users can do nothing about it."""
    with warnings.catch_warnings(), stderr_held_back():
        warnings.simplefilter("ignore")
        yield
