"""HTML and SVG as text: whatever is not made here is escaped, so that no name of a file can become markup."""

from __future__ import annotations

import html
import unicodedata

from nucseg_batch.files.names import printable

EMPTY = frozenset({"br", "img", "input", "meta", "line", "rect", "path"})
"""Elements without content; of SVG those that are only ever used so."""
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of characters that are not seen, or that change how others are: they are written as numbers."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | float | None | Markup
"""What an element can hold; None is left out, and all but Markup is escaped."""


def text(value: Content) -> Markup:
    """A value as HTML: names that are not UTF-8 as the tables write them, unseen characters by number."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return Markup("")
    plain = printable(str(value))
    if not plain.isprintable():
        plain = "".join(_seen(character) for character in plain)
    return Markup(html.escape(plain))


def _seen(character: str) -> str:
    return f"\\x{ord(character):02x}" if unicodedata.category(character) in HIDDEN else character


def element(name: str, /, *content: Content, **attributes: Content | bool) -> Markup:
    """One element. Attributes: `class_` is `class`, `aria_label` is `aria-label`; None and False are left out."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(f" {key}" if value is True else f' {key}="{html.escape(_attribute(value))}"')
    inner = "".join(map(text, content))
    parts.append(">" if name in EMPTY and not inner else f">{inner}</{name}>")
    if name in ("line", "rect", "path") and not inner:
        parts[-1] = "/>"
    return Markup("".join(parts))


def _attribute(value: Content) -> str:
    return html.unescape(text(value)) if not isinstance(value, Markup) else str(value)


def join(*parts: Content) -> Markup:
    """Several parts, one after the other."""
    return Markup("".join(map(text, parts)))


def prose(words: str) -> Markup:
    """A sentence in which `code` stands between backticks."""
    parts = words.split("`")
    return join(*(element("code", part) if number % 2 else part for number, part in enumerate(parts)))


def count(number: int, one: str, more: str | None = None) -> str:
    """A number with its noun: `1 image`, `12,345 images`."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def figure(value: float) -> str:
    """A measured value with three digits, or all before the point, and never an exponent."""
    if value != value:
        return "unknown"
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.4f}"


def percent(part: float, whole: float = 1.0) -> str:
    """A share as people say it: `12 %`, `0.4 %`; `under 0.1 %` for what would round to nothing."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "under 0.1 %"
    return f"{share:.0f} %" if share >= 9.5 or share == round(share) else f"{share:.1f} %"
