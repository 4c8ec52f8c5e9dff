"""Names as text: file names are bytes, tables and terminals are UTF-8; and what a name that nobody knows may mean."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

CLOSE = 0.75
"""Similarity, as difflib measures it, from which a word is taken for another one with a typing error."""


def printable(key: str) -> str:
    """An image's key as UTF-8 text from which `file_name` finds the key again.

    Bytes of the name that are not UTF-8 and NUL, of which many readers make the end of a cell, become %XX, and a % that
    would read as such becomes %25.
    """
    if key.isascii() and "%" not in key and "\0" not in key:
        return key
    key = re.sub(r"%(?=[0-9A-Fa-f]{2})", "%25", key).replace("\0", "%00")
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in key)


def readable(text: str) -> str:
    """One line that any terminal and log can show. Names stand as they are, also with a %, so that they can be copied.

    Bytes of names that are not UTF-8 become %XX, as in the tables.
    Control characters, and marks that are not seen or turn the direction of text, become escapes of Python.
    """
    return "".join(c if c.isprintable() else " " if c in "\n\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"%{code - 0xDC00:02X}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def counted(keys: Collection[str]) -> str:
    """So many images, of which the first is named."""
    more = len(keys) > 1
    return f"{len(keys)} image{'s' * more} ({min(keys)}{', ...' * more})"


def file_name(text: str) -> str:
    """The key of an image from its text in a table, as Python names files."""
    return os.fsdecode(unquote_to_bytes(text)) if "%" in text else text


def nearest(word: str, known: Collection[str]) -> str | None:
    """The known word that is meant by one with a typing error, or of which it is the beginning or a longer form.

    Both are given without regard to capitals and to the dashes of options; None where nothing is near.
    """
    plain = {name.lower().lstrip("-"): name for name in known}
    word = word.lower().lstrip("-")
    close = difflib.get_close_matches(word, plain, n=1, cutoff=CLOSE) or [
        name for name in plain if min(len(name), len(word)) > 2 and (name.startswith(word) or word.startswith(name))
    ]
    return plain[close[0]] if close else None


def did_you_mean(word: str, known: Collection[str], *, mark: str = "'") -> str:
    """`; did you mean 'segment'?`, to put behind a message; nothing where no known word is near."""
    close = nearest(word, known)
    return f"; did you mean {mark}{close}{mark}?" if close else ""


def name_beside(place: str, ending: str = "") -> str:
    """The same for a path that is not there, among what is in its folder and has this ending.

    Endings are not compared: all models are `.keras`, and what is mistyped may be the ending.
    """
    folder, name = os.path.split(place.rstrip(os.sep))
    try:
        found = [other for other in os.listdir(folder or ".") if other.endswith(ending) and other != name]
    except OSError:
        return ""
    stems = {os.path.splitext(other)[0]: other for other in found if not other.startswith(".")}
    close = nearest(os.path.splitext(name)[0], stems)
    return f"; did you mean '{printable(os.path.join(folder, stems[close]))}'?" if close else ""
