"""Environment variables: those that change how libraries compute, and those of schedulers.

The first are obeyed, recorded, and the same for a whole run.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nucseg_batch.files.run.locks import JOBS

if TYPE_CHECKING:
    from nucseg_batch.network.predictor import Predictor

ARITHMETIC = (
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_ENABLE_X64",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_SET_ONEDNN_FPMATH_MODE",
    "TF_XLA_FLAGS",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "XLA_FLAGS",
)
"""Variables of TensorFlow, JAX, PyTorch and the libraries under them that choose instructions or precision."""


def machine(predictor: Predictor) -> dict[str, str]:
    """How results are computed, for `Journal.bind`: `environment` holds the ARITHMETIC variables that are set, if any.

    Words with a path, such as the folder of CUDA in XLA_FLAGS, are left out: they differ between machines.
    """
    found = []
    for name in ARITHMETIC:
        value = " ".join(word for word in os.environ.get(name, "").split() if "/" not in word)
        if value:
            found.append(f"{name}={value}")
    return {**predictor.machine(), **({"environment": ", ".join(found)} if found else {})}


def job_name() -> str:
    """What the scheduler calls the job that this process belongs to; empty outside of one."""
    return next((f"{what} {os.environ[name]}" for what, name in JOBS if os.environ.get(name)), "")
