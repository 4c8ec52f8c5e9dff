"""The page: templates in which all that is no markup is escaped, so that no name of a file can become markup."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nucseg_batch import __version__
from nucseg_batch.files.names import printable
from nucseg_batch.results.report.words import count, figure, percent

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of characters that are not seen, or that change how others are: they are written as numbers."""


def page(**found: Any) -> str:
    """The whole document: `templates/page.html`, filled in with what was found."""
    return environment().get_template("page.html").render(found)


def environment() -> Environment:
    """Templates with the functions that they call."""
    made = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "base64": lambda content: base64.b64encode(content).decode(),
        "commas": "{:,}".format,
        "count": count,
        "figure": figure,
        "percent": percent,
        "sha256": lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
        "version": __version__,
    }
    return made


def _visible(value: Any) -> Any:
    """A value as it is shown: names that are not UTF-8 as the tables write them, unseen characters by number."""
    if value is None or isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    plain = printable(value)
    return plain if plain.isprintable() else "".join(map(_seen, plain))


def _seen(character: str) -> str:
    return f"\\x{ord(character):02x}" if unicodedata.category(character) in HIDDEN else character
