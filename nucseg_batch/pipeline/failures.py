"""Why a plane has no mask, in one line."""

from __future__ import annotations

from nucseg_batch.plan import Failure, Plane


def failure_of(plane: Plane, stage: str, error: Exception) -> Failure:
    """The failure of one plane, with the class of the error that first went wrong."""
    first = next((line for line in str(error).splitlines() if line.strip()), "no further words")
    where = plane.name.removeprefix(plane.image.key).strip(" ()")
    message = " ".join(first.split())[:300]
    cause = type(error.__cause__ or error).__name__
    return Failure(plane.image.key, stage, cause, f"{where}: {message}" if where else message)
