"""The file of `--config`: options of commands as TOML, a table for each command.

What the command line says goes before what the file says, and this before defaults. Nothing in it is passed over in
silence: a key that no command knows, or a value of another kind than the option takes, is refused with its line.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from nucseg_batch.errors import InputMissingError, UsageError, did_you_mean
from nucseg_batch.settings import LISTED_OPTIONS, SegmentSettings

COMMAND_LINE_ONLY = frozenset({"quiet", "verbose", "debug", "config", "help"})
"""Options that a file cannot say: they are about one call."""
OF_SEGMENT = {f.name for f in dataclasses.fields(SegmentSettings)} | {"place", "store", "model", "pattern", "in_place"}
"""Parameters that the commands of TAKE_FROM_SEGMENT take from the table of `segment`, where their own has none."""
TAKE_FROM_SEGMENT = ("plan", "inspect", "bench")
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", list: "a list of texts", str: "a text"}


@dataclass(frozen=True)
class Config:
    """What a file says."""

    path: Path
    """The file."""
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Values by command and parameter, as parsers take them."""
    lines: dict[tuple[str, str], int] = field(default_factory=dict)
    """Where each key of each table stands, counted from 1."""

    def where(self, message: str, command: str) -> str:
        """`run.toml, line 3: ` to put before a message about an option that this file says for a command."""
        about = re.match(r"--([a-z][a-z-]*)", message)
        key = about[1] if about else ""
        line = self.lines.get((command, key), self.lines.get(("segment", key)))
        return f"{self.path}, line {line}: " if key and line else ""


def read_config(path: Path, commands: Mapping[str, Any]) -> Config:
    """Reads and checks a file.

    commands: all commands, as the parser has them. Raises InputMissingError where there is no file and UsageError for
    anything in it that cannot be meant.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputMissingError(f"--config {path}: it cannot be read ({error.strerror}); give a TOML file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--config {path}: it is no text in UTF-8; give a TOML file.") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--config {path}: it is not valid TOML: {error}.") from error
    lines = dict(_lines(text))
    config = Config(path, lines=lines)
    for name, table in tables.items():
        if not isinstance(table, dict):
            place = _place(path, lines.get(("", _dashed(name))))
            raise UsageError(
                f"--config {place}: {name} stands outside of any table; put it below a line such as [segment]."
            )
        if name not in commands:
            hint = did_you_mean(name, commands) or f"; tables are named for commands: {', '.join(commands)}."
            raise UsageError(f"--config {path}: there is no command for [{name}]{hint}")
        config.defaults[name] = _values(path, name, table, commands[name], lines)
    for name in TAKE_FROM_SEGMENT:
        known = {parameter.name for parameter in commands[name].params} & OF_SEGMENT
        shared = {key: value for key, value in config.defaults.get("segment", {}).items() if key in known}
        config.defaults[name] = shared | config.defaults.get(name, {})
    return config


def keys_of(command: Any) -> dict[str, Any]:
    """The parameters of a command by the names that they have in a file: `pixel-size`, `in`."""
    keys = {}
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            keys[(parameter.metavar or parameter.name).lower().partition(".")[0]] = parameter
        else:
            keys |= {option.removeprefix("--"): parameter for option in parameter.opts if option.startswith("--")}
    return {key: parameter for key, parameter in keys.items() if key not in COMMAND_LINE_ONLY}


def _values(
    path: Path, name: str, table: Mapping[str, Any], command: Any, lines: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    """The values of one table by parameter; raises UsageError for keys and kinds of values that are not known."""
    keys, hints = keys_of(command), typing.get_type_hints(command.callback)
    found: dict[str, Any] = {}
    for written, value in table.items():
        key = _dashed(written)
        place = _place(path, lines.get((name, key)))
        if key in COMMAND_LINE_ONLY:
            raise UsageError(f"--config {place}: {written} can only be given on the command line, as --{key}.")
        if key not in keys:
            hint = did_you_mean(key, keys) or f"; `nucseg-batch {name} --help` lists what there is."
            raise UsageError(f"--config {place}: unknown option {written!r} in [{name}]{hint}")
        parameter = keys[key]
        if parameter.name in found:
            raise UsageError(f"--config {place}: {key} is given twice in [{name}].")
        if parameter.name in LISTED_OPTIONS and isinstance(value, list):
            value = ",".join(map(str, value))
        found[parameter.name] = _checked(value, hints[parameter.name], f"--config {place}: {written}")
    return found


def _checked(value: Any, hint: Any, what: str) -> Any:
    """A value as the parser takes it; raises UsageError where it is of another kind than the option's."""
    kind = kind_of(hint)
    if isinstance(kind, type) and issubclass(kind, Enum):
        choices = [str(member.value) for member in kind]
        if value not in choices:
            guess = did_you_mean(str(value), choices)
            raise UsageError(f"{what} must be one of {', '.join(choices)}, but is {value!r}{guess or '.'}")
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is bool:
        fits = isinstance(value, bool)
    elif kind is int:
        fits = number and isinstance(value, int)
    elif kind is float:
        fits = number
    elif kind is list:
        value = [value] if isinstance(value, str) else value
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    else:  # texts, some of which are often numbers, such as those of channels
        fits = isinstance(value, str) or number
        value, kind = str(value) if number else value, str
    if not fits:
        said = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
        raise UsageError(f"{what} must be {_WORDS[kind]}, but is {said}.")
    return value


def kind_of(hint: Any) -> Any:
    """The type that a parameter takes, without None: `float` for `float | None`, `list` for `list[str] | None`."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    return typing.get_origin(hint) or hint


def _lines(text: str) -> Iterator[tuple[tuple[str, str], int]]:
    """Table and key of each line that has one, and its number."""
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := re.match(r"""\s*\[\s*["']?([\w-]+)["']?\s*\]""", line):
            table = found[1]
        elif found := re.match(r"""\s*["']?([\w-]+)["']?\s*=""", line):
            yield (table, _dashed(found[1])), number


def _dashed(key: str) -> str:
    return key.replace("_", "-")


def _place(path: Path, line: int | None) -> str:
    return str(path) if line is None else f"{path}, line {line}"
