"""docs/command-line.md says what programs and schedulers rely on; so it must say all of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from nucseg_batch import errors
from nucseg_batch.cli.config import read_config
from nucseg_batch.cli.main import parser
from nucseg_batch.cli.shares import ARRAYS
from nucseg_batch.executors.dask_pool import VARIABLES
from nucseg_batch.files.run.locks import JOBS

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")


def test_every_exit_code_has_a_row() -> None:
    """A scheduler's script branches on them."""
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    codes |= {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == codes


def test_every_variable_that_is_read_is_named() -> None:
    """Hidden variables make a run that nobody can repeat."""
    for name in (*(name for name, _ in ARRAYS), *(name for _, name in JOBS), VARIABLES[0], "XDG_CACHE_HOME"):
        assert f"`{name}`" in PAGE


def test_the_example_of_a_file_is_one_that_is_taken(tmp_path: Path) -> None:
    """It is what everybody begins with."""
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "run.toml"
    path.write_text(text)
    config = read_config(path, parser().commands)
    assert set(tomllib.loads(text)) <= set(config.defaults)
    assert config.defaults["plan"]["shares"] == 64
    assert config.defaults["plan"]["diameter"] == 26
