"""What is offered in place of a word that nobody knows: the right one, or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from nucseg_batch.cli.main import parser
from nucseg_batch.errors import nearest

COMMANDS: dict[str, Any] = parser().commands
OPTIONS = [name for one in COMMANDS["segment"].params for name in one.opts if name.startswith("--")]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--treshold", "--threshold"),
        ("--meomry", "--memory"),
        ("--Channels", "--channel"),
        ("--batch", "--batch-size"),
        ("--dry", "--dry-run"),
        ("--model-type", "--model"),
        ("--num-workers", "--workers"),
    ],
)
def test_a_typing_error_or_another_form_of_an_option_is_understood(word: str, meant: str) -> None:
    assert nearest(word, OPTIONS) == meant


@pytest.mark.parametrize(
    "word", ["--gpu", "--out", "--size", "--tile", "--time", "--force", "--threads", "--epochs", "-x"]
)
def test_an_unrelated_option_is_not_offered(word: str) -> None:
    """`there is no option --gpu; did you mean --run?` sends a newcomer the wrong way."""
    assert nearest(word, OPTIONS) is None


@pytest.mark.parametrize(("word", "meant"), [("sgement", "segment"), ("eval", "evaluate"), ("version", None)])
def test_commands_are_found_likewise(word: str, meant: str | None) -> None:
    assert nearest(word, COMMANDS) == meant
