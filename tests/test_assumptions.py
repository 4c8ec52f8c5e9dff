from __future__ import annotations

from nucseg_batch.errors import DoubtfulInputError
from nucseg_batch.plan import Assumption, doubt, merged
from nucseg_batch.settings import SegmentSettings

SURE = Assumption("axes", "axes are ZYX", "ImageJ metadata", "--axes")
WEAK = Assumption("axes", "axes are CYX", "3 planes", "--axes zyx", doubtful=True)


def test_equal_guesses_are_one_line_with_a_count_and_the_first_example() -> None:
    """A million images of one kind must not print a million lines."""
    of = [Assumption("axes", "a", "b", "c", example=name) for name in ("x.tif", "y.tif", "z.tif")]
    (one,) = merged(of)
    assert one.images == 3
    assert one.text == "x.tif and 2 more: a (b); if that is wrong: c"


def test_doubtful_guesses_come_first_and_strict_refuses_only_these() -> None:
    """What is well founded needs no refusal."""
    assert merged([SURE, WEAK]) == (WEAK, SURE)
    assert doubt([SURE]) is None
    refusal = doubt([SURE, WEAK])
    assert isinstance(refusal, DoubtfulInputError)
    assert "--axes zyx" in str(refusal)
    assert "ImageJ" not in str(refusal)
    assert refusal.exit_code == 65


def test_a_refusal_names_a_few_and_counts_the_rest() -> None:
    """One line stays one line."""
    many = [Assumption("axes", f"guess {i}", "e", "o", doubtful=True) for i in range(7)]
    text = str(doubt(many))
    assert "guess 2" in text
    assert "guess 3" not in text
    assert "4 more" in text


def test_strict_does_not_bind_a_resumed_run() -> None:
    """It decides whether a run begins, not what its masks are."""
    assert SegmentSettings(strict=True).result_options() == SegmentSettings().result_options()
