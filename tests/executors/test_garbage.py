"""When Python searches for garbage: not while much is made that stays, and as before afterwards."""

from __future__ import annotations

import gc

import pytest

from nucseg_batch.executors.garbage import unsearched


def made() -> list[list[int]]:
    """More objects than Python makes between two searches."""
    return [[number] for number in range(20_000)]


def test_nothing_is_searched_in_the_block_and_what_it_made_is_old_after_it() -> None:
    """The first search after it would else go through all of that."""
    searched: list[str] = []

    def heard(phase: str, _: object) -> None:
        searched.append(phase)

    gc.callbacks.append(heard)
    try:
        with unsearched():
            kept = made()
            inside = list(searched)
    finally:
        gc.callbacks.remove(heard)
    assert inside == []
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert not any(one is kept for one in gc.get_objects(generation=0))


def test_a_search_that_was_off_stays_off() -> None:
    """It is the caller's, also after an error."""
    gc.disable()
    try:
        with pytest.raises(KeyError), unsearched():
            raise KeyError
        assert not gc.isenabled()
    finally:
        gc.enable()
