"""What is timed on the device alone: the network, the whole device program, and the ceilings of the device.

Run by the other benchmarks as a process of its own, so that its memory is free again when files are segmented:

    python tests/benchmarks/device.py forward --side 256 [--batch-size 16] [--device cpu] [--precision float32]
    python tests/benchmarks/device.py ceilings program --source FOLDER --side 256

The last line printed is the answers as JSON. This is the only benchmark that knows how the package builds its network
and calls its device program; where that changes, so must it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import inputs
import keras
import numpy as np
from keras import ops

from nucseg_batch.arrays.normalize import as_gain, percentile_range
from nucseg_batch.executors.existing import default_model
from nucseg_batch.network import backend
from nucseg_batch.network.architectures import build, fold_weights
from nucseg_batch.network.model_file import Model, load_model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.network.program import Program
from nucseg_batch.plan import bucket_shape
from nucseg_batch.settings import SegmentSettings

GAIN = 1.03
"""Two doublings of the batch must be worth this factor together, else batches grow no further."""
FIRST_BATCH = 16
"""Where batches begin to grow."""
IN_FLIGHT = 2
"""Calls that wait on the device at once."""
MATMUL_SIDES = {"cpu": (1024, 2048), "gpu": (4096, 8192, 16384)}
"""Sides of the square matrices of whose products the fastest shows the most arithmetic that can be had."""
WINDOWS = 4
"""Ceilings are measured so many times, and the fastest counts: what disturbs it does not lower a ceiling."""
COPY_BYTES = {"cpu": 2**28, "gpu": 2**31}
"""Size of the array that is read and written to show the most memory traffic that can be had."""


@dataclass(frozen=True)
class Loaded:
    """A model on a device, as the program has it."""

    model: Model
    network: keras.Model
    predictor: Predictor

    @property
    def facts(self) -> dict[str, Any]:
        """What the figures belong to."""
        library = backend.versions()
        return {
            "device": self.predictor.device,
            "precision": self.predictor.precision,
            "diameter": self.predictor.diameter,
            "backend": f"{library['backend']} {library[library['backend']]}",
            "keras": library["keras"],
        }


def loaded(arguments: argparse.Namespace) -> Loaded:
    """The model in its form for inference, in the precision and on the device that `segment` would take."""
    settings = SegmentSettings(device=arguments.device, precision=arguments.precision, batch_size=arguments.batch_size)
    model = load_model(arguments.model or default_model())
    predictor = Predictor(model, settings)
    with backend.on_device(predictor.device):
        network = build(model.info.network, normalise=False, dtype=predictor.precision)
        fold_weights(model.network, network)
    return Loaded(model, network, predictor)


def forward(arguments: argparse.Namespace) -> dict[str, Any]:
    """The network alone, on random batches that are on the device already."""
    ready = loaded(arguments)
    batch = ready.predictor.batch_size((arguments.side, arguments.side))
    shape = (batch, *bucket_shape(arguments.side, arguments.side), 3)
    rng = np.random.default_rng(0)
    with backend.on_device(ready.predictor.device):
        batches = [ops.convert_to_tensor(rng.random(shape, np.float32)) for _ in range(4)]
        network = backend.compiled(lambda images: ready.network(images, training=False), ready.predictor.device)
        wall, processor = costs_of_a_call(lambda i: network(batches[i % len(batches)]), arguments.seconds)
    speeds = {"Mpx/s": speed(shape[:3], wall), "Mpx per CPU second": speed(shape[:3], processor)}
    return {**ready.facts, "batch": batch, "shape": shape[1:3], **speeds}


def program(arguments: argparse.Namespace) -> dict[str, Any]:
    """Raw pixels to labels, in one compiled function: intensity range, network and separation, for growing batches.

    `Mpx/s` is of pixels that are on the device already and labels that stay there: all that returns is their sum, since
    labels, being int32, may come down with each call even where nobody asks for them. `with transfers` is of pixels
    that come from the host and labels that return to it, one call after the other.
    """
    ready = loaded(arguments)
    info, where = ready.model.info, ready.predictor.device
    options: dict[str, Any] = {"threshold": info.threshold, "min_area": info.min_area, "device": where}
    compiled = Program(ready.network, info.network, **options)

    def summed(*arguments: Any) -> Any:
        return sum(ops.sum(ops.cast(one, "float32")) for one in compiled.label(*arguments))

    alone = backend.compiled(summed, where, ready.network.variables)
    own = ready.predictor.batch_size((arguments.side, arguments.side))
    pictures = [picture.pixels for picture in inputs.grey_pictures(arguments.source, arguments.side)]
    height, width = bucket_shape(arguments.side, arguments.side)
    measured: list[dict[str, float]] = []

    def measure(batch: int) -> dict[str, float]:
        chosen = [pictures[i % len(pictures)] for i in range(batch)]
        pixels = np.zeros((batch, height, width, 1), chosen[0].dtype)
        pixels[:, : arguments.side, : arguments.side, 0] = chosen
        low, gain = as_gain([percentile_range(one) for one in chosen])
        sides = np.full(batch, arguments.side, np.int32)
        host = (pixels, low, gain, sides, sides)
        with backend.on_device(where):
            there = [ops.convert_to_tensor(one) for one in host]
            resident = seconds_per_call(lambda _: alone(*there), arguments.seconds)
        carried = seconds_per_call(lambda _: compiled.run(compiled.label, *host)[0], arguments.seconds)
        shape = (batch, arguments.side, arguments.side)
        figures = {"batch": batch, "Mpx/s": speed(shape, resident), "with transfers": speed(shape, carried)}
        print(figures, flush=True)
        return figures

    for batch in growing(arguments.batches):
        try:
            measured.append(measure(batch))
        except Exception as error:  # a backend that computes later says so later, in its own way
            if not backend.is_out_of_memory(error):
                raise
            break
        if not arguments.batches and no_gain([one["Mpx/s"] for one in measured]):
            break
    if not measured:
        raise SystemExit("not even the smallest batch fits into the device's memory")
    in_use = next((one for one in measured if one["batch"] == own), None) or measure(own)
    flops, traffic = cost_of_a_pixel(ready.network, height, width, itemsize(ready.predictor.precision))
    return {
        **ready.facts,
        "batches": measured,
        "best": max(measured, key=lambda one: one["Mpx/s"]),
        "own": in_use,
        "FLOP per pixel": flops,
        "bytes per pixel": traffic,
    }


def ceilings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The most arithmetic, by multiplying square matrices in the network's type, and the most memory traffic."""
    where = backend.resolve_device(arguments.device)
    precision = backend.resolve_precision(arguments.precision, where)
    kind, dtype = where.split(":")[0], precision.removeprefix("mixed_")
    copy = host_copy if kind == "cpu" else device_copy
    window = arguments.seconds / WINDOWS
    with backend.on_device(where):
        products = [multiplied(side, dtype, where, window) for side in MATMUL_SIDES[kind] for _ in range(WINDOWS)]
        copied = min(copy(COPY_BYTES[kind] // 4, where, window) for _ in range(WINDOWS))
    return {
        "device": where,
        "dtype": dtype,
        "matmul TFLOP/s": round(max(products) / 1e12, 3),
        "copy GB/s": round(2 * COPY_BYTES[kind] / copied / 1e9, 2),
    }


def multiplied(side: int, dtype: str, where: str, seconds: float) -> float:
    """Operations a second in products of square matrices."""
    values = np.random.default_rng(0).standard_normal((side, side), np.float32) / math.sqrt(side)
    factor, product = ops.cast(values, dtype), backend.compiled(ops.matmul, where)
    return 2 * side**3 / seconds_per_call(lambda _: product(factor, factor), seconds)


def device_copy(count: int, where: str, seconds: float) -> float:
    """Time in which so many float32 are read and written on a GPU."""
    values = ops.zeros((count,), "float32")
    increased = backend.compiled(lambda array: array + 1, where)
    return seconds_per_call(lambda _: increased(values), seconds)


def host_copy(count: int, _: str, seconds: float) -> float:
    """The same in the host's memory, by all cores, between arrays that are there already."""
    cores = len(os.sched_getaffinity(0))
    source, target = (np.array_split(np.ones(count, np.float32), cores) for _ in range(2))
    with ThreadPoolExecutor(cores) as pool:
        return seconds_per_call(lambda i: np.array(list(pool.map(np.copyto, target, source))), seconds)


def no_gain(speeds: list[float]) -> bool:
    """Whether the last two batches were hardly faster than the best before them."""
    return len(speeds) > 2 and max(speeds[-2:]) < GAIN * max(speeds[:-2])


def growing(batches: list[int]) -> Iterator[int]:
    """The batches asked for, or FIRST_BATCH and its doubles without end."""
    if batches:
        yield from batches
        return
    batch = FIRST_BATCH
    while True:
        yield batch
        batch *= 2


def seconds_per_call(call: Callable[[int], Any], seconds: float) -> float:
    """Mean time of a call, with two in flight, after calls that compile and warm up."""
    return costs_of_a_call(call, seconds)[0]


def costs_of_a_call(call: Callable[[int], Any], seconds: float) -> tuple[float, float]:
    """The same, and the mean processor time of a call."""
    for i in range(3):
        settle(call(i))
    waiting: deque[Any] = deque()
    began, processor, calls = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds or calls < 3:
        waiting.append(call(calls))
        calls += 1
        if len(waiting) >= IN_FLIGHT:
            settle(waiting.popleft())
    for result in waiting:
        settle(result)
    return (time.perf_counter() - began) / calls, (time.process_time() - processor) / calls


def settle(result: Any) -> None:
    """Waits until a result is there, by fetching one element of it."""
    if not isinstance(result, np.ndarray):
        ops.convert_to_numpy(ops.cast(result[(0,) * len(result.shape)], "float32"))  # NumPy knows no bfloat16


def speed(shape: tuple[int, ...], seconds: float) -> float:
    """Mpx/s."""
    return round(math.prod(shape) / seconds / 1e6, 3)


def itemsize(precision: str) -> int:
    """Bytes of a value that passes between layers."""
    return 2 if "16" in precision else 4


def cost_of_a_pixel(network: keras.Model, height: int, width: int, size: int) -> tuple[float, float]:
    """Floating-point operations and bytes of memory traffic for each pixel of an image, as counted from the layers.

    A multiplication with its addition is 2. Traffic is an estimate: every convolution reads its input once and writes
    its output once; all between is fused, weights cost nothing. Separation is in neither.
    """
    layers = [layer for layer in network.layers if hasattr(layer, "kernel") and "Conv" in type(layer).__name__]
    tensors = [tensor for layer in layers for tensor in (layer.input, layer.output)]
    channels = network.input_shape[-1]
    shapes = keras.Model(network.inputs, tensors).compute_output_shape((1, height, width, channels))
    operations = traffic = 0
    for layer, before, after in zip(layers, shapes[::2], shapes[1::2], strict=True):
        places = before if "Transpose" in type(layer).__name__ else after
        operations += 2 * math.prod(places[1:3]) * math.prod(layer.kernel.shape)
        traffic += size * (math.prod(before) + math.prod(after))
    return operations / (height * width), traffic / (height * width)


TASKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "forward": forward,
    "program": program,
    "ceilings": ceilings,
}


def main() -> None:
    """Does tasks, in the order given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", choices=TASKS, nargs="+", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--source", type=Path, help="folder of images, for `program`")
    parser.add_argument("--side", type=int, default=256, help="of the images in pixels (256)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement (5)")
    parser.add_argument("--batches", type=int, nargs="*", default=[], help="of `program` (doubled until no gain)")
    common.add_model_options(parser)
    arguments = parser.parse_args()
    print(json.dumps({task: TASKS[task](arguments) for task in arguments.tasks}))


if __name__ == "__main__":
    main()
