"""What the backend says of its device: memory that ran out, a GPU that it cannot use, programs that it compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_gpus import fake_driver

from nucseg_batch.errors import DeviceError
from nucseg_batch.machine.device_use import Compilations, compilations
from nucseg_batch.network import backend
from nucseg_batch.network.backend import is_out_of_memory, memory_errors
from nucseg_batch.network.missing_gpu import reason_in, unused_gpu
from nucseg_batch.network.model_file import Model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import SegmentSettings

NO_MEMORY = [
    ("ResourceExhaustedError", "OOM when allocating tensor with shape[64,1024,1024,8] and type half"),
    ("InternalError", "Failed copying input tensor from CPU:0 to GPU:0: Dst tensor is not initialized."),
    ("InternalError", "Failed to allocate device memory"),
    ("JaxRuntimeError", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 21474836480 bytes."),
    ("XlaRuntimeError", "INTERNAL: Failed to load in-memory CUBIN: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ("XlaRuntimeError", "INTERNAL: custom call 'xla.gpu.conv.forward' failed: CUDNN_STATUS_ALLOC_FAILED"),
    ("XlaRuntimeError", "UNKNOWN: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED in cudnnBackendExecute"),
    ("XlaRuntimeError", "INTERNAL: failed to create cublas handle: the resource allocation failed"),
    ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ("RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
    ("RuntimeError", "[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: can't allocate memory"),
]
"""Errors as TensorFlow, JAX and torch, and cuDNN and cuBLAS under them, word them."""
OTHERS = [
    ("InternalError", "cuDNN launch failure : input shape ([2,3,4,5])"),
    ("XlaRuntimeError", "INTERNAL: CUDNN_STATUS_EXECUTION_FAILED"),
    ("RuntimeError", "CUDA error: an illegal memory access was encountered"),
    ("NotFoundError", "No algorithm worked!"),
    ("ValueError", "memory layout must be C or F"),
]


def error_of(kind: tuple[str, str]) -> Exception:
    return type(kind[0], (RuntimeError,), {})(kind[1])


@pytest.mark.parametrize("kind", NO_MEMORY, ids=lambda kind: kind[1][:40])
def test_lack_of_memory_is_recognised_in_each_librarys_words(kind: tuple[str, str]) -> None:
    """Else all images of a batch would fail where smaller batches do."""
    assert is_out_of_memory(error_of(kind))
    with pytest.raises(MemoryError, match="no room for a tile"), memory_errors("a tile"):
        raise error_of(kind)


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind[1][:40])
def test_other_trouble_is_not_taken_for_it(kind: tuple[str, str]) -> None:
    """Smaller batches would not help, and the reason would be hidden."""
    assert not is_out_of_memory(error_of(kind))
    with pytest.raises(RuntimeError, match=kind[0]), memory_errors("a tile"):
        raise RuntimeError(kind[0]) from error_of(kind)


def test_what_caused_an_error_counts() -> None:
    """Libraries raise one error from another; a circle of causes ends."""
    outer = RuntimeError("the computation failed")
    outer.__cause__ = error_of(NO_MEMORY[3])
    assert is_out_of_memory(outer)
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_out_of_memory(first)


TENSORFLOW = """\
I0000 00:00:1796083305.952 21328 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.
E0000 00:00:1796083308.226 21328 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: UNKNOWN ERROR (303)
"""
OLDER = (
    "2024-02-19 20:35:30.820121: W tensorflow/core/common_runtime/gpu/gpu_device.cc:2251] Cannot dlopen some GPU "
    "libraries. Please make sure the missing libraries mentioned above are installed properly.\n"
    "Skipping registering GPU devices...\n"
)
JAX = (
    "WARNING:jax: An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not installed. "
    "Falling back to cpu.\nTraceback (most recent call last):\n  ...\nRuntimeError: Unknown backend: 'gpu' requested\n"
)
TORCH = "Traceback (most recent call last):\n  ...\nAssertionError: Torch not compiled with CUDA enabled\n"


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (TENSORFLOW, "failed call to cuInit: INTERNAL: CUDA error: UNKNOWN ERROR (303)"),
        (OLDER, "Cannot dlopen some GPU libraries"),
        (JAX, "a CUDA-enabled jaxlib is not installed"),
        (TORCH, "AssertionError: Torch not compiled with CUDA enabled"),
        ("", "it gives no reason"),
    ],
    ids=["tensorflow", "older", "jax", "torch", "silent"],
)
def test_the_reason_is_found_in_what_a_backend_prints(printed: str, expected: str) -> None:
    """In one line, without times and places in its source."""
    found = reason_in(printed)
    assert expected in found
    assert "\n" not in found
    assert ".cc:" not in found


def test_a_gpu_that_cannot_be_used_is_told_with_reason_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver lists one, but the library cannot reach it; one that is hidden or in use is no news."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake_driver(tmp_path / "bin", monkeypatch, "GPU 0: NVIDIA H100 (UUID: GPU-aa)\n", "0, GPU-aa, 81559\n")
    device = backend.resolve_device("auto")
    if device != "cpu:0":
        pytest.skip("this machine has a GPU")
    line = unused_gpu(device)
    assert line is not None
    assert line.startswith("NVIDIA H100 is not used, because tensorflow cannot: ")
    assert any(remedy in line for remedy in ("check the driver", "nucseg-batch[gpu]"))
    with pytest.raises(DeviceError, match=r"--device gpu: tensorflow finds no GPU: .+, or use --device cpu"):
        backend.resolve_device("gpu")
    assert unused_gpu("gpu:0") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert unused_gpu(device) is None


def test_programs_are_counted_once_for_each_signature() -> None:
    """With the time of their first calls; a first call that fails is not a program."""
    counted = Compilations()

    def work(number: float) -> float:
        if number < 0:
            raise ValueError("negative")
        return number + 1

    call = counted.counted(work, lambda arguments: int(arguments[0]))
    assert [call(value) for value in (1.0, 1.5, 2.0, 1.0)] == [2.0, 2.5, 3.0, 2.0]
    for _ in range(2):
        with pytest.raises(ValueError, match="negative"):
            call(-1.0)
    programs, seconds = counted.total()
    assert programs == 2
    assert seconds >= 0
    assert counted.since_told() == (programs, seconds)
    assert counted.since_told() == (0, 0.0)
    call(3.0)
    assert counted.since_told()[0] == 1


def test_a_predictor_counts_its_programs(default_network: Model) -> None:
    """On a processor TensorFlow makes one for all shapes."""
    predictor = Predictor(default_network, SegmentSettings(device="cpu", precision="float32"))
    before = compilations.total()[0]
    for shape in ((40, 48), (56, 72)):
        predictor.predict(np.zeros(shape, np.uint8))
    first = compilations.total()[0]
    predictor.predict(np.zeros((88, 64), np.uint8))
    assert before < first == compilations.total()[0]


JAX_GRANT = """
import os
from nucseg_batch.network import backend
backend.resolve_device("auto")
print(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION"), os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE"))
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"NUCSEG_GPU_MEMORY": "9000/40000"}, "0.2250 None"),
        ({"NUCSEG_GPU_MEMORY": "as needed"}, "None false"),
        ({"NUCSEG_GPU_MEMORY": "9000/40000", "XLA_CLIENT_MEM_FRACTION": ".5"}, "None None"),
        ({}, "None None"),
    ],
    ids=str,
)
def test_jax_is_told_its_share_of_memory_before_it_looks_for_devices(given: dict[str, str], expected: str) -> None:
    """Its variables count only then; those of the user stay."""
    pytest.importorskip("jax")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("XLA_")}
    environment = {**variables, "KERAS_BACKEND": "jax", **given}
    done = subprocess.run(
        [sys.executable, "-c", JAX_GRANT], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split("\n")[0] == expected


def test_float32_on_a_gpu_is_float32() -> None:
    """GPUs would else multiply with ten bits of it; what others chose stays where nobody asked for float32."""
    experimental = pytest.importorskip("tensorflow").config.experimental
    before = experimental.tensor_float_32_execution_enabled()
    try:
        experimental.enable_tensor_float_32_execution(True)
        assert backend.resolve_precision("auto", "gpu:0") == "mixed_bfloat16"
        assert backend.resolve_precision("float32", "cpu:0") == "float32"
        assert experimental.tensor_float_32_execution_enabled()
        assert backend.resolve_precision("float32", "gpu:0") == "float32"
        assert not experimental.tensor_float_32_execution_enabled()
    finally:
        experimental.enable_tensor_float_32_execution(before)
