"""The command line: parses, builds settings, calls, and turns errors into one line and an exit code.

Each command is a file beside this one. Commands import what they run only when they run, so that `--help` answers at
once and never loads Keras. This folder is the only place that prints results or reads the environment.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nucseg_batch.cli.bench import bench
from nucseg_batch.cli.cite import cite
from nucseg_batch.cli.completion import join_words
from nucseg_batch.cli.console import Verbosity, answer_error, voice
from nucseg_batch.cli.evaluate import evaluate
from nucseg_batch.cli.export import export
from nucseg_batch.cli.finish import finish
from nucseg_batch.cli.global_options import GlobalOptions, take, wants_json
from nucseg_batch.cli.help import with_common_options
from nucseg_batch.cli.inspect import inspect
from nucseg_batch.cli.models import models
from nucseg_batch.cli.overlay import overlay
from nucseg_batch.cli.plan import plan
from nucseg_batch.cli.report import report
from nucseg_batch.cli.sample import sample
from nucseg_batch.cli.segment import segment
from nucseg_batch.cli.status import status
from nucseg_batch.cli.train import train
from nucseg_batch.cli.usage import check_repeated, usage_line
from nucseg_batch.cli.verify import verify
from nucseg_batch.cli.versions import versions
from nucseg_batch.cli.view import view
from nucseg_batch.cli.wells import wells
from nucseg_batch.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    NucsegError,
    SettingError,
    StoppedError,
    StorageError,
)
from nucseg_batch.files.names import readable

if TYPE_CHECKING:
    from nucseg_batch.cli.config import Config

app = typer.Typer(
    name="nucseg-batch",
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PANELS = {
    "Segment": (segment, inspect, status, verify),
    "Inspect and export": (report, wells, overlay, view, export, cite),
    "Many machines": (plan, finish),
    "Models": (train, evaluate, models),
    "This machine": (bench, sample),
}
"""All commands, in groups as the help shows them."""


@app.callback()
def _options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors, and the JSON of --json.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print a line for each image and each stage.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="TOML file of options; options on the command line take precedence."
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit; with --debug, also those of other packages."),
    ] = False,
) -> None:
    """Segment nuclei in large collections of microscope images.

    Reads images, and writes OME-Zarr masks and tables with one row per nucleus.

    Examples:
    nucseg-batch sample images/
    nucseg-batch segment images/ out.zarr
    nucseg-batch segment --help
    """  # the options are read by `main`, so that they work anywhere, also where nothing parses


for _panel, _commands in PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)

FOR_OTHERS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED", "MPLBACKEND")
"""Variables that shorten every training, replace the variables of Keras, or name a library of windows for figures."""
MOST_OPEN_FILES = 8192
"""Files that this process may have open at once, where the hard limit allows it."""


@functools.cache
def parser() -> Any:
    """The parser of the whole command line."""
    return with_common_options(typer.main.get_command(app), frozenset({"quiet", "verbose", "config", "debug"}))


_AGAIN = "stopped; run the same command again to resume."
_STOPPED = {
    "segment": _AGAIN,
    "plan": _AGAIN,
    "finish": _AGAIN,
    "train": "stopped. To continue, run the same command with --resume; an unfinished epoch starts again.",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with the codes that errors.py lists."""
    _open_closed_streams()
    _allow_open_files()
    join_words(os.environ)
    _settle_environment(os.environ)
    # Pillow reads these files all the same
    warnings.filterwarnings("ignore", "Image appears to be a malformed MPO file", UserWarning)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    voice.__dict__.update(vars(Verbosity(json=wants_json(arguments, _named(arguments)))))
    code = _run(arguments)
    if code in (EXIT_INTERRUPTED, StoppedError.exit_code):
        warnings.simplefilter("ignore")  # of libraries, about work that was broken off
    sys.exit(_flushed(code))


def _run(arguments: list[str]) -> int:
    commands = parser().commands
    said, rest, config = GlobalOptions(debug="--debug" in arguments), arguments, None
    try:
        valued = {name for name, option in _named(arguments).items() if not _flag(option) and name != "--config"}
        said, rest = take(arguments, valued)
        voice.quiet, voice.verbose = said.quiet, said.verbose
        if said.version:
            return _print_versions(said)
        name = next(iter(rest), "")
        check_repeated(rest, _named(rest))
        if said.config is not None:
            from nucseg_batch.cli.config import read_config

            config = read_config(said.config, commands)
            voice.json |= bool(config.defaults.get(name, {}).get("as_json"))
        defaults = {} if config is None else config.defaults
        parse = functools.partial(parser().main, prog_name="nucseg-batch", standalone_mode=False, default_map=defaults)
        if not rest:
            parse(["--help"])
            return EXIT_USAGE
        code = int(parse(rest) or EXIT_OK)
        return _tell(_STOPPED.get(name, "stopped."), None, code) if code == EXIT_INTERRUPTED else code
    except StoppedError as error:
        return _tell(_stopped(rest), None, error.exit_code)
    except NucsegError as error:
        line = error.as_option if isinstance(error, SettingError) else str(error)
        where = "" if config is None else config.where(line, next(iter(rest), ""))
        return _tell(f"{where}{line}", error if said.debug else None, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _tell(_stopped(rest), None, EXIT_INTERRUPTED)
    except typer.TyperException as error:
        return _bad_usage(error, rest, commands, config)
    except OSError as error:
        line = f"{error.strerror or type(error).__name__}: {error.filename or 'standard output, or a file'}"
        return _tell(line, error if said.debug else None, StorageError.exit_code)
    except Exception as error:  # a bug of ours: say so in one line, and how to see more
        line = f"unexpected {type(error).__name__}: {error} (--debug shows where)"
        return _tell(line, error if said.debug else None, EXIT_BUG)


def _stopped(arguments: Sequence[str]) -> str:
    return _STOPPED.get(next(iter(arguments), ""), "stopped.")


def _named(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of the command that a command line names, by name; none where it names none."""
    commands = parser().commands
    command = next((commands[argument] for argument in arguments if argument in commands), None)
    return {} if command is None else {name: parameter for parameter in command.params for name in parameter.opts}


def _flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", True))  # arguments have no such thing, and no option before them


def _print_versions(said: GlobalOptions) -> int:
    for line in versions(all_of_them=said.debug):
        print(line)
    return EXIT_OK


def _bad_usage(
    error: typer.TyperException, arguments: list[str], commands: Mapping[str, Any], config: Config | None
) -> int:
    line = usage_line(error, arguments, commands)
    where = "" if config is None else config.where(line, next(iter(arguments), ""))
    return _tell(f"{where}{line}", None, EXIT_USAGE)


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


def _settle_environment(environment: MutableMapping[str, str]) -> None:
    """Chooses the backend, and takes away what is meant for other programs and would change or stop this one."""
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment["KERAS_BACKEND"] = environment.get("KERAS_BACKEND") or "tensorflow"
    for name in FOR_OTHERS:
        environment.pop(name, None)


def _allow_open_files() -> None:
    """Raises the soft limit on open files, 256 on some systems, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _tell(line: str, error: BaseException | None, code: int) -> int:
    """Tells how a call ended, on standard error and, where JSON was asked for and not yet given, as that."""
    answer_error(line, code)
    with contextlib.suppress(OSError):
        if error is not None:
            traceback.print_exception(error)
        print(f"nucseg-batch: {readable(line)}", file=sys.stderr, flush=True)
    return code
