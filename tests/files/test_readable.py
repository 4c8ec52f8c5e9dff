"""Lines for the user: names can be copied from them."""

from __future__ import annotations

import os

import pytest

from nucseg_batch.files.names import printable, readable


@pytest.mark.parametrize("name", ["out%20.zarr", "100%.tif", "%41", "%25", "plain", "ä%C3.tif"])
def test_a_percent_sign_stands_as_it_is(name: str) -> None:
    assert readable(name) == name


def test_bytes_that_are_no_text_are_written_as_in_the_tables() -> None:
    name = os.fsdecode(b"a\xe4.tif")
    assert readable(name) == printable(name) == "a%E4.tif"


def test_a_line_stays_one_line() -> None:
    assert readable("a\nb\tc\x1b[2J\u202e") == "a b c\\x1b[2J\\u202e"
