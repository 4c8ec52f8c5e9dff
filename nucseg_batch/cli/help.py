"""What all commands have in common once they are built: options for everywhere, and help that is easy on the eye."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import typer

EVERYWHERE = "Every command"
"""Panel of the options that every command has."""

EXAMPLES = "Examples:"
"""First line of the paragraph whose lines stay apart."""


def _joined_lines(text: str) -> str:
    """A help text, each of whose paragraphs but the examples is one line, which the terminal breaks."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(one if one.startswith(EXAMPLES) else one.replace("\n", " ") for one in paragraphs)


def with_common_options(group: Any, names: frozenset[str]) -> Any:
    """The program, each of whose commands has copies of its own options of these names, for help and completion.

    They are read by `main`, so that the copies' values go nowhere. Flags lose the type that the help would show.
    """
    common = [copy.copy(one) for one in group.params if one.name in names]
    for one in common:
        one.expose_value, one.rich_help_panel = False, EVERYWHERE
    for command in (group, *group.commands.values()):
        command.help = _joined_lines(command.help or "")
        if command is not group:
            command.params.extend(common)
        context = typer.Context(command, help_option_names=["-h", "--help"])
        asked = command.get_help_option(context)
        if asked is not None and command is not group:
            asked.rich_help_panel = EVERYWHERE
        for one in (*command.params, asked):
            if getattr(one, "is_flag", False) and one.metavar is None:
                one.metavar = ""
    return group
