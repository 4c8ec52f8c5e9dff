"""The command line: parses, builds settings, calls, and turns errors into one line and an exit code.

Each command is a file beside this one. Commands import what they run only when they run, so that `--help` answers at
once and never loads Keras. This folder is the only place that prints results or reads the environment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from nucseg_batch import __version__
from nucseg_batch.cli.bench import bench
from nucseg_batch.cli.cite import cite
from nucseg_batch.cli.evaluate import evaluate
from nucseg_batch.cli.export import export
from nucseg_batch.cli.finish import finish
from nucseg_batch.cli.inspect import inspect
from nucseg_batch.cli.overlay import overlay
from nucseg_batch.cli.plan import plan
from nucseg_batch.cli.report import report
from nucseg_batch.cli.sample import sample
from nucseg_batch.cli.segment import segment
from nucseg_batch.cli.status import status, verify
from nucseg_batch.cli.text import readable
from nucseg_batch.cli.train import train
from nucseg_batch.cli.view import view
from nucseg_batch.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    NucsegError,
    StoppedError,
    StorageError,
)

app = typer.Typer(
    name="nucseg-batch",
    help="Find nuclei in large collections of microscope images: OME-Zarr masks and statistics of each nucleus.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_BadUsage: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What the parser raises; some versions of Typer take it from click, others carry their own."""


def _version(asked: bool) -> None:
    if asked:
        print(f"nucseg-batch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options before the command; `--debug` is read by `main`, which also works when nothing parses."""


for command in (
    segment,
    inspect,
    plan,
    finish,
    status,
    verify,
    report,
    cite,
    export,
    overlay,
    view,
    train,
    evaluate,
    bench,
    sample,
):
    app.command()(command)


_AGAIN = "stopped; run the same command again to go on."
_STOPPED = {
    "segment": _AGAIN,
    "plan": _AGAIN,
    "finish": _AGAIN,
    "train": "stopped; run the same command with --resume to go on after the last finished epoch.",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with the codes that errors.py lists."""
    _open_closed_streams()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]  # it may stand before or after a command
    code = _run(arguments, debug)
    sys.exit(_flushed(code))


def _run(arguments: list[str], debug: bool) -> int:
    stopped = _STOPPED.get(next(iter(arguments), ""), "stopped.")
    try:
        code = int(app(arguments, prog_name="nucseg-batch", standalone_mode=False) or EXIT_OK)
        return _tell(stopped, None, code) if code == EXIT_INTERRUPTED else code
    except StoppedError as error:
        return _tell(stopped, None, error.exit_code)
    except NucsegError as error:
        return _tell(str(error), error if debug else None, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _tell(stopped, None, EXIT_INTERRUPTED)
    except _BadUsage as error:
        error.show()  # type: ignore[attr-defined]
        return EXIT_USAGE
    except OSError as error:
        line = f"{error.strerror or type(error).__name__}: {error.filename or 'standard output, or a file'}"
        return _tell(line, error if debug else None, StorageError.exit_code)
    except Exception as error:  # a bug of ours: say so in one line, and how to see more
        line = f"unexpected {type(error).__name__}: {error} (--debug shows where)"
        return _tell(line, error if debug else None, EXIT_BUG)


def _flushed(code: int) -> int:
    """The exit code, after the streams were emptied: Python's own try at its end would give another code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout and code == EXIT_OK and error.errno != errno.EPIPE:
                code = _tell(f"standard output cannot be written ({error.strerror}).", None, StorageError.exit_code)
    return code


def _open_closed_streams() -> None:
    """Gives a program that was started with closed streams the null device, so that no file takes their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _tell(line: str, error: BaseException | None, code: int) -> int:
    with contextlib.suppress(OSError):
        if error is not None:
            traceback.print_exception(error)
        print(f"nucseg-batch: {readable(line)}", file=sys.stderr, flush=True)
    return code
