"""Numbers in the words of people."""

from __future__ import annotations


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
