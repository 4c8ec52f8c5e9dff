"""What runs on the device: the network, its losses, model files and the predictor.

Importing this package loads Keras and the library under it, which write notes to stderr before any setting of theirs
can stop it; those are held back, and shown only where loading fails.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

from nucseg_batch.errors import DeviceError
from nucseg_batch.machine.own_process import without
from nucseg_batch.network.limits import check_limits

UNUSED = ("matplotlib", "pandas", "sklearn")
"""Packages that Keras imports where they are installed, for what is not used here; a third of its import."""


def _memory_file() -> IO[bytes]:
    """A file that needs no folder for temporary files, where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def stderr_held_back() -> Iterator[None]:
    """Sends what C++ libraries write to file descriptor 2 to a file, and on to stderr only after an exception."""
    sys.stderr.flush()
    saved = os.dup(2)
    with _memory_file() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


check_limits()
try:
    with stderr_held_back(), without(UNUSED):
        import keras  # noqa: F401
except Exception as error:  # a keras.json that is not as Keras writes it raises many classes
    raise DeviceError(
        f"Keras cannot be loaded ({type(error).__name__}: {error}); install its backend, or set KERAS_BACKEND to "
        "tensorflow, jax or torch, whichever is installed, and check ~/.keras/keras.json if there is one."
    ) from error

logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every new image shape
