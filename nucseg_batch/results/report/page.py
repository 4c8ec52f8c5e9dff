"""The page around the sections: one file that asks nothing of any network, and lets nothing but its own script run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from nucseg_batch import __version__
from nucseg_batch.results.report.markup import Markup, element


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own."""

    anchor: str
    """What links to it are called."""
    title: str
    """Its heading."""
    content: Markup
    """What is below."""


def page(title: str, header: Markup, sections: Sequence[Section]) -> str:
    """The whole document."""
    style, script = _own("page.css"), _own("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="generator", content=f"nucseg-batch {__version__}"),
        element("title", title),
        element("style", style),
    )
    links = (element("li", element("a", section.title, href=f"#{section.anchor}")) for section in sections)
    body = element(
        "body",
        element("header", header, element("nav", element("ul", *links), aria_label="Sections")),
        element("main", *map(_section, sections)),
        element(
            "footer",
            f"Made by nucseg-batch {__version__}. This file is complete: it loads nothing, and may be kept and sent.",
        ),
        element("dialog", aria_label="Enlarged picture"),
        element("script", script),
    )
    return "<!DOCTYPE html>\n" + element("html", head, Markup("\n"), body, lang="en") + "\n"


def _section(section: Section) -> Markup:
    return element("section", element("h2", section.title), section.content, Markup("\n"), id=section.anchor)


def _own(name: str) -> Markup:
    """A file of this package that goes into the page as it is."""
    return Markup(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def table(head: Sequence[str], rows: Sequence[Sequence[Markup]], kind: str | None = None) -> Markup:
    """A table of cells that were made with `cell` and `name_cell`."""
    top = element("thead", element("tr", *(element("th", words, scope="col") for words in head)))
    body = element("tbody", *(element("tr", *cells) for cells in rows))
    return element("div", element("table", top, body, class_=kind), class_="wide")


def cell(*content: str | Markup, number: bool = False) -> Markup:
    """A cell of a table."""
    return element("td", *content, class_="number" if number else None)


def name_cell(*content: str | Markup) -> Markup:
    """The first cell of a row, which says what the row is of."""
    return element("th", *content, scope="row", class_="kind")


def soft(*words: str | Markup) -> Markup:
    """A paragraph of less weight."""
    return element("p", *words, class_="soft")
