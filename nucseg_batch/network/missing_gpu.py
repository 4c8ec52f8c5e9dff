"""Why the backend has no GPU where the machine has one, in its own words, and what to install for it."""

from __future__ import annotations

import re
import subprocess
import sys

import keras

from nucseg_batch.machine.gpus import usable_gpus

_INSTALL = {
    "tensorflow": "run pip install 'nucseg-batch[gpu]'",
    "jax": "run pip install 'jax[cuda12]'",
    "torch": "install torch with CUDA, see https://pytorch.org/get-started/locally",
}
"""What each backend needs for a GPU."""
_PROBES = {
    "tensorflow": (
        "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '0'; import tensorflow as tf;"
        "tf.test.is_built_with_cuda() or exit('this build of TensorFlow has no CUDA');"
        "tf.config.list_physical_devices('GPU')"
    ),
    "jax": "import jax; jax.devices('gpu')",
    "torch": "import torch; torch.cuda.init()",
}
"""Programs that fail, or print, for the reason for which a backend has no GPU."""
_PROBE_SECONDS = 60
"""How long one may take."""
_REASONS = (
    "Cannot dlopen",
    "failed call to cuInit",
    "CUDA-enabled jaxlib is not installed",
    "failed to initialize",
    "has no CUDA",
    "Could not find cuda drivers",
)
"""Messages of TensorFlow and JAX that are the reason, the most telling first; torch and JAX end with theirs."""
_DRIVER = ("cuInit", "CUDA driver", "cuda drivers", "NVIDIA driver", "libcuda")
"""Words of reasons that no package mends: the driver is not there, is too old, or is not handed into a container."""


def unused_gpu(device: str) -> str | None:
    """One line about a GPU that this machine has and the backend cannot use; None where there is none, or it is used.

    device: what `backend.resolve_device` gave for `auto`.
    """
    found = usable_gpus() if device.startswith("cpu") else []
    if not found:
        return None
    reason = _why_no_gpu()
    name = found[0].model or f"GPU {found[0].name}"
    return f"{name} is not used, because {keras.backend.backend()} cannot: {reason}; to use it, {_advice(reason)}"


def no_gpu() -> str:
    """What to tell where a GPU was asked for and the backend has none, in one line."""
    reason = _why_no_gpu() if usable_gpus() else "nvidia-smi shows none, or CUDA_VISIBLE_DEVICES hides them all"
    return f"--device gpu: {keras.backend.backend()} finds no GPU: {reason}; {_advice(reason)}, or use --device cpu."


def _advice(reason: str) -> str:
    """What to do about a reason."""
    if any(word in reason for word in _DRIVER):
        return "check the driver with nvidia-smi, and in a container that it is handed in (--nv, --gpus all)"
    return _INSTALL[keras.backend.backend()]


def _why_no_gpu() -> str:
    """The backend's own reason, from a process of its own: here it is silent, and has made up its mind."""
    probe = _PROBES[keras.backend.backend()]
    try:
        done = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"asking it failed: {type(error).__name__}"
    return reason_in(done.stderr)


def reason_in(printed: str) -> str:
    """What of a backend's messages says why it has no GPU, as one line without the place in its source."""
    lines = [re.sub(r"^.*?\b[\w/]+\.(?:cc|h):\d+\] ?", "", line).strip() for line in printed.splitlines()]
    lines = [line for line in lines if line]
    for sign in _REASONS:
        if found := next((line for line in lines if sign in line), None):
            return found.split(". ")[0].rstrip(".")
    return lines[-1].rstrip(".") if lines else "it gives no reason"
