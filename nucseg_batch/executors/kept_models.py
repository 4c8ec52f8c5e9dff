"""The folder in which a user keeps models, so that `--model NAME` finds them from anywhere.

It follows the XDG base directory specification: `$XDG_DATA_HOME/nucseg-batch/models`, and without that variable
`~/.local/share/nucseg-batch/models`. It holds model files and nothing else, so that files may be copied in and out.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from nucseg_batch.errors import InputMissingError, OutputError, UsageError, did_you_mean
from nucseg_batch.files.atomic_write import file_sha256, whole_file
from nucseg_batch.files.names import name_beside

DEFAULT = "default"
"""Name of the model that ships with the package, unless there is a file of that name."""
SUFFIX = ".keras"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def models_folder() -> Path:
    """Where models are kept, whether it exists or not; OutputError for a user without a home folder."""
    data = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):
        data = os.path.expanduser("~/.local/share")
    if not os.path.isabs(data):
        raise OutputError("models are kept in ~/.local/share, but there is no home folder: set XDG_DATA_HOME or HOME.")
    return Path(data) / "nucseg-batch" / "models"


def kept_models() -> dict[str, Path]:
    """The files of the folder by name, sorted; none where it cannot be read."""
    try:
        found = sorted(models_folder().iterdir())
    except OSError:
        return {}
    return {path.stem: path for path in found if path.suffix == SUFFIX and _NAME.fullmatch(path.stem)}


def kept_model(name: str) -> Path | None:
    """The file of a model that is kept, by its name with or without `.keras`; None where there is none."""
    stem = name.removesuffix(SUFFIX)
    if not _NAME.fullmatch(stem):
        return None
    try:
        path = models_folder() / f"{stem}{SUFFIX}"
    except OutputError:
        return None
    return path if path.is_file() else None


def find_model(model: str | os.PathLike[str], argument: str) -> Path | None:
    """The file of a model: a path, else `default`, else the name of a model that is kept; None for the one that ships.

    argument: the option or argument that names it, for errors. Raises InputMissingError where there is none, with the
    nearest name.
    """
    path = Path(model)
    if path.is_file():
        return path
    if str(path) == DEFAULT:
        return None
    kept = kept_model(str(path))
    if kept is not None:
        return kept
    where = f"{argument} {path}".lstrip()
    if path.is_dir():
        raise InputMissingError(f"{where}: it is a folder; give the model file in it, which ends in .keras.")
    near = name_beside(str(path), SUFFIX) or did_you_mean(str(path), [DEFAULT, *kept_models()])
    if not near:
        near = (
            f"; `{DEFAULT}` is the one that ships, `nucseg-batch train` makes others, and `nucseg-batch models list` "
            "lists those that are kept."
        )
    raise InputMissingError(f"{where}: there is no such file{near}")


def keep_model(path: Path, name: str, *, replace: bool = False) -> Path:
    """Copies a model file into the folder, under its name only when it is whole; returns the copy.

    Raises UsageError for a name that cannot be used, and OutputError where another model has it (unless `replace`) or
    the folder cannot be written.
    """
    if name == DEFAULT or not _NAME.fullmatch(name) or name.endswith(SUFFIX):
        raise UsageError(
            f"--name {name}: a model cannot have this name; use letters, digits, and . _ + - after the first, without "
            f"{SUFFIX}, and another word than `{DEFAULT}`."
        )
    target = models_folder() / f"{name}{SUFFIX}"
    try:
        if target.is_file() and not replace and file_sha256(target) != file_sha256(path):
            raise OutputError(
                f"{target}: another model has the name {name}; give another --name, or --overwrite to replace it."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "rb") as source, whole_file(target) as copy:
            shutil.copyfileobj(source, copy)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{target}: it cannot be written ({error.strerror}); set XDG_DATA_HOME to a folder that can."
        ) from error
    return target
