"""The pages of documentation as their readers meet them: headings, links, tables and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
PAGES.append(ROOT / "nucseg_batch" / "models" / "README.md")
FENCE = re.compile(r"^( *)(```+|~~~+)(.*)$")
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
"""A link or picture in a line; text in square brackets may hold one pair of these."""
COMMAND = re.compile(r"(?:^|[\s/(])nucseg-batch (?P<rest>\S.*)$")
AFTER = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "2>"})
"""Words with which a command ends and something else of the shell begins."""


@dataclass(frozen=True)
class Block:
    """A block of code."""

    language: str
    """What stands after its fence; empty for indented code."""
    lines: tuple[str, ...]
    """Its lines."""


def prose(text: str) -> Iterator[str]:
    """The lines of a page outside of fenced code."""
    fence = ""
    for line in text.splitlines():
        found = FENCE.match(line)
        if found and not fence:
            fence = found[2]
        elif found and found[2].startswith(fence) and not found[3].strip():
            fence = ""
        elif not fence:
            yield line


def blocks(text: str) -> Iterator[Block]:
    """Fenced blocks of code, and all indented lines as one block without a language."""
    fence, language, lines = "", "", list[str]()
    for line in text.splitlines():
        found = FENCE.match(line)
        if found and not fence:
            fence, language, lines = found[2], found[3].strip(), []
        elif found and found[2].startswith(fence) and not found[3].strip():
            yield Block(language, tuple(lines))
            fence = ""
        elif fence:
            lines.append(line)
    yield Block("", tuple(line.strip() for line in prose(text) if line.startswith("    ")))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    names = set()
    for line in prose(text):
        heading = re.match(r"^#{1,6} +(.*?)(?: +#+)?$", line)
        if not heading:
            continue
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names


def links(text: str) -> list[str]:
    """Where a page's links and pictures lead, code apart."""
    return [found for line in prose(text) for found in LINK.findall(re.sub(r"`[^`]*`", "code", line))]


def section(text: str, heading: str) -> str:
    """What stands below a heading, to the next one of its rank or above."""
    lines = text.splitlines()
    start = lines.index(heading)
    rank = len(heading) - len(heading.lstrip("#"))
    ends = (i for i in range(start + 1, len(lines)) if re.match(rf"^#{{1,{rank}}} ", lines[i]))
    return "\n".join(lines[start + 1 : next(ends, len(lines))])


def first_cells(text: str) -> list[str]:
    """The names in backticks with which rows of tables begin, and whatever stands after them in that cell."""
    rows = (re.match(r"^\| `([^`]+)`([^|]*)\|", line) for line in text.splitlines())
    return [f"{row[1]}{row[2].rstrip()}" for row in rows if row]


def commands(text: str) -> Iterator[list[str]]:
    """The words after `nucseg-batch` of every call of it in code for a shell."""
    for block in blocks(text):
        if block.language not in ("", "bash", "sh"):
            continue
        for line in "\n".join(block.lines).replace("\\\n", " ").splitlines():
            found = COMMAND.search(line)
            if found is None or line.lstrip().startswith("#"):
                continue
            words = shlex.split(found["rest"], comments=True)
            ends = [i for i, word in enumerate(words) if word in AFTER]
            yield words[: min(ends, default=len(words))]
