"""Help is what a newcomer reads first, and often all."""

from __future__ import annotations

import re
import shlex
import typing
from pathlib import Path
from typing import Any

import pytest
from command import call
from typer import Context

from nucseg_batch.cli.global_options import take
from nucseg_batch.cli.help import EVERYWHERE
from nucseg_batch.cli.main import parser

ROOT = Path(__file__).parents[2]
COMMANDS: dict[str, Any] = parser().commands
PAGES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))))
UNITS = r"PX|UM|MPX|S\b|MB|GB|P\b|RATE|N\b|\d+ (to|or) \d+|in pixels|percentage"
"""What the metavar or help of a number says: its unit, or that it counts or within which numbers it lies."""


def examples(command: Any) -> list[str]:
    lines = (line.strip() for line in (command.help or "").splitlines())
    return [line for line in lines if line.startswith("nucseg-batch ")]


def options(command: Any) -> list[Any]:
    return [one for one in command.params if one.param_type_name == "option"]


@pytest.fixture
def named_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which the files are that examples name and commands look for while they parse."""
    (tmp_path / "mine.keras").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("named_files")
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_parse(name: str) -> None:
    """Examples are copied; one that fails costs more trust than none gives."""
    found = examples(COMMANDS[name])
    assert 2 <= len(found) <= 5, found
    assert any(line.split()[1] == name for line in found)
    for line in found:
        assert len(line) <= 78, "it must not be broken on a terminal of 80 columns"
        words = shlex.split(re.split(r" [|>] ", line)[0])[1:]
        _, (command, *rest) = take(words, ())
        COMMANDS[command].make_context(command, list(rest))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_and_no_argument_is_without_help(name: str) -> None:
    """An option without help is a riddle."""
    for one in COMMANDS[name].params:
        assert one.help, f"{name} {one.name}"
        assert not re.search(r"\[[a-z]", one.help), "brackets are markup, and vanish"
    assert not re.search(r"\[[a-z]", COMMANDS[name].help), "brackets are markup, and vanish"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_number_says_its_unit_or_its_range(name: str) -> None:
    """Is a diameter in pixels or in micrometres? A wrong guess is a night's run for nothing."""
    command = COMMANDS[name]
    hints = typing.get_type_hints(command.callback)
    for one in options(command):
        kinds = {hints.get(one.name), *typing.get_args(hints.get(one.name))}
        if kinds & {int, float}:
            assert re.search(UNITS, f"{one.metavar} {one.help}"), f"{name} {one.name}: {one.metavar} {one.help}"
            assert one.metavar, f"{name} {one.name} shows only its type"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_a_group_that_fits_the_job(name: str) -> None:
    """Forty options in one list are read by nobody."""
    for one in options(COMMANDS[name]):
        assert one.rich_help_panel, f"{name} {one.name}"
    shared = {one.name for one in options(COMMANDS[name]) if one.rich_help_panel == EVERYWHERE}
    assert shared == {"quiet", "verbose", "config", "debug"}


def test_every_command_is_in_a_group_and_in_the_pages() -> None:
    """A command that no page shows is never found."""
    for name, command in COMMANDS.items():
        assert command.rich_help_panel, name
        assert f"nucseg-batch {name}" in PAGES


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_the_terminal(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal and in a pipe: no line too long, no control characters, nothing cut."""
    monkeypatch.setenv("COLUMNS", str(width))
    told = call(*([name] if name else []), "--help").stdout
    assert max(map(len, told.splitlines())) <= width
    assert "\x1b" not in told
    assert "…" not in told
    for line in examples(COMMANDS[name]) if name and width == 80 else ():
        assert any(shown.strip() == line for shown in told.splitlines()), line


@pytest.mark.parametrize("name", COMMANDS)
def test_paragraphs_are_broken_by_the_terminal_alone(name: str) -> None:
    """Lines of the source, broken again, are long and short by turns; only examples have lines of their own."""
    paragraphs = COMMANDS[name].help.split("\n\n")
    assert paragraphs[-1].startswith("Examples:\n")
    assert not any("\n" in one for one in paragraphs[:-1])


@pytest.mark.parametrize("arguments", [(), ("--quiet",)])
def test_a_call_without_a_command_shows_the_help_and_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    """A script whose variable was empty must not be told that all is well."""
    assert call(*arguments, code=2).stdout == call("--help").stdout


def test_flags_show_no_type_and_every_choice_is_told() -> None:
    """`--overwrite <bool>` would ask for a value that the option does not take."""
    told = " ".join(call("segment", "--help").stdout.split())
    assert "<bool>" not in told
    for command in COMMANDS.values():
        for one in options(command):
            for choice in one.type_descriptor.choices or ():
                shown = f"{one.display_type_rich(Context(command))} {one.help}"
                assert str(choice.value) in shown, one.name


def test_the_model_that_training_starts_from_can_be_named() -> None:
    """A model that was kept under a name, and the one of the package, are easily missed."""
    said = next(one for one in COMMANDS["train"].params if one.name == "init")
    assert said.metavar == "FILE|NAME"
    assert all(what in said.help for what in ("a file", "kept by `models add`", "`default`"))
