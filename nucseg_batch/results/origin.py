"""What every file that is made of a run says of where it is from."""

from __future__ import annotations

from nucseg_batch import __version__
from nucseg_batch.files.names import printable
from nucseg_batch.results.run import FinishedRun


def origin(run: FinishedRun) -> dict[str, str]:
    """What made a run, as short texts by name; `software` names the program and its version."""
    return {"software": f"nucseg-batch {__version__}", "store": printable(run.store.name)}
