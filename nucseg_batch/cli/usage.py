"""Errors of the parser as one line that says what was asked, what is known, and where to read on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

from nucseg_batch.errors import UsageError, did_you_mean
from nucseg_batch.settings import LISTED_OPTIONS

_WORDS = (
    (r"Input should be a valid number.*", "a number"),
    (r"Input should be a valid integer.*", "a whole number"),
    (r"Input should be greater than or equal to (\S+)", r"\1 or more"),
    (r"Input should be less than or equal to (\S+)", r"\1 at most"),
    (r"Input should be a valid boolean.*", "true or false"),
)
"""What the parser says of a value that it cannot take, and how it is said to people."""


_ONE_OF = {
    "link": "a run links nuclei over z-slices or over time points; for both, use two OUTs",
    "ring": "a run makes one ring around each nucleus",
    "expand": "a run makes one cell around each nucleus",
    "channel": "a run segments one channel; the others are measured",
    "pattern": "a call takes one pattern, such as '[ab]*.tif'",
}
"""Options of which two values could be meant together, but cannot be combined, and why."""
_LISTS = LISTED_OPTIONS - _ONE_OF.keys()
"""Options whose values are combined with commas."""


def check_repeated(arguments: Sequence[str], options: Mapping[str, Any]) -> None:
    """Raises UsageError for an option with several values that could be meant together, of which one would count.

    arguments: the command line; options: those of the command, by name, as the parser has them. Of other options the
    last value counts, so that a script can put its own before those of its caller.
    """
    for name in (name for name in options if name.startswith("--")):
        key = name.removeprefix("--").replace("-", "_")
        values = list(dict.fromkeys(_values([name], arguments))) if key in _ONE_OF or key in _LISTS else []
        if len(values) > 1 and key in _LISTS:
            raise UsageError(f"{name} is given several times; join the values: {name} {','.join(values)}.")
        if len(values) > 1:
            raise UsageError(f"{name} is {' and '.join(values)}: {_ONE_OF[key]}.")


def usage_line(error: typer.TyperException, arguments: Sequence[str], commands: Mapping[str, Any]) -> str:
    """An error of the parser in one line.

    error: what the parser raised; arguments: the command line; commands: all that there are, as the parser has them.
    """
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    command = None if name is None else commands.get(name)
    if name is not None and command is None:
        hint = did_you_mean(name, commands) or f"; commands are {', '.join(commands)}"
        said = f"there is no command {name!r}{hint}"
    else:
        said = _said(error, arguments, [] if command is None else command.params)
    end = "" if said.endswith(("?", ".")) else "."
    return f"{said}{end} `nucseg-batch {f'{name} ' if command else ''}--help` shows more."


def _said(error: typer.TyperException, arguments: Sequence[str], parameters: Sequence[Any]) -> str:
    message = error.format_message()
    if option := getattr(error, "option_name", None):
        known = {name: one for one in parameters for name in one.opts if one.param_type_name == "option"}
        if option not in known:
            options = [name for name in known if name.startswith("--")]
            return f"there is no option {option}{did_you_mean(option, options, mark='')}"
        if known[option].is_flag:
            return f"{option} takes no value; leave ={_given([option], arguments)} away"
        return f"{option} needs a value: {option} {known[option].metavar or 'VALUE'}"
    if found := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message):
        takes = [one.metavar or one.name for one in parameters if one.param_type_name == "argument"]
        only = f"after {' and '.join(takes)} only options follow" if takes else "only options follow"
        return f"{found[1]!r} is too much: {only} (quote a glob, and names with spaces)"
    parameter = getattr(error, "param", None)
    if message.startswith("Missing argument") and parameter is not None:
        return (
            f"{parameter.metavar or parameter.name} is missing: give a {parameter.help[:1].lower()}{parameter.help[1:]}"
        )
    if parameter is not None:
        return _of_value(error, parameter, arguments)
    return message[:1].lower() + message[1:]


def _of_value(error: typer.TyperException, parameter: Any, arguments: Sequence[str]) -> str:
    """What is wrong with a value: which was expected, and which came."""
    reason = str(error.message).removeprefix("Value error, ")
    is_option = parameter.param_type_name == "option"
    name = max(parameter.opts, key=len) if is_option else parameter.metavar or parameter.name
    if found := re.match(r"'(.*)' is not one of (.*?)\.?$", reason, re.DOTALL):
        choices = re.findall(r"'([^']*)'", found[2])
        return f"{name} must be one of {', '.join(choices)}, but is {found[1]!r}{did_you_mean(found[1], choices)}"
    for pattern, words in _WORDS:
        if found := re.match(pattern, reason):
            given = _given(parameter.opts, arguments)
            return f"{name} must be {found.expand(words)}" + (f", but is {given!r}" if given is not None else "")
    return f"{name}: {reason[:1].lower()}{reason[1:]}"


def _given(options: Sequence[str], arguments: Sequence[str]) -> str | None:
    """What the command line says first for an option."""
    return next(_values(options, arguments), None)


def _values(options: Sequence[str], arguments: Sequence[str]) -> Iterator[str]:
    """All that the command line says for an option."""
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        name, equals, value = argument.partition("=")
        if name in options and (equals or following is not None):
            yield value if equals else str(following)
