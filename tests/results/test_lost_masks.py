from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import picture, small_run

from nucseg_batch.errors import DamageError
from nucseg_batch.files.run.masks import open_masks


def test_a_lost_mask_is_not_read_as_an_image_without_nuclei(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing shard reads as zeros; the table knows better, and an image that has no nuclei is still empty."""
    run = small_run(tmp_path, monkeypatch)
    run.put("some.tif", picture(3))
    run.put("none.tif", picture(0, (40, 90)))
    run.segment()
    run.finish()
    assert open_masks(run.store)["some.tif"].max() == 3
    for path in run.masks():
        path.unlink()
    masks = open_masks(run.store)
    with pytest.raises(DamageError, match=r"the mask of some\.tif is empty, but the table has 3 nuclei"):
        masks["some.tif"]
    assert not masks["none.tif"].any()
