"""Writes the page of all options, `docs/options.md`, from the commands: `python docs/write_options.py`."""

from __future__ import annotations

import re
import typing
from collections import defaultdict
from collections.abc import Collection, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from nucseg_batch.cli.config import kind_of
from nucseg_batch.cli.help import EVERYWHERE
from nucseg_batch.cli.main import parser
from nucseg_batch.cli.record_options import PANELS
from nucseg_batch.executors.existing import default_model, fingerprint
from nucseg_batch.options import option_names
from nucseg_batch.settings import REFUSING_OPTIONS, SPEED_OPTIONS, WELLS_OPTIONS, RunSettings, SegmentSettings

PAGE = Path(__file__).with_name("options.md")
KINDS = {bool: "flag", int: "whole number", float: "number", str: "text", Path: "path", list: "text, can be repeated"}
FREE = SPEED_OPTIONS | REFUSING_OPTIONS | WELLS_OPTIONS | set(option_names(RunSettings))
"""Settings that a resumed run may change."""
FIXED = {key.split()[0] for key in fingerprint(default_model(), SegmentSettings(), in_place=True)}
"""Options that a resumed run must share with the run that it resumes."""
HEAD = """# Options

All options of all commands, by the groups of `--help`. This page is generated: `python docs/write_options.py` writes it
from the commands.

- **Values.** PX: pixels; UM: micrometres; NM: nanometres; MPX: megapixels; S: seconds; P: a probability from 0 to 1;
  N: a count. A flag takes no value.
- **Default.** If the column is empty, the description says what happens without the option.
- **Resume.** For `segment` and `plan`: *same* options must have the values that the run was planned with; *free*
  options may differ in each call, because they change no mask and no measurement.
- In a file of `--config`, options have the same names without the leading dashes, see
  [Options in a file](command-line.md#options-in-a-file).
"""


class Row(NamedTuple):
    """An option, as it is in one command or the same in several."""

    panel: str
    names: tuple[str, ...]
    value: str
    default: str
    resume: str
    help: str


def rows() -> dict[Row, list[str]]:
    """All options, and the commands that take each."""
    group = parser()
    found: dict[Row, list[str]] = defaultdict(list)
    for one in group.params:
        found[_row(one, typing.get_type_hints(group.callback).get(one.name), EVERYWHERE)] = []
    for name, command in group.commands.items():
        hints = typing.get_type_hints(command.callback)
        for one in command.params:
            if one.param_type_name == "option" and one.rich_help_panel != EVERYWHERE:
                found[_row(one, hints[one.name], one.rich_help_panel)].append(name)
    return found


def _row(option: Any, hint: Any, panel: str) -> Row:
    kind = bool if option.is_flag else kind_of(hint)
    default = getattr(option.default, "value", option.default)
    resume = "free" if option.name in FREE else "same" if FIXED.intersection(option.opts) else ""
    return Row(
        panel,
        tuple(option.opts),
        _value(kind, option.metavar),
        "" if default is None or kind is bool else f"`{default:g}`" if kind is float else f"`{default}`",
        resume,
        option.help,
    )


def _value(kind: Any, metavar: str | None) -> str:
    """What an option takes: its choices, or a kind with the unit or the forms that the help names."""
    if issubclass(kind, Enum):
        return ", ".join(f"`{one.value}`" for one in kind)
    named = ", ".join(f"`{form}`" for form in (metavar or "").split("|") if form)
    return f"{KINDS[kind]}: {named}" if named else KINDS[kind]


def _prose(text: str) -> str:
    """Help as Markdown: options and what is quoted become code."""
    quoted = re.sub(r"(?<!\w)'([^' ]+)'", r"`\1`", text.replace("|", r"\|"))
    return re.sub(r"(?<![\w`-])--?[a-z][\w-]*(=\S*\w)?", r"`\g<0>`", quoted)


def _section(panel: str, found: dict[Row, list[str]]) -> Iterator[str]:
    common = panel == EVERYWHERE
    heads = ["option", "value", "default", *([] if common else ["commands", "resume"]), "description"]
    yield from ("", f"## {panel}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|")
    for row, commands in found.items():
        if row.panel == panel:
            planned = {"segment", "plan"}.intersection(commands)
            middle = [] if common else [", ".join(f"`{name}`" for name in commands), row.resume if planned else ""]
            cells = [", ".join(f"`{name}`" for name in row.names), row.value, row.default, *middle, _prose(row.help)]
            yield "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _ordered(panels: Collection[str]) -> list[str]:
    known = [EVERYWHERE, *(panel for panel in PANELS if panel in panels)]
    return known + sorted(set(panels) - set(known))


def page() -> str:
    """The page."""
    found = rows()
    sections = [line for panel in _ordered({row.panel for row in found}) for line in _section(panel, found)]
    return HEAD + "\n".join(sections) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
