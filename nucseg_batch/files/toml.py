"""Writes TOML: tables of plain values, exactly as Python's `tomllib` reads them back.

Python reads TOML and does not write it. What options need of the format is so little that these lines are less to look
after than a library: text, whole numbers, numbers, yes and no, and lists of these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

Value = str | bool | int | float | Sequence["Value"]


def to_toml(tables: Mapping[str, Mapping[str, Value | None]], heading: Sequence[str] = ()) -> str:
    """A document of named tables; None leaves a key out, since TOML has no such value.

    heading: lines of comment before all tables. Names are letters, digits, dashes and underscores. Text that TOML
    cannot hold, such as names of files that are not UTF-8, becomes a comment that says so.
    """
    lines = [f"# {line}" for line in heading]
    for name, values in tables.items():
        lines += ["", f"[{name}]"] if lines else [f"[{name}]"]
        lines += [_line(key, value) for key, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Value) -> str:
    text = f"{key} = {_value(value)}"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"# {key}: its name is not UTF-8, so it cannot stand here"
    return text


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON allows DEL as it is, TOML not
    return f"[{', '.join(_value(item) for item in value)}]"
