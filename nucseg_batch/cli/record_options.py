"""Builds command options from settings fields, which declare name, type, default, help, unit and group once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import typer

from nucseg_batch.options import Option, option_names
from nucseg_batch.settings import (
    COMPUTING,
    DATA,
    INPUT,
    NETWORK,
    NUCLEI,
    OUTPUT,
    RESUMING,
    TRAINING,
)

CLUSTER = "Clusters"
PANELS = (INPUT, DATA, NUCLEI, NETWORK, TRAINING, OUTPUT, COMPUTING, RESUMING, CLUSTER)
"""Groups of options in the order of the help; a command's own groups come before."""
Command = Callable[..., None]
"""The function of a command."""


def with_options(*only: str, **help: str) -> Callable[[Command], Command]:
    """Gives a command the options of each parameter that is a record of settings, see `options.option`.

    The command gets the record, made of what was given. only: which options; all if none is named. help: other help of
    some. Options are shown in the order of PANELS.
    """

    def replaced(command: Command) -> Command:
        hints = typing.get_type_hints(command, include_extras=True)
        records: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
        parameters: list[inspect.Parameter] = []
        for name, parameter in inspect.signature(command).parameters.items():
            if name in records:
                parameters += [one for one in _options(records[name], help) if one.name in only or not only]
            else:
                parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
        parameters.sort(key=lambda one: _rank(one.annotation))

        @functools.wraps(command)
        def parsed(**given: Any) -> None:
            for name, record in records.items():
                given[name] = record(**{one: getattr(value, "value", value) for one, value in _taken(given, record)})
            command(**given)

        parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        parsed.__annotations__ = {one.name: one.annotation for one in parameters}
        return parsed

    return replaced


def _taken(given: dict[str, Any], record: Any) -> list[tuple[str, Any]]:
    """What was given for the options of a record, which is taken out."""
    return [(name, given.pop(name)) for name in option_names(record) if name in given]


def _options(record: Any, help: Mapping[str, str]) -> Iterator[inspect.Parameter]:
    """The parameters of a command for the fields of a record that are options."""
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        option: Option | None = field.metadata.get("option")
        if option is None:
            continue
        parsed, default = hints[field.name], cast(Any, field.default)
        choices = next((one for one in (parsed, *get_args(parsed)) if get_origin(one) is Literal), None)
        if choices is not None:
            kind: Any = StrEnum(field.name, [(value, value) for value in get_args(choices)])  # type: ignore[misc]
            parsed, default = (kind, kind(default)) if parsed == choices else (kind | None, default)
        info = typer.Option(
            f"--{field.name.replace('_', '-')}",
            metavar=option.metavar,
            help=help.get(field.name, option.help),
            rich_help_panel=option.panel,
            show_default=default is not None,
        )
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[parsed, info]
        )


def _rank(annotation: Any) -> int:
    """Where a parameter is among others: arguments and options of other groups, then options by their group."""
    panels = [getattr(one, "rich_help_panel", None) for one in getattr(annotation, "__metadata__", ())]
    return next((PANELS.index(panel) + 1 for panel in panels if panel in PANELS), 0)
