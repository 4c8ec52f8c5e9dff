from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr_examples import serving

from nucseg_batch.errors import InputMissingError, NothingToDoError
from nucseg_batch.files.find.discover import discover


def files(folder: Path, *names: str) -> Path:
    """Files of one byte each, in folders as their names say."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def keys(place: Path | str, **options: str) -> list[str]:
    return [entry.key for entry in discover(str(place), **options).entries]


def ome_zarr(path: Path, shape: tuple[int, ...] = (23, 37), axes: str = "yx") -> Path:
    """An OME-Zarr 0.5 image of one level."""
    kinds = {"t": "time", "c": "channel"}
    multiscale = {
        "axes": [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes],
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}]}],
    }
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.update_attributes({"ome": {"version": "0.5", "multiscales": [multiscale]}})
    group.create_array("0", data=np.arange(np.prod(shape), dtype=np.uint16).reshape(shape))
    return path


def test_images_are_found_at_any_depth_and_named_by_their_path_with_suffix(image_folder: Path) -> None:
    """a.png and a.tif are two images; names must tell."""
    files(image_folder, "small8.tif", "notes.txt", ".hidden.png", ".hidden/a.png")
    found = discover(str(image_folder))
    assert [entry.key for entry in found.entries] == [
        "plate/colour.jpg",
        "plate/small16.png",
        "plate/well/wide.tif",
        "small8.png",
        "small8.tif",
        "tall.tiff",
    ]
    assert found.root == str(image_folder)
    assert found.skipped == {"file that is no image": 1, "hidden file": 1, "hidden folder": 1}


def test_links_and_pipes_are_passed_over_and_told(image_folder: Path) -> None:
    """A link loop would never end, a pipe would never answer, a link outward would read what was not given."""
    os.symlink(image_folder, image_folder / "loop")
    os.symlink("/etc/hostname", image_folder / "out.png")
    os.symlink("nowhere.png", image_folder / "dangling.png")
    os.symlink(image_folder / "small8.png", image_folder / "inside.png")
    os.mkfifo(image_folder / "pipe.tif")
    found = discover(str(image_folder))
    assert "inside.png" in {entry.key for entry in found.entries}
    assert len(found.entries) == 6
    assert found.skipped == {
        "link to a folder": 1,
        "link out of the folder": 1,
        "link that leads nowhere": 1,
        "device, pipe or socket": 1,
    }


def test_a_missing_and_an_empty_folder_are_different_errors(tmp_path: Path) -> None:
    """66 and 65: a typing error, and nothing to do."""
    with pytest.raises(InputMissingError) as missing:
        discover(str(tmp_path / "nowhere"))
    assert missing.value.exit_code == 66
    with pytest.raises(NothingToDoError) as empty:
        discover(str(tmp_path))
    assert empty.value.exit_code == 65


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Its images would be missing in silence."""
    files(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    found = discover(str(tmp_path))
    (tmp_path / "closed").chmod(0o700)
    assert found.skipped == {"folder that cannot be read (Permission denied)": 1}


def test_one_file_is_an_input_whatever_it_is_called(tmp_path: Path) -> None:
    """Whoever names a file means it; thumbnails and odd suffixes are passed over in folders only."""
    files(tmp_path, "plate_B02_s1_w1_thumb.TIF", "plate_B02_s1_w1.TIF")
    for name in ("plate_B02_s1_w1_thumb.TIF", "image_without_suffix"):
        files(tmp_path, name)
        found = discover(str(tmp_path / name))
        assert ([entry.key for entry in found.entries], found.root) == ([name], str(tmp_path))


def test_a_pipe_as_the_input_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    """Opening it would wait for ever."""
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(InputMissingError, match="pipe"):
        discover(str(tmp_path / "a.tif"))


def test_a_list_names_files_relative_to_itself(tmp_path: Path) -> None:
    """Comments and blank lines may stand in it, and lines may end as on Windows."""
    files(tmp_path, "in/a/one.tif", "in/b/two.png", "in/b/left_out.png", "elsewhere/three.tif")
    listed = tmp_path / "in" / "files.txt"
    listed.write_bytes(f"# mine\r\n\r\na/one.tif\r\n  b/two.png \n{tmp_path}/elsewhere/three.tif".encode())
    found = discover(f"@{listed}")
    assert [entry.key for entry in found.entries] == ["elsewhere/three.tif", "in/a/one.tif", "in/b/two.png"]
    assert found.root == str(tmp_path)


def test_what_a_list_names_and_is_not_there_is_a_failure(tmp_path: Path) -> None:
    """An image that was asked for by name must not vanish in silence."""
    files(tmp_path, "a.tif", "folder/b.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "files.txt").write_text("a.tif\ngone.tif\nfolder\npipe.tif\n")
    found = discover(f"@{tmp_path / 'files.txt'}")
    assert [entry.key for entry in found.entries] == ["a.tif"]
    assert [(failure.image, failure.stage) for failure in found.failures] == [
        ("folder", "plan"),
        ("gone.tif", "plan"),
        ("pipe.tif", "plan"),
    ]
    assert all("files.txt" in failure.message for failure in found.failures)


def test_a_path_that_is_listed_twice_is_one_image(tmp_path: Path) -> None:
    """Two rows of one name would be counted twice."""
    files(tmp_path, "a.tif", "b.tif")
    (tmp_path / "files.txt").write_text("a.tif\nb.tif\n./a.tif\na.tif\n")
    found = discover(f"@{tmp_path / 'files.txt'}")
    assert [entry.key for entry in found.entries] == ["a.tif", "b.tif"]
    assert found.skipped == {"path that is listed twice": 2}


def test_a_list_holds_names_in_any_encoding(tmp_path: Path) -> None:
    """File names are bytes."""
    name = os.fsdecode(b"na\xefve.tif")
    files(tmp_path, name)
    (tmp_path / "files.txt").write_bytes(b"\xef\xbb\xbf" + os.fsencode(name) + b"\n")
    assert keys(f"@{tmp_path / 'files.txt'}") == [name]


@pytest.mark.parametrize("content", [b"", b"\n# nothing\n", b"a\0b"])
def test_a_list_that_names_nothing_is_an_error(tmp_path: Path, content: bytes) -> None:
    """Nothing to do is not success."""
    (tmp_path / "files.txt").write_bytes(content)
    with pytest.raises((NothingToDoError, InputMissingError)):
        discover(f"@{tmp_path / 'files.txt'}")


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("p1/*.tif", ["a.tif", "b.tif"]),
        ("p?/a.tif", ["p1/a.tif", "p2/a.tif"]),
        ("**/a.tif", ["a.tif", "p1/a.tif", "p1/deep/a.tif", "p2/a.tif"]),
        ("p1/**/*.tif", ["a.tif", "b.tif", "deep/a.tif"]),
        ("p[2-9]", ["p2/a.tif", "p2/c.png"]),
        ("**", ["a.tif", "p1/a.tif", "p1/b.tif", "p1/deep/a.tif", "p2/a.tif", "p2/c.png"]),
    ],
)
def test_a_glob_takes_what_a_shell_would(tmp_path: Path, glob: str, expected: list[str]) -> None:
    """Keys are relative to its part before the first wildcard, so they do not change with what matches."""
    files(tmp_path, "a.tif", "p1/a.tif", "p1/b.tif", "p1/deep/a.tif", "p2/a.tif", "p2/c.png", "p1/.hidden.tif")
    assert keys(tmp_path / glob) == expected


def test_a_glob_never_follows_a_loop_of_links(tmp_path: Path) -> None:
    """`**` would go round for ever."""
    files(tmp_path, "p/a.tif")
    os.symlink(tmp_path, tmp_path / "p" / "loop")
    assert keys(tmp_path / "**" / "*.tif") == ["p/a.tif"]


def test_a_name_with_brackets_that_is_there_is_no_glob(tmp_path: Path) -> None:
    """`run[1]` is a common name of a folder."""
    files(tmp_path, "run[1]/a.tif", "run1/b.tif")
    assert keys(tmp_path / "run[1]") == ["a.tif"]


def test_a_pattern_chooses_by_name_and_counts_the_others(tmp_path: Path) -> None:
    """With a `/` it is compared with the whole path; case counts."""
    files(tmp_path, "B02/x_w1.TIF", "B02/x_w2.TIF", "B03/x_w1.TIF", "B03/x_W1.TIF")
    found = discover(str(tmp_path), pattern="*_w1.TIF")
    assert [entry.key for entry in found.entries] == ["B02/x_w1.TIF", "B03/x_w1.TIF"]
    assert found.skipped == {"image that does not match --pattern": 2}
    assert [entry.key for entry in found.unmatched] == ["B02/x_w2.TIF", "B03/x_W1.TIF"]
    assert keys(tmp_path, pattern="B02/*w1.TIF") == ["B02/x_w1.TIF"]


def test_a_pattern_that_nothing_matches_is_told_with_the_count(tmp_path: Path) -> None:
    """The user should see that there were images."""
    files(tmp_path, "a.tif", "b.tif")
    with pytest.raises(NothingToDoError, match=r"none of its 2 images matches --pattern '\*w1\*'"):
        discover(str(tmp_path), pattern="*w1*")


def test_label_images_beside_their_images_are_passed_over(tmp_path: Path) -> None:
    """As images they would give masks of masks."""
    files(tmp_path, "s/images/a.png", "s/labels/a.png", "s/masks/a.png", "a.tif", "a_masks.tif", "b_img.png")
    files(tmp_path, "b_seg.png", "c.ome.tif", "c_label.tif", "alone_mask.tif", "other/labels/d.png")
    found = discover(str(tmp_path))
    assert [entry.key for entry in found.entries] == [
        "a.tif",
        "alone_mask.tif",
        "b_img.png",
        "c.ome.tif",
        "other/labels/d.png",
        "s/images/a.png",
    ]
    assert found.skipped == {"annotation beside its image": 3, "folder of annotation beside images/": 2}


def test_what_microscopes_write_beside_images_is_passed_over(tmp_path: Path) -> None:
    """Thumbnails and correction images are TIFFs, too."""
    guid = "9E3E8C1A-0B5D-4D52-9B5D-1C0D5A6E7F80"
    files(tmp_path, f"m/p_B02_s1_w1{guid}.tif", f"m/p_B02_s1_w1_thumb{guid}.tif", "m/q_w1.TIF", "m/q_w1_thumb.TIF")
    files(tmp_path, "y/MeasurementData.mlf", "y/DC_DCAM#1_CAM3.tif", "y/SC_BP445.tif", "other/SC_1.tif")
    files(tmp_path, "other/thumbs_thumb.tif")
    found = discover(str(tmp_path))
    assert [entry.key for entry in found.entries] == [
        f"m/p_B02_s1_w1{guid}.tif",
        "m/q_w1.TIF",
        "other/SC_1.tif",
        "other/thumbs_thumb.tif",
    ]
    assert found.skipped == {
        "thumbnail": 2,
        "correction image of the microscope": 2,
        "file that is no image": 1,
    }


def test_zarr_stores_are_images_beside_files(tmp_path: Path) -> None:
    """Their keys and groups are their paths below the folder; chunks are never taken for files."""
    files(tmp_path, "a.tif")
    ome_zarr(tmp_path / "deep" / "b.zarr")
    ome_zarr(tmp_path / "plain")
    found = discover(str(tmp_path))
    assert [(entry.key, entry.kind, entry.group) for entry in found.entries] == [
        ("a.tif", "file", None),
        ("deep/b.zarr", "zarr", "deep/b.zarr"),
        ("plain", "zarr", "plain"),
    ]
    assert keys(tmp_path, pattern="*.zarr") == ["deep/b.zarr"]


def test_a_store_as_the_input_names_images_by_their_paths_in_it(tmp_path: Path) -> None:
    """The image at its root takes the store's own name."""
    ome_zarr(tmp_path / "one.zarr")
    (entry,) = discover(str(tmp_path / "one.zarr")).entries
    assert (entry.key, entry.group, entry.name) == ("one.zarr", "", "one.zarr")
    zarr.open_group(tmp_path / "two.zarr", mode="w").create_group("A")
    ome_zarr(tmp_path / "two.zarr" / "A" / "1")
    (entry,) = discover(str(tmp_path / "two.zarr")).entries
    assert (entry.key, entry.group, entry.name) == ("A/1", "A/1", "two.zarr")


def test_a_store_behind_a_url_is_an_input(tmp_path: Path) -> None:
    """Its images are named as those of a folder, and `file://` is a folder."""
    pytest.importorskip("aiohttp", reason="http needs aiohttp")
    ome_zarr(tmp_path / "one.zarr")
    with serving(tmp_path) as server:
        for place in (f"{server.url}/one.zarr", f"{server.url}/one.zarr/"):
            found = discover(place)
            assert [(entry.key, entry.group, found.root) for entry in found.entries] == [("one.zarr", "", place)]
        with pytest.raises(InputMissingError):
            discover(f"{server.url}/nowhere.zarr")
    assert discover(f"file://{tmp_path}/one.zarr").root == str(tmp_path / "one.zarr")


def test_formats_that_bioio_reads_are_images_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere they are passed over and told, so that a folder with its exports beside them can be segmented."""
    files(tmp_path, "a.tif", "b.CZI", "c.nd2")
    for installed, expected in ((True, ["a.tif", "b.CZI", "c.nd2"]), (False, ["a.tif"])):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, installed=installed: installed or None)
        found = discover(str(tmp_path))
        assert [entry.key for entry in found.entries] == expected
    assert found.skipped == {"file that only bioio reads, which is not installed": 2}


def test_our_own_outputs_are_no_images(tmp_path: Path) -> None:
    """OUT may lie within IN, and a second run must not segment masks."""
    files(tmp_path, "a.tif")
    zarr.open_group(tmp_path / "out.zarr", mode="w", attributes={"nucseg-batch": {"layout": 1}})
    ome_zarr(tmp_path / "out.zarr" / "5x7")
    found = discover(str(tmp_path))
    assert [entry.key for entry in found.entries] == ["a.tif"]
    assert found.skipped == {"output of nucseg-batch": 1}
    with pytest.raises(NothingToDoError, match="output of nucseg-batch"):
        discover(str(tmp_path / "out.zarr"))


def test_what_an_earlier_run_left_is_told_as_its_output(tmp_path: Path) -> None:
    """Its tables and its run folder are not the user's files; tables of others are."""
    files(tmp_path, "a.tif", "out.run/plan.json", "out.run/units/1.json", "out.images.csv", "out.nuclei.csv")
    files(tmp_path, "other.run/b.tif", "my.images.csv")
    found = discover(str(tmp_path))
    assert [entry.key for entry in found.entries] == ["a.tif", "other.run/b.tif"]
    assert found.skipped == {"output of nucseg-batch": 3, "file that is no image": 1}
    assert sorted(found.passed["output of nucseg-batch"].names) == ["out.images.csv", "out.nuclei.csv", "out.run"]
    assert discover(str(tmp_path / "o*")).skipped == {"output of nucseg-batch": 3}


def test_a_store_without_its_metadata_is_one_refused_image(tmp_path: Path) -> None:
    """A copy that lost them is not a folder of sixteen files that are no images."""
    files(tmp_path, "a.tif", *(f"lost.zarr/c/{i}/{j}" for i in range(4) for j in range(4)), "lost.zarr/.zattrs")
    files(tmp_path, "pictures.zarr/b.tif")
    ome_zarr(tmp_path / "half.zarr" / "image")
    found = discover(str(tmp_path))
    assert [entry.key for entry in found.entries] == ["a.tif", "half.zarr/image", "pictures.zarr/b.tif"]
    assert [(failure.image, failure.stage) for failure in found.failures] == [("lost.zarr", "plan")]
    assert "has no metadata" in found.failures[0].message
    assert found.skipped == {}
    with pytest.raises(NothingToDoError, match="has no metadata"):
        discover(str(tmp_path / "lost.zarr"))


def test_passed_over_files_are_told_by_kind_and_name(tmp_path: Path) -> None:
    """So that the one image with an odd suffix can be found among ten thousand notes."""
    names = ["a.ndpi", "b.scn", "c.jpe", "d.JFIF", "e.flex", "f.bif"]
    files(tmp_path, *names, "g.psd", "sub/h.DCM", "noext", "t.txt", "sub/u.txt", "v.1234", "many.csv")
    found = discover(str(tmp_path))
    assert [entry.key for entry in found.entries] == names
    assert found.skipped == {
        "file of a kind that is not read (.psd)": 1,
        "file of a kind that is not read (.dcm)": 1,
        "file that is no image": 4,
        "file without a suffix, which is read where it is given by name": 1,
    }
    assert found.passed["file of a kind that is not read (.dcm)"].names == ("sub/h.DCM",)
    assert dict(found.passed["file that is no image"].suffixes) == {".txt": 2, "other": 1, ".csv": 1}


def test_only_a_thousand_names_of_a_reason_are_kept(tmp_path: Path) -> None:
    """A folder may hold millions of files that are no images; all are counted."""
    files(tmp_path, "a.tif", *(f"{number}.txt" for number in range(1007)))
    passed = discover(str(tmp_path)).passed["file that is no image"]
    assert (len(passed.names), passed.suffixes) == (1000, ((".txt", 1007),))


def test_axes_that_are_given_for_an_image_that_knows_its_own_are_told(tmp_path: Path) -> None:
    """They would be thought to count; for an array that does not say its axes they do, and nothing is told."""
    ome_zarr(tmp_path / "a.zarr", (2, 3, 5, 7), "czyx")
    zarr.create_array(tmp_path / "plain.zarr", data=np.zeros((2, 3, 5, 7), np.uint8))
    assert discover(str(tmp_path), axes="czyx").notes == ()
    (note,) = discover(str(tmp_path), axes="zcyx").notes
    assert "--axes zcyx is not used for 1 image" in note
    (refused,) = discover(str(tmp_path)).failures
    assert "such as --axes czyx" in refused.message


def test_a_damaged_store_costs_only_itself(tmp_path: Path) -> None:
    """One failure, and the images beside it are found."""
    files(tmp_path, "a.tif")
    ome_zarr(tmp_path / "b.zarr")
    (tmp_path / "b.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_ty')
    found = discover(str(tmp_path))
    assert [entry.key for entry in found.entries] == ["a.tif"]
    assert [(failure.image, failure.stage) for failure in found.failures] == [("b.zarr", "plan")]
    with pytest.raises(NothingToDoError):
        discover(str(tmp_path / "b.zarr"))


def test_names_that_a_computer_could_mix_up_are_kept_apart(tmp_path: Path) -> None:
    """Row 29 of the fault matrix: suffix, case, accents, folder against underscore, and zarr's own names."""
    accents = [unicodedata.normalize(form, "zelle_é.tif") for form in ("NFC", "NFD")]
    names = ["a.png", "a.tif", "A.tif", "x/y.png", "x_y.png", "zarr.json.tif", "c.tif", "n" * 251 + ".tif", *accents]
    files(tmp_path, *names)
    assert keys(tmp_path) == sorted(names)


@pytest.mark.parametrize(
    "name",
    [
        "a b.tif",
        "a\nb.tif",
        "a\tb.tif",
        "a\"b',c.tif",
        "=1+1.tif",
        "-rf.tif",
        "@list.tif",
        "😀.tif",
        "x..%2f..%2fa.tif",
    ],
)
def test_odd_names_are_found_as_they_are(tmp_path: Path, name: str) -> None:
    """Row 30: a name is data, whatever a shell, a spreadsheet or a store would make of it."""
    files(tmp_path, name)
    assert keys(tmp_path) == [name]


def test_names_that_are_no_utf8_are_found(tmp_path: Path) -> None:
    """Row 30: other systems wrote other bytes."""
    with open(os.fsencode(tmp_path) + b"/\xff\xfe.tif", "wb") as file:
        file.write(b"x")
    (entry,) = discover(str(tmp_path)).entries
    assert os.fsencode(entry.key) == b"\xff\xfe.tif"


def test_folders_are_listed_once_and_no_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system answers slowly. What `os.scandir` tells of each entry is not counted."""
    files(tmp_path, *(f"{i:05d}.tif" for i in range(2000)))
    calls: list[str] = []
    for name in ("stat", "lstat", "listdir", "scandir", "readlink", "open"):
        real = getattr(os, name)

        def counted(*arguments: object, real: object = real, name: str = name, **options: object) -> object:
            calls.append(name)
            return real(*arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(os, name, counted)
    assert len(discover(str(tmp_path)).entries) == 2000
    assert len(calls) < 20, calls[:30]
    assert calls.count("open") == 0
