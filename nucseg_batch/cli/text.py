"""Text that any terminal, log and encoding can show."""

from __future__ import annotations


def three_digits(value: float) -> str:
    """A speed or size with three digits, or all before the point, and never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
