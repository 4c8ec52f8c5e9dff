"""Completion as a shell does it: by running the program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nucseg_batch.cli.completion import join_words

PROGRAM = f"""#!/bin/sh
exec '{sys.executable}' -m nucseg_batch "$@"
"""
ASK = """
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_nucseg_batch_completion nucseg-batch
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables of a shell that finds the program by its name, and a home of its own."""
    program = tmp_path / "bin" / "nucseg-batch"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}


def bash(environment: dict[str, str], script: str, *words: str) -> list[str]:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    command = ["bash", "--norc", "-c", script, "bash", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["se"], ["segment"]),
        (["segment", "--dev"], ["--device"]),
        (["segment", "--device", ""], ["auto", "cpu", "gpu"]),
        (["segment", "--device", "=", "c"], ["cpu"]),
        (["--quiet", "train", "--architecture", "mob"], ["mobilenetv2", "mobilenetv3"]),
        (["status", "--verb"], ["--verbose"]),
        (["segment", "ima"], [""]),  # nothing of ours: bash goes on with names of files
    ],
    ids=lambda value: " ".join(value),
)
def test_bash_completes_commands_options_and_choices(
    environment: dict[str, str], words: list[str], found: list[str]
) -> None:
    """With what `--show-completion` prints, as the docs say."""
    script = 'eval "$(nucseg-batch --show-completion)"' + ASK
    assert bash(environment, script, "nucseg-batch", *words) == found


def test_completion_is_installed_where_bash_looks(environment: dict[str, str], tmp_path: Path) -> None:
    """Once, by one command; an interactive bash then knows it."""
    bash(environment, "nucseg-batch --install-completion; true")
    assert "nucseg-batch.sh" in (tmp_path / ".bashrc").read_text()
    (known,) = bash(environment, f"source {tmp_path}/.bashrc; complete -p nucseg-batch")
    assert known == "complete -o default -F _nucseg_batch_completion nucseg-batch"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_of_their_own(environment: dict[str, str], shell: str) -> None:
    """That their choices are told was tried by hand; that the program answers them is held here."""
    asked = {**environment, "_NUCSEG_BATCH_COMPLETE": f"complete_{shell}"}
    asked |= {"_TYPER_COMPLETE_ARGS": "nucseg-batch segment --device ", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    (told,) = {" ".join(bash(asked, "nucseg-batch"))}
    assert all(choice in told for choice in ("auto", "cpu", "gpu"))


def test_only_a_request_for_completion_is_changed() -> None:
    """And only `=` behind an option: a file may be called `=`."""
    plain = {"COMP_WORDS": "nucseg-batch\n--device\n=\nc", "COMP_CWORD": "3"}
    before = dict(plain)
    join_words(plain)
    assert plain == before
    asked = {**plain, "_NUCSEG_BATCH_COMPLETE": "complete_bash"}
    join_words(asked)
    assert (asked["COMP_WORDS"], asked["COMP_CWORD"]) == ("nucseg-batch\n--device\nc", "2")
    asked |= {"COMP_WORDS": "nucseg-batch\nsegment\n=\n--device\n=", "COMP_CWORD": "4"}
    join_words(asked)
    assert (asked["COMP_WORDS"], asked["COMP_CWORD"]) == ("nucseg-batch\nsegment\n=\n--device\n", "4")
