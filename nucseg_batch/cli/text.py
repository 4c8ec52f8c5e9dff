"""Text that any terminal, log and encoding can show."""

from __future__ import annotations

from nucseg_batch.files.names import printable


def readable(text: str) -> str:
    """One line without control characters; names that are not UTF-8 as the tables write them."""
    return "".join(c if c.isprintable() else " " if c in "\n\t" else f"\\x{ord(c):02x}" for c in printable(text))


def three_digits(value: float) -> str:
    """A speed or size with three digits, or all before the point, and never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
