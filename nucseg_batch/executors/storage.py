"""What an error of the operating system means that comes while results are written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from nucseg_batch.errors import NucsegError, OutputError, StorageError

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM})
"""Errors of the output's disk, which no other image would escape."""


def storage_error(store: Path, error: OSError) -> Exception:
    """The error to raise for one of the operating system while OUT was written."""
    if isinstance(error, NucsegError):
        return error
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in DISK_ERRORS:
        return StorageError(
            f"{store}: writing failed ({reason}). Finished work is kept; free some space, or fix the file system, "
            "and run the same command again."
        )
    return OutputError(f"{store}: it cannot be written ({reason}).")
