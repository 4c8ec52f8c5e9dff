"""The folder of an export: whose it is, what of it is done, and that only one process writes it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nucseg_batch.errors import LockedError, OutputError
from nucseg_batch.files.atomic_write import remove_leftovers, write_whole
from nucseg_batch.files.find.walk import EXPORTED, is_left_by_run
from nucseg_batch.files.names import printable
from nucseg_batch.files.zarr.folders import is_store
from nucseg_batch.results.export.task import FormatRefusal
from nucseg_batch.results.run import FinishedRun

_BUSY = frozenset({errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN})


class ExportFolder:
    """The folder DIR of one call; made by `export_folder`."""

    def __init__(self, path: Path, about: Mapping[str, str], run: FinishedRun, made: dict[str, str | None]) -> None:
        self.path = path
        """Where it is."""
        self.about = about
        """What its files say of where they are from."""
        self._run = _place_of(run)
        self._since_ns = max(run.tables[name].stat().st_mtime_ns for name in ("images", "nuclei"))
        self._made = made
        self._cleaned: dict[str, Path] = {}

    def is_done(self, path: Path) -> bool:
        """Whether a file is there and younger than the run; also removes what a kill left beside it."""
        kind = path.relative_to(self.path).parts[0]
        if self._cleaned.get(kind) != path.parent:  # never a folder of which files are open: they are of the last image
            self._cleaned[kind] = path.parent
            remove_leftovers(path.parent)
        try:
            state = path.stat()
        except OSError:
            return False
        return state.st_size > 0 and state.st_mtime_ns >= self._since_ns

    def remove_stale(self, ending: str, kind: str = "") -> int:
        """Deletes files that are older than the run, and so show what is no longer so; returns how many.

        ending: of the names of these files; kind: the folder below DIR that is meant; empty for all of DIR, of which
        only files are meant that say that this program made them. To be called when all that is to be there is there.
        """
        count = 0
        for folder, _, names in os.walk(self.path / kind):
            for path in (Path(folder, name) for name in names if name.endswith(ending)):
                if path.lstat().st_mtime_ns < self._since_ns and (kind or _is_ours(path)):
                    path.unlink()
                    count += 1
        return count

    def is_same(self, name: str, pattern: str | None) -> bool:
        """Whether a file for the whole run was made of the same images."""
        return name in self._made and self._made[name] == pattern

    def note(self, name: str, pattern: str | None) -> None:
        """Notes of which images a file for the whole run was made."""
        self._made[name] = pattern
        self.write_about()

    def write_about(self) -> None:
        """Writes what the folder is."""
        content = {**self.about, "run": self._run, "patterns": self._made}
        write_whole(self.path / EXPORTED, json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def export_folder(path: Path, run: FinishedRun, about: Mapping[str, str]) -> Iterator[ExportFolder]:
    """Makes the folder, or takes one of an earlier export of this run, while the block runs.

    If the block writes no file into a new folder, or fails before it does, nothing of the folder stays. The folder may
    lie in IN, because the search for images skips it. Raises OutputError where it lies in a store,
    or holds anything else or the export of another run, and LockedError where another process writes it.
    """
    check_outside(path)
    made = _made_before(path, _place_of(run))
    is_new = not (path / EXPORTED).exists()
    missing = [place for place in (path, *path.parents) if not place.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: it cannot be made ({error.strerror}); give another place.") from error
    with _held(path):
        folder = ExportFolder(path, about, run, made)
        folder.write_about()
        try:
            yield folder
        finally:
            if is_new and not _has_files(path):
                _remove_empty(path, missing)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A place to write a folder, which gets its name, from what had it, only when the block ends well.

    Raises FormatRefusal for a name that zarr cannot have.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise FormatRefusal(f"{printable(path.name)}: zarr takes no names that are not UTF-8") from None
    making = path.with_name(f".{path.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    try:
        yield making
        if path.exists():
            shutil.rmtree(path)
        making.rename(path)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def remove_empty_folders(folder: Path, top: Path) -> None:
    """Deletes a folder and those around it below `top` for as long as they are empty."""
    with contextlib.suppress(OSError):
        while folder != top:
            folder.rmdir()
            folder = folder.parent


def _has_files(path: Path) -> bool:
    """Whether there is any file in a folder of an export but the one that says what the folder is."""
    return any(names for folder, _, names in os.walk(path) if Path(folder) != path or names != [EXPORTED])


def _remove_empty(path: Path, missing: Sequence[Path]) -> None:
    """Deletes an export without files. missing: folders that were made for it, the innermost first."""
    with contextlib.suppress(OSError):
        (path / EXPORTED).unlink(missing_ok=True)
        for folder, _, _ in os.walk(path, topdown=False):
            if Path(folder) != path:
                os.rmdir(folder)
        for place in missing:
            place.rmdir()


def _place_of(run: FinishedRun) -> str:
    return printable(os.path.realpath(run.store))


def _is_ours(path: Path) -> bool:
    """Whether a picture says near its beginning that this program made it."""
    with open(path, "rb") as file:
        return b"nucseg-batch" in file.read(4096)


def check_outside(path: Path, option: str = "") -> None:
    """Raises OutputError for a place in a zarr store or in a run folder, where nothing else must lie.

    option: the one that names the place; none for an argument.
    """
    what = f"{option} {path}".lstrip()
    whole = Path(os.path.realpath(path))
    for place in (whole, *whole.parents):
        if is_store(place):
            raise OutputError(f"{what}: it lies in the zarr store {place}; give a place outside of it.")
        if is_left_by_run(str(place)):
            raise OutputError(f"{what}: it lies in the run folder {place}; give a place outside of it.")


def _made_before(path: Path, run: str) -> dict[str, str | None]:
    """What an earlier call noted; raises OutputError for a folder that is not for this run."""
    if not path.exists():
        return {}
    if not path.is_dir():
        raise OutputError(f"{path}: this is a file; give the name of a folder.")
    try:
        about = json.loads((path / EXPORTED).read_bytes())
        before, made = about["run"], dict(about["patterns"])
    except FileNotFoundError:
        before, made = None, {}
        if any(not inside.name.startswith(".") for inside in path.iterdir()):
            raise OutputError(
                f"{path}: it holds files that are not of an earlier export; give a new or an empty folder."
            ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: its {EXPORTED} is damaged; delete the folder, or give another.") from error
    if before not in (None, run):
        raise OutputError(f"{path}: it holds an export of another run, {before}; give another folder, or delete it.")
    return made


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Keeps other processes out; where the file system has no locks, two would write the same files."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            os.close(handle)
            raise LockedError(f"{path}: another process is writing it; wait for it, or stop it.") from error
    try:
        yield
    finally:
        os.close(handle)
