"""Rows 20 to 22 and 28 of the fault matrix by the hundred: malformed files of all kinds among good ones."""

from __future__ import annotations

from pathlib import Path

from faults.harness import FIXED, NOISE, rows, run
from faults.malformed import PLAIN, crops_of, write_good, write_malformed

import nucseg_batch

SEED = 5
"""Other seeds were tried by hand; see README.md."""


def test_two_hundred_malformed_files_cost_themselves_only(shared: Path, tiny: Path, tmp_path: Path) -> None:
    """All good ones are done, each bad one has its row, and what cannot be told as damaged is counted."""
    folder, store = tmp_path / "in", tmp_path / "out.zarr"
    folder.mkdir()
    images = sorted((shared / "dsb2018" / "test" / "images").glob("*.png"))[::7]
    crops = crops_of(images, 8, SEED)
    good = write_good(folder, crops, 200)
    bad = write_malformed(folder, crops, 200, SEED)
    done = run("segment", folder, store, "--model", tiny, *FIXED, code=3)
    assert done.noise <= NOISE, done.errors

    failed = {row["image"].split("/")[0] for row in rows(store, "failures")}
    assert failed.isdisjoint(good)
    assert all(len(row["message"]) < 400 and "\n" not in row["message"] for row in rows(store, "failures"))
    masks = nucseg_batch.open_masks(store)
    seen = {name.split("/")[0]: name for name in masks}
    assert seen.keys() >= good.keys()
    by_crop: dict[tuple[int, bool], set[bytes]] = {}
    for name, crop in good.items():
        ending = name.split(".", 1)[1]
        if ending in PLAIN:
            by_crop.setdefault((crop, ending == "colour.png"), set()).add(masks[seen[name]][...].tobytes())
    assert all(len(found) == 1 for found in by_crop.values()), "one picture has one mask, however it is stored"

    assert {one.name for one in bad} == {name for name in failed | seen.keys() if name not in good}, "none is lost"
    assert [one.how for one in bad if one.told and one.name not in failed] == []
    unseen = [one.how for one in bad if one.name not in failed]
    assert 0 < len(unseen) < len(bad) // 3, unseen
