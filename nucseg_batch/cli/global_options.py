"""Options of every command, which may stand before or after its name: `--quiet`, `--verbose`, `--debug`, `--config`.

They are taken out of the command line before it is parsed, so that they also count for an error in the rest of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucseg_batch.errors import UsageError

FLAGS = {
    "--quiet": "quiet",
    "-q": "quiet",
    "--verbose": "verbose",
    "-v": "verbose",
    "--debug": "debug",
    "--version": "version",
}
"""How they are written, and the field of `GlobalOptions` that each sets."""


@dataclass(frozen=True)
class GlobalOptions:
    """What was said of them."""

    quiet: bool = False
    """Whether only errors are told."""
    verbose: bool = False
    """Whether more is told."""
    debug: bool = False
    """Whether the traceback of an error is shown."""
    version: bool = False
    """Whether versions are asked for, and nothing else."""
    config: Path | None = None
    """The file that says options."""


def take(arguments: Sequence[str], valued: Collection[str]) -> tuple[GlobalOptions, list[str]]:
    """What is said of these options, and the other arguments.

    valued: options of any command that take a value, so that a value is never taken for an option. Raises UsageError
    where they contradict each other.
    """
    flags: dict[str, bool] = dict.fromkeys(FLAGS.values(), False)
    config: Path | None = None
    rest, following = list[str](), iter(arguments)
    for argument in following:
        name, equals, value = argument.partition("=")
        if argument == "--":
            rest += [argument, *following]
        elif argument in FLAGS:
            flags[FLAGS[argument]] = True
        elif name in FLAGS and equals and name.startswith("--"):
            raise UsageError(f"{name} takes no value; leave ={value} away.")
        elif name == "--config":
            path = value if equals else next(following, "")
            if not path:
                raise UsageError("--config needs a file, such as --config run.toml.")
            if config is not None:
                raise UsageError("--config is given twice; put all options into one file.")
            config = Path(path)
        else:
            rest.append(argument)
            if argument in valued:
                rest += [value for value in [next(following, None)] if value is not None]
    if flags["quiet"] and flags["verbose"]:
        raise UsageError("--quiet and --verbose are opposites; give one.")
    return GlobalOptions(**flags, config=config), rest


def wants_json(arguments: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Whether standard output is for JSON: by `--json`, or by `--json -` where it names a file.

    options: those of the command, by name.
    """
    option = options.get("--json")
    if "--json=-" in arguments:
        return True
    if "--json" not in arguments:
        return False
    if option is None or option.is_flag:
        return True
    return list(arguments)[list(arguments).index("--json") + 1 :][:1] == ["-"]
