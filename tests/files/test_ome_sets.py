"""OME-TIFFs of several files in a folder: their OME-XML says what belongs together, not their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from nucseg_batch.executors.inspection import Inspection, inspect
from nucseg_batch.files.find.channel_files import with_channels
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.header_scan import PART, scan_headers
from nucseg_batch.files.tiff.ome import files_of_set
from nucseg_batch.settings import SegmentSettings

HEAD = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{}">'


def document(own: int, names: list[tuple[str, int, int, int]], sizes: tuple[int, int, int], channels: str = "") -> str:
    """OME-XML of one image, whose plane (c, z, t) is in the file of that name; sizes: of C, Z and T."""
    data = "".join(
        f'<TiffData FirstC="{c}" FirstZ="{z}" FirstT="{t}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{number}</UUID></TiffData>'
        for number, (name, c, z, t) in enumerate(names)
    )
    names_of = [f' Name="{name}"' for name in channels.split()] or [""] * sizes[0]
    listed = "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"{name}/>' for c, name in enumerate(names_of))
    return HEAD.format(own) + (
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="29" SizeY="41" '
        f'SizeC="{sizes[0]}" SizeZ="{sizes[1]}" SizeT="{sizes[2]}">{listed}{data}</Pixels></Image></OME>'
    )


def put(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / name, np.zeros((41, 29), np.uint16), description=text.encode(), metadata=None)


def look(place: Path | str, channel: str = "auto", pattern: str | None = None) -> Inspection:
    settings = SegmentSettings(channel=channel)
    return inspect(str(place), settings, pattern=pattern, progress=lambda done, total: None)


@pytest.fixture
def channels(tmp_path: Path) -> Path:
    """Two files, one a channel, named as stains; all metadata in each."""
    names = [("n_DAPI.ome.tif", 1, 0, 0), ("n_GFP.ome.tif", 0, 0, 0)]
    for number, (name, *_) in enumerate(names):
        put(tmp_path / "set", name, document(number, names, (2, 1, 1), "green blue"))
    return tmp_path / "set"


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Two channels, three depths and two times in twelve files, of which the last but one describes all."""
    names = [(f"p_T{t}_Z{z}_c{c}.ome.tif", c, z, t) for t in range(2) for z in range(3) for c in range(2)]
    for number, (name, *_) in enumerate(names):
        text = HEAD.format(number) + f'<BinaryOnly MetadataFile="{names[10][0]}" UUID="urn:uuid:10"/></OME>'
        put(tmp_path / "grid", name, document(10, names, (2, 3, 2)) if number == 10 else text)
    return tmp_path / "grid"


@pytest.fixture
def companion(tmp_path: Path) -> Path:
    """Three files of one channel each, all metadata in a file of text."""
    names = [(f"e_w{c + 1}.ome.tif", c, 0, 0) for c in range(3)]
    for number, (name, *_) in enumerate(names):
        text = HEAD.format(number) + '<BinaryOnly MetadataFile="e.companion.ome" UUID="urn:uuid:9"/></OME>'
        put(tmp_path / "companion", name, text)
    (tmp_path / "companion" / "e.companion.ome").write_text(document(9, names, (3, 1, 1), "Actin DAPI Tubulin"))
    return tmp_path / "companion"


def only(found: Inspection) -> tuple[str, int, int]:
    """Key of the only image, its channel of nuclei, and its planes."""
    assert found.error() is None
    assert not found.plan.failures
    (image,) = (image for stack in found.plan.label_arrays for image in stack.images)
    assert not image.files
    return image.key, image.nuclei, image.plane_count


def test_a_set_is_read_once_and_by_its_metadata(channels: Path, grid: Path, companion: Path) -> None:
    """Names of the files would say otherwise: the file called DAPI is the channel called blue."""
    assert only(look(channels, "blue")) == ("n_DAPI.ome.tif", 1, 1)
    assert only(look(grid, "1")) == ("p_T0_Z0_c0.ome.tif", 1, 6)
    assert only(look(companion)) == ("e_w1.ome.tif", 1, 1)
    assert look(grid, "1").scan.found.skipped == {PART: 11}


def test_every_file_of_a_set_stands_for_it(grid: Path, companion: Path) -> None:
    """Also the file that holds the metadata."""
    for path in (*sorted(grid.iterdir())[::5], grid / "p_T1_Z2_c0.ome.tif"):
        assert only(look(path, "0"))[1:] == (0, 6)
    for path in companion.iterdir():
        assert only(look(path)) == (path.name, 1, 1)


@pytest.mark.parametrize("option", [{"channel": "c1"}, {"pattern": "*_c1*"}])
def test_the_files_of_a_channel_choose_it(grid: Path, option: dict[str, str]) -> None:
    """As they do where names alone tell channels."""
    assert only(look(grid, **option))[1:] == (1, 6)


def test_a_pattern_of_files_of_all_channels_chooses_none(grid: Path) -> None:
    """What shows the nuclei must be said."""
    found = look(grid, pattern="*_Z0_*")
    assert "say with --channel" in str(found.error())


def test_sets_and_other_files_share_a_folder(channels: Path) -> None:
    """Only the set is read by its metadata."""
    for name in ("m_DAPI.tif", "m_GFP.tif", "k_DAPI.tif", "k_GFP.tif"):
        tifffile.imwrite(channels / name, np.zeros((41, 29), np.uint16))
    found = look(channels, "DAPI")
    images = {image.key: image.files for stack in found.plan.label_arrays for image in stack.images}
    assert images == {
        "k_DAPI.tif": ("k_DAPI.tif", "k_GFP.tif"),
        "m_DAPI.tif": ("m_DAPI.tif", "m_GFP.tif"),
        "n_DAPI.ome.tif": (),
    }


def test_what_is_no_set_has_no_files(channels: Path, tmp_path: Path) -> None:
    """Single files, broken metadata and other formats are left to names."""
    assert [path.name for path in files_of_set(channels / "n_GFP.ome.tif")] == ["n_DAPI.ome.tif", "n_GFP.ome.tif"]
    put(tmp_path, "one.ome.tif", document(0, [("one.ome.tif", 0, 0, 0)], (1, 1, 1)))
    put(tmp_path, "broken.ome.tif", "<OME>")
    (tmp_path / "text.tif").write_text("no TIFF")
    for name in ("one.ome.tif", "broken.ome.tif", "text.tif", "missing.tif"):
        assert files_of_set(tmp_path / name) == ()


def test_a_file_of_a_set_of_which_others_are_known_is_no_new_image(grid: Path) -> None:
    """Whichever file of the set came later, also the one that would stand for it."""
    settings = SegmentSettings(channel="0")
    found = with_channels(discover(str(grid)), settings.channel)
    keys = sorted(entry.key for entry in found.entries)
    for only in (keys[:1], keys[-1:], keys[3:]):
        scanned = scan_headers(found, settings, lambda done: None, only=only)
        assert (scanned.images, scanned.found.skipped[PART]) == ([], len(only))
    assert len(scan_headers(found, settings, lambda done: None, only=keys).images) == 1
