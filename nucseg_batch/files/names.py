"""Names as text: file names are bytes, tables and terminals are UTF-8."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from nucseg_batch.errors import nearest


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
