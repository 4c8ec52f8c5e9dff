from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from beginnings import SEEN, beginning

from nucseg_batch.columns import PLANE_SUMMARY, names
from nucseg_batch.errors import MismatchError
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import FinishRecord, Marker, MergedPlane, PlaneResult, RegionOutcome, RunSpec
from nucseg_batch.plan import Failure, ImageInfo, Plan, Unit, make_plan
from nucseg_batch.settings import SegmentSettings


def small_plan() -> Plan:
    images = [ImageInfo(key, 11, 13, 3001, 3011, 1, "uint8") for key in ("a.png", "b/ü.tif", "b/\udcff.tif")]
    return make_plan(images, [Failure("bad.png", "plan", "OSError", "cut")])


def begun() -> RunSpec:
    plan = small_plan()
    files = {image.key: (image.size, image.mtime_ns) for stack in plan.label_arrays for image in stack.images}
    return beginning(plan, files=files | {"bad.png": (3, 5)}, fingerprint={"--threshold": 0.5})


def result(key: str, part_bytes: int) -> PlaneResult:
    return PlaneResult(key, 2, dict.fromkeys(names(PLANE_SUMMARY), 1), part_bytes)


def test_a_plan_comes_back_as_it_was_stored_with_any_file_name(tmp_path: Path) -> None:
    """Names that are not UTF-8 exist on every old file server."""
    journal = Journal(tmp_path / "out.zarr")
    assert not journal.exists()
    journal.create(begun(), {"A/1": {"well": "ü"}})
    assert journal.exists()
    assert journal.load() == begun()
    assert journal.mirror() == {"A/1": {"well": "ü"}}
    assert journal.folder == tmp_path / "out.run"


def test_all_that_is_known_of_an_image_is_kept(tmp_path: Path) -> None:
    """Also what most images do not have, which costs no room for them."""
    plain = ImageInfo("a.png", 11, 13, 31, 37, 1, "uint8")
    rich = replace(
        plain,
        key="b",
        pixel_size=0.65,
        names=("DAPI", "é"),
        nuclei=1,
        t=(0, 9, 2),
        files=("b", "c"),
        group="",
        levels=3,
    )
    journal = Journal(tmp_path / "out.zarr")
    plan = make_plan(
        [plain, rich, replace(plain, key="c", z=(1, 2, 1)), replace(plain, key="d", projected=True)], region=96
    )
    settings = SegmentSettings(region=96, diameter=17.5, z="max")
    whole = beginning(
        plan, settings=settings, shares=7, in_place=True, pattern="*w1*", model="/m.keras", root="s3://b/p"
    )
    journal.create(whole)
    assert journal.load() == whole
    assert '\n["a.png", 11, 13, 31, 37, 1, "uint8"],\n' in (journal.folder / "plan.json").read_text()


def test_a_unit_is_done_only_when_marker_and_part_are_whole(tmp_path: Path) -> None:
    """Each half alone is what a crash leaves."""
    journal = Journal(tmp_path / "out.zarr")
    journal.create(begun())
    unit = next(small_plan().units())
    assert journal.marker(unit) is None
    marker = Marker((result("a.png", 6),), 17, "5e", (SEEN,))
    journal.commit(unit, marker, "1,2,3\n")
    assert journal.marker(unit) == replace(marker, part_sha256=hashlib.sha256(b"1,2,3\n").hexdigest())
    part = journal.part(unit)
    part.write_text("1,2")
    assert journal.marker(unit) is None
    part.unlink()
    assert journal.marker(unit) is None


def test_a_damaged_marker_counts_as_none(tmp_path: Path) -> None:
    """The unit is then done again; nothing is guessed."""
    journal = Journal(tmp_path / "out.zarr")
    journal.create(begun())
    unit = next(small_plan().units())
    journal.commit(unit, Marker((result("a.png", 0),), 17, "5e", (SEEN,)), "")
    path = journal.folder / "units" / f"{unit.name}.json"
    path.write_text(path.read_text()[:-20])
    assert journal.marker(unit) is None


def test_a_marker_of_other_images_counts_as_none(tmp_path: Path) -> None:
    """Names of units are shapes and numbers; an old marker must not vouch for new images."""
    journal = Journal(tmp_path / "out.zarr")
    journal.create(begun())
    unit = next(small_plan().units())
    journal.commit(unit, Marker((result("other.png", 0),), 17, "5e", (SEEN,)), "")
    assert journal.marker(unit) is None


def test_no_temporary_file_is_left_behind(tmp_path: Path) -> None:
    """The run folder holds what it says and nothing else."""
    journal = Journal(tmp_path / "out.zarr")
    journal.create(begun())
    journal.commit(next(small_plan().units()), Marker((result("a.png", 0),), 17, "5e", (SEEN,)), "")
    assert not list(journal.folder.rglob("*.partial"))


def test_a_run_does_not_mix_two_precisions(tmp_path: Path) -> None:
    """`auto` means another thing on another machine; bits would differ within one output."""
    journal = Journal(tmp_path / "out.zarr")
    journal.create(begun())
    journal.bind({"precision": "float32"})
    journal.bind({"precision": "float32"})
    with pytest.raises(MismatchError, match="float32 -> mixed_bfloat16"):
        journal.bind({"precision": "mixed_bfloat16"})


def commit(journal: Journal, unit: Unit, rows: str = "") -> None:
    regional = unit.label_array.regional
    planes = tuple(RegionOutcome(key, 2, 1.0) if regional else result(key, len(rows)) for key in unit.keys)
    journal.commit(unit, Marker(planes, 17, "5e", (SEEN,) * len(planes)), rows)


def test_a_marker_comes_back_with_all_that_was_seen(tmp_path: Path) -> None:
    """Of images, of windows of large ones, and of one that could not be read: what a later call compares with."""
    journal = Journal(tmp_path / "out.zarr")
    plan = make_plan(ImageInfo(f"{i}.png", 11, 13, 31, 37, 1, "uint8") for i in range(3))
    journal.create(beginning(plan))
    (unit,) = plan.units()
    failure = Failure("1.png", "read", "ValueError", "cut")
    windowed = replace(SEEN, windows=((0, 5, 7, 11), (5, 9, 7, 11)))
    marker = Marker((result("0.png", 3), failure, result("2.png", 3)), 17, "5e", (SEEN, None, windowed))
    journal.commit(unit, marker, "ab\ncd\n")
    found = journal.marker(unit)
    assert found is not None
    assert found == replace(marker, part_sha256=hashlib.sha256(b"ab\ncd\n").hexdigest())
    assert found.failures == [failure]
    newer = replace(found, seen=(replace(SEEN, mtime_ns=9), None, windowed))
    part = journal.part(unit).stat().st_mtime_ns
    journal.note_seen(unit, newer)
    assert journal.marker(unit) == newer
    assert journal.part(unit).stat().st_mtime_ns == part, "rows are not written again for it"


def test_the_marker_of_a_region_comes_back_and_one_of_another_kind_does_not_count(tmp_path: Path) -> None:
    """The ids, the scale and the row of its plane come from it: one that is misread would make other tables."""
    journal = Journal(tmp_path / "out.zarr")
    plan = make_plan([ImageInfo("a.png", 11, 13, 131, 137, 1, "uint8")], region=64)
    journal.create(beginning(plan))
    unit = next(iter(plan.units()))
    marker = Marker((RegionOutcome("a.png", 5, 0.75),), 0, "5e", (SEEN,))
    journal.commit(unit, marker, "")
    assert journal.marker(unit) == replace(marker, part_sha256=hashlib.sha256(b"").hexdigest())
    journal.commit(unit, Marker((result("a.png", 0),), 0, "5e", (SEEN,)), "")
    assert journal.marker(unit) is None


def test_a_unit_that_is_retracted_is_not_done_and_neither_is_the_run(tmp_path: Path) -> None:
    """It is retracted before its shard is replaced: a death between the two must not leave a marker of other bytes."""
    journal = Journal(tmp_path / "out.zarr")
    journal.create(begun())
    units = list(small_plan().units())
    commit(journal, units[0])
    journal.finish(FinishRecord("s", 0, {"images": "1"}))
    assert journal.finished() == FinishRecord("s", 0, {"images": "1"})
    assert journal.marker_count() == 1
    journal.retract(units[0])
    assert journal.marker(units[0]) is None
    assert journal.marker_count() == 0
    assert journal.finished() is None
    journal.retract(units[0])


def test_the_state_changes_with_every_commit_and_with_nothing_else(tmp_path: Path) -> None:
    """By it `finish` knows whether the tables are still those of the markers."""
    journal = Journal(tmp_path / "out.zarr")
    plan = make_plan([ImageInfo("a.png", 11, 13, 131, 137, 1, "uint8")], region=64)
    journal.create(beginning(plan))
    units, planes = list(plan.units()), list(plan.large_planes())

    def state() -> str:
        return journal.state(plan.units(), plan.large_planes())

    states = [state()]
    for unit in units:
        commit(journal, unit)
        states.append(state())
    commit(journal, units[1])
    assert state() == states[-1], "the same again is no news"
    joined = MergedPlane(result("a.png", 0), (5,) * len(units), ("5e",) * len(units), "")
    journal.plane_part(planes[0]).write_text("")
    journal.commit_plane(planes[0], joined)
    states.append(state())
    assert len(set(states)) == len(states) == len(units) + 2
    assert journal.plane(planes[0]) == joined
    journal.log("a line")
    (journal.folder / "units" / ".x.json.node-1-2.partial").write_text("half")
    journal.bind({"precision": "float32"})
    assert state() == states[-1]
    commit(journal, units[1])
    assert journal.plane(planes[0]) is None, "it was joined from what the region was before"
    assert state() == states[-2]
    commit(journal, units[0], "x" * 7)
    commit(journal, units[1])
    other = state()
    journal.retract(units[0])
    commit(journal, units[1], "x" * 7)
    assert state() != other, "which unit it is counts, too"


def test_leftovers_are_removed_only_of_the_units_that_are_meant(tmp_path: Path) -> None:
    """Another share may be writing a file of that kind at this moment."""
    journal = Journal(tmp_path / "out.zarr")
    plan = make_plan([ImageInfo("a.png", 11, 13, 131, 137, 1, "uint8")], region=64)
    journal.create(beginning(plan))
    mine, other = list(plan.units())[:2]
    left = {}
    for unit in (mine, other):
        commit(journal, unit)
        names = (f"units/.{unit.name}.json", f"parts/.{unit.name}.nuclei.csv", f"regions/.{unit.name}.found")
        left[unit.name] = [journal.folder / f"{name}.node-7-{number}.partial" for number, name in enumerate(names)]
    common = [journal.folder / ".plan.json.node-7-9.partial", journal.folder / "planes" / ".x.json.node-7-9.partial"]
    for path in [*left[mine.name], *left[other.name], *common]:
        path.write_text("half")
    journal.remove_leftovers([mine])
    assert [path.exists() for path in left[mine.name]] == [False] * 3
    assert all(path.exists() for path in [*left[other.name], *common])
    assert journal.marker(mine) is not None
    journal.remove_common_leftovers()
    assert not any(path.exists() for path in common)
    assert all(path.exists() for path in left[other.name])


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """After a node's death a copy of a task may live on elsewhere: the last whole file stands, and never a mixture."""
    path = tmp_path / "f"
    with whole_file(path) as first:
        first.write(b"first")
        with whole_file(path) as second:
            second.write(b"the second")
        assert path.read_bytes() == b"the second"
        assert len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == b"first"
    assert [one.name for one in tmp_path.iterdir()] == ["f"]


def test_the_run_folder_is_known_as_ours_whatever_a_run_left_there(tmp_path: Path) -> None:
    """Else one that was begun and killed could not be started over; anything else in it is somebody's work."""
    journal = Journal(tmp_path / "out.zarr", "log-00003.txt")
    assert not journal.is_foreign()
    journal.create(begun())
    journal.log("a line")
    journal.bind({})
    commit(journal, next(small_plan().units()))
    for name in ("locks", "begun"):
        (journal.folder / name).mkdir()
    (journal.folder / ".plan.json.node-7-9.partial").write_text("half")
    assert not journal.is_foreign()
    journal.clear()
    assert not journal.exists()
    assert {path.name for path in journal.folder.iterdir()} == {"log-00003.txt", "locks", ".plan.json.node-7-9.partial"}
    assert not journal.is_foreign()
    (journal.folder / "notes.txt").write_text("mine")
    assert journal.is_foreign()


def test_a_plan_of_another_format_names_the_version_that_wrote_it(tmp_path: Path) -> None:
    """Version 0.2 wrote no format; a later version may write a higher one."""
    journal = Journal(tmp_path / "out.zarr")
    journal.create(dataclasses.replace(begun(), fingerprint={"nucseg-batch": "0.2.0"}))
    path = journal.folder / "plan.json"
    record = json.loads(path.read_text())
    images = path.read_text().split('"plan": ')[0]
    for number, written in ((None, 1), (3, 3)):
        plan = {key: value for key, value in record["plan"].items() if key != "format"}
        path.write_text(f'{images}"plan": {json.dumps(plan | ({"format": number} if number else {}))}}}\n')
        with pytest.raises(MismatchError, match=rf"nucseg-batch 0\.2\.0 in format {written};.*--overwrite"):
            journal.load()


def test_a_damaged_plan_is_refused_in_our_own_words(tmp_path: Path) -> None:
    """Nothing is guessed."""
    journal = Journal(tmp_path / "out.zarr")
    journal.create(begun())
    path = journal.folder / "plan.json"
    record = json.loads(path.read_text())
    for damaged in (path.read_text()[:-30], json.dumps({**record, "settings": {"unheard": 1}}), "[]"):
        path.write_text(damaged)
        with pytest.raises(MismatchError, match="--overwrite"):
            journal.load()


def test_a_plan_of_which_one_image_was_changed_is_refused(tmp_path: Path) -> None:
    """Images are looked at when they are needed, hours later: damage must be known before anything is begun."""
    journal = Journal(tmp_path / "out.zarr")
    journal.create(begun())
    path = journal.folder / "plan.json"
    path.write_text(path.read_text().replace('"a.png", 11', '"a.png", 12'))
    with pytest.raises(MismatchError, match="--overwrite"):
        journal.load()


def test_images_of_a_plan_that_was_read_are_those_that_were_written(tmp_path: Path) -> None:
    """However they are asked for: one, some, every other one, or the channels and pixel sizes of all."""
    images = [
        ImageInfo(f"{i:04d}", i, 13, 31, 37, 1, "uint8", 0.5 if i % 2 else None, ("DAPI",) * (i % 3))
        for i in range(700)
    ]
    journal = Journal(tmp_path / "out.zarr")
    journal.create(beginning(make_plan(images)))
    (made,), (read,) = make_plan(images).label_arrays, journal.load().plan.label_arrays
    for part in (slice(250, 600), slice(None, None, 7), slice(699, 0, -200), slice(5, 5)):
        assert read.images[part] == made.images[part]
    assert (read.images[-1], read.images[256]) == (images[-1], images[256])
    assert (read.channel_names, read.pixel_sizes) == (made.channel_names, made.pixel_sizes)
    assert (read == made, made == read, hash(read) == hash(made)) == (True, True, True)
    assert read != make_plan(images[1:]).label_arrays[0]
