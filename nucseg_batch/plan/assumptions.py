"""What was assumed of an input that does not say it: a record of each guess, and the refusal of doubtful ones.

Whoever guesses makes an `Assumption`: discovery puts it into `Discovery.assumptions`, a reader into
`Header.assumptions`. `inspect`, the log, the provenance and the report show all of them; `--strict` refuses the
doubtful ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nucseg_batch.errors import DoubtfulInputError

STRICT_SHOWN = 3
"""Doubtful assumptions that the refusal lists."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """One guess about the input. Equal guesses about several images are merged, see `merged`."""

    kind: str
    """What it is about: `channels`, `skipped`, `axes`, `colour`, `scale` or `pairing`."""
    what: str
    """What was assumed, as a sentence without a full stop."""
    evidence: str
    """What speaks for it."""
    option: str
    """How to say otherwise: an option such as `--channel each`, or what else to do."""
    doubtful: bool = False
    """Whether the evidence is weak, so that `--strict` refuses it."""
    images: int = 1
    """How many images it concerns."""
    example: str = ""
    """Key of the first of them; empty where `what` says it."""

    @property
    def text(self) -> str:
        """The assumption as one line for the user."""
        where = ""
        if self.example:
            more = f" and {self.images - 1} more" if self.images > 1 else ""
            where = f"{self.example}{more}: "
        return f"{where}{self.what} ({self.evidence}); if that is wrong: {self.option}"


def merged(assumptions: Iterable[Assumption]) -> tuple[Assumption, ...]:
    """Equal assumptions as one with the number of all their images and the first example; doubtful ones first.

    The order is otherwise that in which they first came.
    """
    found: dict[Assumption, Assumption] = {}
    for one in assumptions:
        kind = replace(one, images=1, example="")
        earlier = found.get(kind)
        if earlier is None:
            found[kind] = one
        else:
            found[kind] = replace(earlier, images=earlier.images + one.images)
    return tuple(sorted(found.values(), key=lambda one: not one.doubtful))


def doubt_error(assumptions: Sequence[Assumption]) -> DoubtfulInputError | None:
    """The refusal of doubtful assumptions that `--strict` asks for; None where there are none."""
    doubtful = [one.text for one in assumptions if one.doubtful]
    if not doubtful:
        return None
    more = len(doubtful) - STRICT_SHOWN
    lines = doubtful[:STRICT_SHOWN] + ([f"and {more} more, see nucseg-batch inspect"] if more > 0 else [])
    return DoubtfulInputError(f"--strict: the input leaves room for doubt. Without --strict: {'; '.join(lines)}.")
