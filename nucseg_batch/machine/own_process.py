"""Whether a process runs this program and nothing else, which may then decide for the whole of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_claimed = False


def claim() -> None:
    """Says that this process runs nothing but this program."""
    global _claimed
    _claimed = True


@contextmanager
def without(packages: Sequence[str]) -> Iterator[None]:
    """While the block runs, these packages seem not to be installed, but for those that are loaded already.

    It does nothing in a process that was not claimed: other code there may need what the block imports with them.
    """
    hidden = [name for name in packages if _claimed and name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # documented: an import of it fails
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
