"""The one file that knows which library computes: TensorFlow, JAX or torch.

Everything else on the device is written with `keras.ops`. What Keras does not offer in a common form is here: choosing
a device and a precision, compiling a function, and recognising the error that means that memory ran out.
"""

from __future__ import annotations

import contextlib
import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from nucseg_batch.errors import DeviceError
from nucseg_batch.machine.cores import available_cores, needed_threads
from nucseg_batch.machine.device_use import compilations
from nucseg_batch.machine.gpus import Grant, granted, is_set, set_variable
from nucseg_batch.machine.processor import bfloat16_flags, processor_name
from nucseg_batch.network import stderr_held_back
from nucseg_batch.network.missing_gpu import no_gpu
from nucseg_batch.settings import Device, Precision


def gpu_count() -> int:
    """GPUs that the backend can use in this process."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with stderr_held_back():  # where there is no driver CUDA says so, which on a processor is no news
            return len(tf.config.list_physical_devices("GPU"))
    if backend == "jax":
        import jax

        return sum(device.platform != "cpu" for device in jax.devices())
    import torch

    return int(torch.cuda.device_count())


def resolve_device(device: Device) -> str:
    """`cpu:0` or `gpu:0`; raises DeviceError where a GPU was asked for and there is none.

    Also limits the threads of the backend if a quota or Slurm allows fewer cores than the affinity shows, and its
    memory on a GPU, as far as it does not compute already.
    """
    _limit_threads()
    if device == "cpu":
        return "cpu:0"
    _limit_memory(granted())
    if gpu_count():
        return "gpu:0"
    if device == "gpu":
        raise DeviceError(no_gpu())
    return "cpu:0"


def _limit_memory(grant: Grant | str | None) -> None:
    """Takes no more memory of the GPU than was granted; see each library's page on GPU memory.

    Without a grant TensorFlow takes memory as it is needed in place of all there is, JAX the three quarters that it
    takes by default, and torch what it needs.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with contextlib.suppress(RuntimeError, ValueError), stderr_held_back():  # it computes already
            for gpu in tf.config.list_physical_devices("GPU"):
                if isinstance(grant, Grant):
                    limit = tf.config.LogicalDeviceConfiguration(memory_limit=grant.limit // 2**20)
                    tf.config.set_logical_device_configuration(gpu, [limit])
                else:
                    tf.config.experimental.set_memory_growth(gpu, True)
    elif backend == "jax":  # read when JAX first looks for devices
        if isinstance(grant, Grant):
            if not is_set("XLA_CLIENT_MEM_FRACTION"):  # its newer name, with which it must not be given together
                set_variable("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{grant.fraction:.4f}")
        elif grant is not None:
            set_variable("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    elif isinstance(grant, Grant):
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(grant.fraction)


def _limit_threads() -> None:
    cores = needed_threads()
    if cores is None:
        return
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # it computes already
            tf.config.threading.set_intra_op_parallelism_threads(cores)
    elif keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(cores)


def resolve_precision(precision: Precision, device: str) -> str:
    """The Keras dtype policy: for `auto`, bfloat16 on a GPU or a CPU that computes in it, else float32."""
    if precision == "float32" and device.startswith("gpu"):
        _leave_tensor_float_32()
    if precision != "auto":
        return precision
    if device.startswith("gpu") or bfloat16_flags():
        return "mixed_bfloat16"
    return "float32"


def _leave_tensor_float_32() -> None:
    """Has float32 be float32 on GPUs that would else multiply with the 10 bits of TensorFloat-32."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "jax":
        import jax

        if jax.config.jax_default_matmul_precision is None:
            jax.config.update("jax_default_matmul_precision", "float32")
    else:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def depends_on_batch(precision: str, device: str) -> bool:
    """Whether the last bits of a convolution's result depend on how many images are in a batch, and on the place there.

    Measured with TensorFlow: so it is on CPUs, from batches of two on without AVX-512, but not in bfloat16 where the
    processor computes in it.
    """
    native = precision != "float32" and bool(bfloat16_flags())
    return device.startswith("cpu") and not native


def precision_reason(precision: Precision, device: str) -> str:
    """Why `resolve_precision` decides as it does, for the user."""
    if precision != "auto":
        return "asked for"
    if device.startswith("gpu"):
        return "GPUs compute in bfloat16"
    found = sorted(bfloat16_flags())
    return f"the processor computes in bfloat16 ({', '.join(found)})" if found else "the processor has no bfloat16"


def hardware(device: str) -> str:
    """Name of a device, such as the model of the GPU; of a processor with the cores that this process may use."""
    if device.startswith("cpu"):
        cores = available_cores()
        return f"{processor_name() or platform.machine()}, {cores} core{'s' * (cores != 1)}"
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        return str(details.get("device_name", "GPU"))
    if backend == "jax":
        import jax

        return next(str(one.device_kind) for one in jax.devices() if one.platform != "cpu")
    import torch

    return str(torch.cuda.get_device_name(0))


@contextlib.contextmanager
def on_device(device: str) -> Iterator[None]:
    """A context in which variables and computations are placed on `device`, with `own_settings`."""
    with own_settings(), keras.device(device):
        yield


_SETTINGS: dict[str, Any] = {
    "floatx": "float32",
    "epsilon": 1e-7,
    "image_data_format": "channels_last",
    "max_epochs": None,
    "max_steps_per_epoch": None,
}
"""What results depend on of Keras's settings, by the names that these have in `keras.config`."""
_settings_lock = threading.Lock()
_settings_before: list[dict[str, Any]] = []
"""The settings of others, once for each `own_settings` that is active in any thread."""


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """A context, or decorator, in which `keras.json`, KERAS_ variables and other code do not decide how Keras computes.

    Networks are built, compiled and called in it. The settings of others are back when no thread is in it any more.
    """
    with _settings_lock:
        found = {name: getattr(keras.config, name)() for name in _SETTINGS}
        _settings_before.append(_settings_before[0] if _settings_before else found)
        _set(_SETTINGS)
        policy = keras.config.dtype_policy()  # each thread has its own
        keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        with _settings_lock:
            keras.config.set_dtype_policy(policy)
            before = _settings_before.pop()
            if not _settings_before:
                _set(before)


def _set(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        getattr(keras.config, f"set_{name}")(value)


def compiles_each_shape(device: str) -> bool:
    """Whether `compiled` makes a program of its own for each shape of its inputs, which takes seconds."""
    return keras.backend.backend() == "jax" or (keras.backend.backend() == "tensorflow" and device.startswith("gpu"))


def keep_programs(folder: Path) -> None:
    """Has JAX keep what it compiles below a folder, for later processes, unless it was given another place.

    Other backends have no such cache that can be asked for by documented means.
    """
    if keras.backend.backend() != "jax":
        return
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))


def compiled(function: Callable[..., Any], device: str, variables: Sequence[keras.Variable] = ()) -> Callable[..., Any]:
    """`function` of arrays, compiled on its first call and, where needed, again for inputs of other shapes.

    variables: those that it uses. What they hold when it is called counts: JAX, which would keep what they held when
    it was compiled, is given them as arguments.

    It is always called with arrays of the same dtypes, numbers of axes and, of images, channels. XLA is used on GPUs;
    on CPUs TensorFlow's own graph is faster (measured: five times), and one graph serves all shapes, because building
    a graph takes as long as a second of work.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if device.startswith("gpu"):
            return compilations.counted(tf.function(function, jit_compile=True, autograph=False), _signature)
        return compilations.counted(_of_any_shape(function), lambda _: "any shape")
    if backend == "jax":
        import jax

        def of_values(values: Sequence[Any], *arguments: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function(*arguments)

        jitted = jax.jit(of_values)
        return compilations.counted(
            lambda *arguments: jitted([variable.value for variable in variables], *arguments), _signature
        )
    import torch

    return torch.inference_mode()(function)


def _signature(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What makes another program: shapes and dtypes of the arrays."""
    return tuple((tuple(one.shape), str(one.dtype)) for one in keras.tree.flatten(arguments))


def _of_any_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    """A TensorFlow function with one graph, made on the first call, for arrays of any shape."""
    import tensorflow as tf

    lock = threading.Lock()
    made: list[Callable[..., Any]] = []

    def call(*arguments: Any) -> Any:
        with lock:
            if not made:
                signature = keras.tree.map_structure(_any_shape, arguments)
                made.append(tf.function(function, input_signature=signature, autograph=False))
        return made[0](*arguments)

    return call


def _any_shape(array: Any) -> Any:
    """What a TensorFlow function must know of an array: its dtype and axes, and of images and answers the channels."""
    import tensorflow as tf

    shape = [None] * len(array.shape)
    return tf.TensorSpec([*shape[:-1], array.shape[-1]] if len(shape) == 4 else shape, array.dtype)


def one_graph(network: Callable[[Any], Any], device: str) -> Callable[[Any], Any]:
    """A network as a part of several `compiled` functions; it takes (batch, height, width, 3) float32.

    On CPUs TensorFlow makes one graph of it, which all of them call: that takes longer than all else in them.
    """
    if keras.backend.backend() != "tensorflow" or device.startswith("gpu"):
        return network
    import tensorflow as tf

    signature = [tf.TensorSpec([None, None, None, 3], "float32")]
    graph: Callable[[Any], Any] = tf.function(network, input_signature=signature, autograph=False)
    return graph


_NO_MEMORY = (
    "resourceexhausted",  # TensorFlow's class
    "resource_exhausted",  # status of XLA, so of JAX and of compiled TensorFlow
    "resource exhausted",
    "outofmemory",  # torch's class
    "out of memory",  # CUDA's words, in all of them
    "out_of_memory",  # CUDA_ERROR_OUT_OF_MEMORY
    "oom when allocating",  # TensorFlow's operations
    "dst tensor is not initialized",  # TensorFlow, of a copy to a full GPU
    "status_alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "device_allocation_failed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED of cuDNN 9
    "the resource allocation failed",  # cuBLAS in words, as XLA prints it
    "failed to allocate",  # XLA and TensorFlow
    "can't allocate memory",  # torch on a processor
)
"""Words with which backends, CUDA, cuDNN and cuBLAS say that memory ran out, in small letters."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of the backend, or one that caused it, says that the device's memory ran out."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        text = f"{type(error).__name__} {error}".lower()
        if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
            return True
        error = error.__cause__ or error
    return False


@contextlib.contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Has the block raise MemoryError where the device's memory ran out.

    Results must be fetched in it, too: JAX computes after a call has returned, and only then says that it could not.
    """
    try:
        yield
    except Exception as error:  # each backend has its own class for this
        if is_out_of_memory(error):
            raise MemoryError(f"the device has no room for {what}") from error
        raise


def versions() -> dict[str, str]:
    """Versions of Keras and of the library that computes, for the record of a run."""
    backend = keras.backend.backend()
    module = __import__(backend)
    return {"keras": keras.__version__, "backend": backend, backend: str(module.__version__)}
