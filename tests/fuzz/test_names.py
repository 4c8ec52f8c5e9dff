"""The short run of the fuzz target for names: a few folders, always the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.names import PIECES, check, odd_names, rfc4180

from nucseg_batch.executors import local


@pytest.fixture(autouse=True)
def _real_predictor_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "load_predictor", local.load_predictor)


@pytest.mark.parametrize("half", [0, 1])
def test_every_odd_piece_may_stand_in_a_name(tmp_path: Path, half: int) -> None:
    """Each by itself, as the end of the stem."""
    short = [piece for piece in PIECES if piece != ".."][half::2]
    check([f"{number}{piece}.tif" for number, piece in enumerate(short)], tmp_path, results=False)


@pytest.mark.parametrize("seed", [1])
def test_any_mixture_of_odd_pieces_is_a_name(tmp_path: Path, seed: int) -> None:
    """As in the long run, `python tests/fuzz/names.py --minutes 30`."""
    check(odd_names(seed), tmp_path)


@pytest.mark.parametrize("text", ["a\rb,c\n", 'a"b,c\n', '"a"b,c\n'])
def test_the_judge_of_tables_is_strict(text: str) -> None:
    """A reader that takes anything would find nothing."""
    with pytest.raises(ValueError, match="quoted"):
        rfc4180(text)
    assert rfc4180('"a\r""b",\nc,d\n') == [['a\r"b', ""], ["c", "d"]]
