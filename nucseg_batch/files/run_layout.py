"""Where everything of a run lies: tables, report and run folder beside its store, and what the run folder holds."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nucseg_batch.errors import InputMissingError
from nucseg_batch.files.zarr.folders import is_store

FOLDER_ENDING = ".run"
"""Ending of a run folder, in place of that of the store."""
TABLES = ("images", "nuclei", "failures")
"""The tables of a run."""
CSV, PARQUET = "csv", "parquet"
"""Formats of the nuclei table."""
OUTPUT_NAME = re.compile(
    rf"(.+)\.(?:(?:{'|'.join(TABLES)}|wells|volumes|tracks)\.csv|nuclei\.parquet|provenance\.json|report\.html)"
)
"""Names of the files beside a store; the group is the store's name without its ending."""
VOLUMES_CSV = "volumes.csv"
"""What the name of the table of volumes ends in."""
TRACKS_CSV = "tracks.csv"
"""What the name of the table of tracks ends in."""
PLAN = "plan.json"
"""The plan, by which a run folder is known."""
ADDED = "plan-{:06d}.json"
"""The plans of images that were added to the run, numbered from 1."""
ONE_LOG, SHARE_LOG, WORKER_LOG = "log.txt", "log-{:05d}.txt", "log-worker-{}.txt"
"""Logs of a run by one process, of a share, and of a process that a scheduler starts."""
WORKER_LOGS = WORKER_LOG.format("*")
"""Pattern of the last."""
CONTROLS = "controls.json"
"""The control wells of the table of wells, in the run folder."""
TIMINGS = "timings"
"""Folder with a file per process."""


def path_beside(store: Path, ending: str) -> Path:
    """`out.run` for the store `out.zarr` and the ending `.run`.

    For what lies within a store, as with --in-place it may, that is beside the outermost store: `plate.A-2-0.run` for
    `plate.zarr/A/2/0`.
    """
    whole = os.path.abspath(store)
    around = next((str(parent) for parent in reversed(Path(whole).parents) if is_store(parent)), None)
    if around is None:
        return store.with_suffix(ending)
    inner = os.path.relpath(whole, around).replace(os.sep, "-")
    folder = os.path.dirname(around)
    return Path(folder if store.is_absolute() else os.path.relpath(folder), f"{Path(around).stem}.{inner}{ending}")


def check_is_store(path: Path) -> None:
    """Raises InputMissingError for a table, run folder or other file of a run that is given instead of its store."""
    file = OUTPUT_NAME.fullmatch(path.name)
    name = file[1] if file else path.stem if path.suffix == FOLDER_ENDING else ""
    if name and (store := path.with_name(f"{name}.zarr")).is_dir():
        raise InputMissingError(f"{path}: this belongs to a run; give its store, {store}.")


@dataclass(frozen=True)
class RunLayout:
    """The paths of one run."""

    store: Path
    """The OME-Zarr store with the masks."""
    formats: tuple[str, ...] = (CSV,)
    """The formats in which it has the nuclei table."""
    linked: bool = False
    """Whether it joins nuclei over z-slices, and so has a table of volumes."""
    tracked: bool = False
    """Whether it links nuclei over time points, and so has a table of tracks."""

    @classmethod
    def found(cls, store: Path) -> RunLayout:
        """The same, with the tables and formats that are there; the nuclei table as CSV if there is none."""
        written = (kind for kind in (CSV, PARQUET) if path_beside(store, f".nuclei.{kind}").exists())
        linked, tracked = (path_beside(store, f".{name}").exists() for name in (VOLUMES_CSV, TRACKS_CSV))
        return cls(store, tuple(written) or (CSV,), linked=linked, tracked=tracked)

    @property
    def folder(self) -> Path:
        """The run folder: plan, log and progress."""
        return path_beside(self.store, FOLDER_ENDING)

    @property
    def timings(self) -> Path:
        """The folder in the run folder that says how long the stages of each process took."""
        return self.folder / TIMINGS

    @property
    def tables(self) -> dict[str, Path]:
        """The tables by name, see TABLES; of the nuclei, the CSV file or, if there is none, the Parquet dataset."""
        kinds = {"nuclei": CSV if CSV in self.formats else PARQUET}
        return {name: path_beside(self.store, f".{name}.{kinds.get(name, CSV)}") for name in TABLES}

    @property
    def images_csv(self) -> Path:
        """The table with a row per plane."""
        return path_beside(self.store, ".images.csv")

    @property
    def provenance(self) -> Path:
        """What the masks were made with."""
        return path_beside(self.store, ".provenance.json")

    @property
    def wells(self) -> Path:
        """The table with a row per well, of plates for which it was asked."""
        return path_beside(self.store, ".wells.csv")

    @property
    def volumes_csv(self) -> Path:
        """The table with a row per volume, of runs that join nuclei over z-slices."""
        return path_beside(self.store, ".volumes.csv")

    @property
    def tracks_csv(self) -> Path:
        """The table that says to which track a nucleus belongs, of runs that link nuclei over time points."""
        return path_beside(self.store, ".tracks.csv")

    @property
    def controls(self) -> Path:
        """The file in the run folder that says which control wells that table has."""
        return self.folder / CONTROLS

    @property
    def report(self) -> Path:
        """The report, unless another place is given for it."""
        return path_beside(self.store, ".report.html")

    @property
    def results(self) -> dict[str, Path]:
        """All that a finished run has beside its store and its run folder, by what the names end in."""
        nuclei = [f"nuclei.{kind}" for kind in (CSV, PARQUET) if kind in self.formats]
        joined = [*([VOLUMES_CSV] if self.linked else []), *([TRACKS_CSV] if self.tracked else [])]
        return {
            name: path_beside(self.store, f".{name}")
            for name in ("images.csv", *nuclei, "failures.csv", *joined, "provenance.json")
        }
