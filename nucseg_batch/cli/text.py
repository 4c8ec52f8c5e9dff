"""Text that any terminal, log and encoding can show."""

from __future__ import annotations


def three_digits(value: float) -> str:
    """A speed or size with three digits, or all before the point, and never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def counted(number: int, word: str) -> str:
    """`1 unit`, `2 units`."""
    return f"{number} {word}{'s' * (number != 1)}"
