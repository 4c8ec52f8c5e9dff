"""Documentation that is wrong costs more than none: what of it can be checked is checked here."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
from column_tables import with_column_tables
from pages import DOCS, PAGES, ROOT, anchors, commands, first_cells, links, section
from small_runs import picture, small_run
from test_architecture import FILES_LEVELS, LAYERS

from nucseg_batch.cli.main import app
from nucseg_batch.results.model_export.description import EXAMPLE

OUTPUT = (DOCS / "output.md").read_text(encoding="utf-8")
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]
PATH = re.compile(r"`((?:nucseg_batch|tests|docs|examples)/[\w./-]+)`")
WORDS = 42
"""Where in drawings of layers their names end, and words about them begin."""
each_page = pytest.mark.parametrize("page", PAGES, ids=IDS)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@each_page
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    """A dead link ends somebody's reading; so does one to a heading that was renamed."""
    for link in links(text_of(page)):
        if link.startswith("https://"):
            continue
        place, _, anchor = unquote(link).partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{link}: there is no {target.relative_to(ROOT)}"
        if anchor:
            assert anchor in anchors(text_of(target)), f"{link}: no heading of {target.name} has this anchor"


@each_page
def test_links_to_elsewhere_are_encrypted(page: Path) -> None:
    """Nobody between the reader and the other site may change what is read there."""
    assert not [link for link in links(text_of(page)) if ":" in link and not link.startswith("https://")]


def test_every_page_of_the_documentation_can_be_found() -> None:
    """A page that nothing links to is not read."""
    starts = (ROOT / "README.md", DOCS / "README.md")
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in starts for link in links(text_of(page))}
    assert not {page.name for page in DOCS.glob("*.md")} - {page.name for page in linked} - {"README.md"}


def every_command() -> list[Any]:
    pages = zip(IDS, PAGES, strict=True)
    found = [(name, words) for name, page in pages for words in commands(text_of(page))]
    return [pytest.param(words, id=f"{name}: {' '.join(words)}"[:90]) for name, words in found]


@pytest.mark.parametrize("words", every_command())
def test_commands_that_pages_show_parse(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are copied: one whose command or option is gone fails in front of a newcomer. Nothing is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    kept = tmp_path / "data" / "nucseg-batch" / "models"
    kept.mkdir(parents=True)
    (kept / "confocal.keras").touch()  # as the page on training adds it
    for name in words:
        if "/" not in name and name.endswith((".keras", ".toml")):
            (tmp_path / name).touch()
    group: Any = typer.main.get_command(app)
    common = {name: option.is_flag for option in group.params for name in option.opts}
    words = list(words)
    for place in reversed(range(len(words))):
        if words[place] in common:  # they may stand before a command or after it
            del words[place : place + (1 if common[words[place]] else 2)]
    if not words:
        return
    command = group.commands.get(words[0])
    assert command is not None, f"there is no command {words[0]}"
    rest = [word for word in words[1:] if word not in ("--help", "-h")]
    if len(rest) == len(words) - 1:
        command.make_context(words[0], rest)


def test_the_tables_of_columns_are_those_of_the_records() -> None:
    """`python tests/column_tables.py` rewrites them."""
    assert with_column_tables(OUTPUT) == OUTPUT


def test_the_page_of_options_is_what_the_commands_say() -> None:
    """It is generated; a page that lags behind would be believed."""
    page = runpy.run_path(str(DOCS / "write_options.py"))["page"]()
    assert text_of(DOCS / "options.md") == page, "write it again: python docs/write_options.py"
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        for option in (one for one in command.params if one.param_type_name == "option"):
            names = ", ".join(f"`{one}`" for one in option.opts)
            rows = [line for line in page.splitlines() if line.startswith(f"| {names} |")]
            assert any(f"`{name}`" in row and option.help[:9] in row for row in rows), f"{name} {names}"


def test_the_program_for_exported_networks_is_the_one_that_packages_contain() -> None:
    """The tests of exports run that one."""
    assert f"```python\n{EXAMPLE}```" in text_of(DOCS / "model-export.md")


def test_the_page_of_options_tells_what_a_resumed_run_may_change() -> None:
    """As the settings are marked: another threshold is refused, another batch size is not."""
    rows = text_of(DOCS / "options.md").splitlines()
    words = {
        "threshold": "same",
        "model": "same",
        "in-place": "same",
        "batch-size": "free",
        "strict": "free",
        "grace": "free",
    }
    for name, word in words.items():
        assert any(row.startswith(f"| `--{name}` |") and "`segment`" in row and f"| {word} |" in row for row in rows)


def flat(record: dict[str, Any], known: set[str], before: str = "") -> set[str]:
    """The keys of a record, with those of records in it as `a.b`, unless `a` is known as a whole."""
    keys = set[str]()
    for key, value in record.items():
        name = f"{before}{key}"
        keys |= flat(value, known, f"{name}.") if isinstance(value, dict) and name not in known else {name}
    return keys


def test_what_a_run_leaves_is_in_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key of the provenance, every name in the run folder and every file beside the store."""
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(3))
    run.segment()
    record = json.loads((tmp_path / "out.provenance.json").read_text())
    known = set(first_cells(section(OUTPUT, "## out.provenance.json")))
    assert flat(record, known) - known == set()
    assert known - flat(record, known) <= {"computed.backend"}, "which this small run has none of"
    folder = {re.sub(r"^log.*\.txt$", "log.txt", path.name) for path in run.journal.folder.iterdir()}
    assert folder - set(first_cells(section(OUTPUT, "## The run folder"))) == set()
    assert {path.name.rstrip("/") for path in tmp_path.glob("out.*")} <= {
        cell.rstrip("/") for cell in first_cells(OUTPUT[: OUTPUT.index("## Tables")])
    }


@pytest.mark.parametrize(("marker", "held"), [("layers", LAYERS), ("files", FILES_LEVELS)], ids=["layers", "files"])
def test_the_drawn_layers_are_those_that_are_held(marker: str, held: dict[str, int]) -> None:
    """A drawing that is not checked is wrong within a year."""
    text = text_of(DOCS / "architecture.md")
    drawing = text[text.index(f"<!-- {marker} -->") :].split("```")[1]
    rows = [line[:WORDS].split() for line in drawing.splitlines() if line[:1].isdigit()]
    drawn = {name: int(rank) for rank, *names in rows for name in names}
    assert drawn == held


@each_page
def test_files_that_pages_name_are_there(page: Path) -> None:
    """Who wants to change something begins where a page sends them; what changed may name what is gone."""
    if page.name == "CHANGELOG.md":
        return
    missing = [name for name in PATH.findall(text_of(page)) if not (ROOT / name).exists()]
    assert not missing


def test_the_lines_that_install_are_those_of_the_readme_and_their_extras_exist() -> None:
    """A misspelled extra is a warning of pip, and then a program without what was asked for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme, page = text_of(ROOT / "README.md"), text_of(DOCS / "install.md")
    if (marker := "<!-- install and run command -->") in readme:
        assert readme.split(marker)[1].split("```bash\n")[1].split("```")[0] in page
    examples = [ROOT / "examples" / name for name in ("environment.yml", "nucseg-batch.def", "Dockerfile")]
    places = "\n".join(map(text_of, [*PAGES, *examples]))
    named = re.findall(r"(?:nucseg-batch|(?<=['\" ])\.{1,2})\[([a-z,]+)\]", places)
    assert len(named) > 10
    assert {extra for names in named for extra in names.split(",")} <= set(project["optional-dependencies"])
    assert set(first_cells(section(page, "## On a processor"))) == set(project["optional-dependencies"])
