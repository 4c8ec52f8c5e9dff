"""A short run of the fuzzer of TIFF headers; its long run is `python tests/fuzz/tiff_headers.py --minutes 30`."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import tiff_headers


@pytest.mark.filterwarnings("ignore")  # whatever a decoder warns of in a damaged file
def test_tiffs_with_changed_headers_are_read_whole_or_refused(tmp_path: Path) -> None:
    """Neither a crash, nor a hang, nor planes that no page of the file has."""
    ends, wrong = tiff_headers.fuzz(seed=1, files=240, seconds=None, keep=tmp_path)
    assert wrong == []
    assert min(ends["read"], ends["refused"]) > 60, "the changes are all harmless, or all deadly"


def test_the_fuzzer_sees_a_shape_that_no_page_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that cannot fail would find nothing."""
    monkeypatch.setattr(tiff_headers, "sides", lambda data: {(3, 5)})
    ends, wrong = tiff_headers.fuzz(seed=1, files=24, seconds=None, keep=tmp_path)
    assert ends["wrong"] == len(wrong) == len(list(tmp_path.iterdir())) > 5
