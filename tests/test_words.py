"""Pages, help and messages keep to the word list in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = sorted((ROOT / "nucseg_batch").rglob("*.py"))


def avoided() -> list[str]:
    """Words on the left of the table."""
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Words")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")][1:]
    return [word.strip() for row in rows for word in row.split(",")]


FORBIDDEN = re.compile(rf"\b({'|'.join(avoided())})\b", re.IGNORECASE)


def prose(page: Path) -> str:
    """A page without code, names in code and the word list itself."""
    text = page.read_text(encoding="utf-8")
    if page.name == "CONTRIBUTING.md":
        before, after = text.split("## Words")
        text = before + after.partition("\n## ")[2]
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Literal texts of a source file that users may see, with their lines: all but docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.If)
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_the_list_is_read() -> None:
    """Else nothing would be refused."""
    assert {"in hand", "go on"} <= set(avoided())
    assert FORBIDDEN.search("what is in hand is finished")
    assert not FORBIDDEN.search("on the other hand")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_plain_words(page: Path) -> None:
    found = [match[0] for match in FORBIDDEN.finditer(prose(page))]
    assert not found, f"{page.name}: {found}; see the words in CONTRIBUTING.md"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_help_and_messages_use_plain_words(path: Path) -> None:
    found = {f"line {line}": text for line, text in strings(path) if FORBIDDEN.search(text) and " " in text}
    assert not found, "see the words in CONTRIBUTING.md"
