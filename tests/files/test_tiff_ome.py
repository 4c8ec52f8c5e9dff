"""OME-TIFF: sets of files, companions, and OME-XML that does not fit what is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import FileSource, open_file
from nucseg_batch.files.source import ChannelInfo
from nucseg_batch.files.tiff.ome_xml import MAX_XML, parse_ome

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 60000, (2, 3, 41, 29)).astype(np.uint16)
"""Channels, depths, rows and columns."""
SIZES = {"T": 1, "C": 2, "Z": 3, "Y": 41, "X": 29}


def ome(
    data: str, sizes: dict[str, int] | None = None, *, channels: str = "", order: str = "XYZCT", **root: str
) -> str:
    """OME-XML of one image whose planes are where `data` says."""
    lengths = " ".join(f'Size{axis}="{length}"' for axis, length in {**SIZES, **(sizes or {})}.items())
    attributes = "".join(f' {name}="{value}"' for name, value in root.items())
    return (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{attributes}>'
        f'<Image ID="Image:0" Name="a"><Pixels ID="Pixels:0" DimensionOrder="{order}" Type="uint16" {lengths}>'
        f"{channels}{data}</Pixels></Image></OME>"
    )


def tiff_data(file: str | None = None, uuid: str = "", **places: int) -> str:
    attributes = " ".join(f'{name}="{value}"' for name, value in places.items())
    inner = f'<UUID FileName="{file}">{uuid}</UUID>' if file else ""
    return f"<TiffData {attributes}>{inner}</TiffData>"


def write(path: Path, pages: np.ndarray, description: str, byteorder: str = "<", **options: Any) -> Path:
    with tifffile.TiffWriter(path, byteorder=byteorder) as writer:
        for number, page in enumerate(pages):
            text = description.encode() if number == 0 else None
            writer.write(page, description=text, metadata=None, contiguous=False, **options)
    return path


def opened(path: Path) -> FileSource:
    return open_file(path, max_pixels=10**6)


def assert_is_pixels(source: FileSource) -> None:
    assert (source.header.axes, source.header.shape) == ("ZCYX", (3, 2, 41, 29))
    for z in range(3):
        np.testing.assert_array_equal(source.read(0, z, slice(0, 41), slice(0, 29)), PIXELS[:, z])
        np.testing.assert_array_equal(source.read(0, z, slice(3, 9), slice(20, 29)), PIXELS[:, z, 3:9, 20:29])


def write_set(folder: Path) -> list[Path]:
    """A set of two files, one a channel, with the whole XML in each and a UUID each."""
    data = "".join(
        tiff_data(f"c{c}.ome.tif", f"urn:uuid:{c}", FirstC=c, FirstZ=z, IFD=z, PlaneCount=1)
        for c in range(2)
        for z in range(3)
    )
    options = ({}, {"compression": "zlib", "byteorder": ">"})  # the files of a set need not be alike
    return [write(folder / f"c{c}.ome.tif", PIXELS[c], ome(data, UUID=f"urn:uuid:{c}"), **options[c]) for c in range(2)]


def test_any_file_of_a_set_opens_all_of_it(tmp_path: Path) -> None:
    """And says which files these are, so that a folder's set is segmented once."""
    paths = write_set(tmp_path)
    for path in paths:
        source = opened(path)
        assert_is_pixels(source)
        assert source.parts == tuple(paths)
        assert source.header.size == path.stat().st_size


def test_a_set_of_which_files_are_missing_is_refused_by_their_names(tmp_path: Path) -> None:
    """The channel of the nuclei may be in the missing one."""
    first, second = write_set(tmp_path)
    second.unlink()
    with pytest.raises(ImageError, match=r"set of 2 files, of which 1 are not beside it \(c1.ome.tif\)"):
        opened(first)


def test_a_set_is_told_of_damage_in_another_file_when_its_plane_is_read(tmp_path: Path) -> None:
    """Other files are opened when they are needed: a set can be thousands."""
    first, second = write_set(tmp_path)
    second.write_bytes(second.read_bytes()[:-40])
    source = opened(first)
    with pytest.raises(ImageError, match="truncated"):
        source.read(0, 0, slice(0, 41), slice(0, 29))


def test_a_file_of_a_set_that_was_renamed_is_known_by_its_uuid(tmp_path: Path) -> None:
    """Its own name in the XML is the old one then."""
    first, _ = write_set(tmp_path)
    assert_is_pixels(opened(first.rename(tmp_path / "renamed.ome.tif")))


def test_a_single_file_may_be_called_anything(tmp_path: Path) -> None:
    """Most are renamed after they were written, and not all have UUIDs."""
    data = tiff_data("the name it had.ome.tif", "urn:uuid:1", IFD=0, PlaneCount=6)
    assert_is_pixels(opened(write(tmp_path / "a.tif", PIXELS.reshape(-1, 41, 29), ome(data))))


def test_files_of_a_set_are_looked_for_in_its_folder_alone(tmp_path: Path) -> None:
    """A path in the XML, absolute or not, is none of ours to follow."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "c1.tif", PIXELS[1], "")
    for name in ("../c1.tif", str(tmp_path / "c1.tif"), "..\\c1.tif"):
        data = tiff_data("c0.tif", FirstC=0, PlaneCount=3) + tiff_data(name, FirstC=1, PlaneCount=3)
        with pytest.raises(ImageError, match=r"c1\.tif"):
            opened(write(tmp_path / "in" / "c0.tif", PIXELS[0], ome(data)))


def test_a_companion_holds_the_metadata_of_its_files(tmp_path: Path, shared: Path) -> None:
    """The files say only where it is; without it their axes are unknown."""
    for path in (shared / "formats" / "viv" / "sites" / "avivator" / "data").glob("multifile*"):
        shutil.copy(path, tmp_path)
    companion = tmp_path / "multifile.companion.ome"
    for path in (tmp_path / "multifile-Z3.ome.tiff", companion):
        source = opened(path)
        assert (source.header.axes, source.header.shape, len(source.parts)) == ("ZYX", (5, 24, 18), 5)
        single = tifffile.imread(tmp_path / "multifile-Z4.ome.tiff")
        np.testing.assert_array_equal(source.read(0, 3, slice(0, 24), slice(0, 18)), single)
    companion.unlink()
    with pytest.raises(ImageError, match=r"multifile\.companion\.ome, which is not beside it"):
        opened(tmp_path / "multifile-Z3.ome.tiff")


@pytest.mark.parametrize("order", ["XYZCT", "XYCZT", "XYTCZ", "XYZTC"])
@pytest.mark.parametrize("data", ["<TiffData/>", '<TiffData IFD="0" PlaneCount="6"/>', ""])
def test_planes_follow_the_order_of_dimensions(tmp_path: Path, order: str, data: str) -> None:
    """Where the XML says no more than that."""
    fastest_c = order.index("C") < order.index("Z")
    pages = (PIXELS.swapaxes(0, 1) if fastest_c else PIXELS).reshape(-1, 41, 29)
    assert_is_pixels(opened(write(tmp_path / "a.ome.tif", pages, ome(data, order=order))))


PAGES = PIXELS.reshape(-1, 41, 29)
WRONG: dict[str, tuple[np.ndarray, str, str]] = {
    "a plane is stored nowhere": (PAGES, ome(tiff_data(IFD=0, PlaneCount=5)), "1 are stored nowhere"),
    "a plane is said twice": (
        PAGES,
        ome(tiff_data(IFD=0, PlaneCount=6) + tiff_data(IFD=3, FirstZ=1, PlaneCount=1)),
        "two different places",
    ),
    "pages are missing": (PAGES[:4], ome(tiff_data(IFD=0, PlaneCount=6)), "it has 4 pages"),
    "pages are left over": (PAGES, ome(tiff_data(IFD=0, PlaneCount=2), {"C": 1, "Z": 2}), "not page 2"),
    "a plane is beyond the sizes": (PAGES, ome(tiff_data(IFD=0, FirstZ=7, PlaneCount=6)), "beyond its sizes"),
    "another size": (PAGES, ome("<TiffData/>", {"Y": 40}), "40 x 29"),
    "no size": (PAGES, ome("<TiffData/>", {"Y": 0}), "broken"),
    "planes without end": (PAGES, ome("<TiffData/>", {"T": 10**12}), "more than the"),
    "cut": (PAGES, ome("<TiffData/>")[:-30], "broken"),
    "no image": (PAGES, "<OME></OME>", "no image"),
    "no numbers": (PAGES, ome("<TiffData/>").replace('SizeC="2"', 'SizeC="two"'), "broken"),
    "entities": (PAGES, ome("&a;").replace("<OME", '<!DOCTYPE OME [<!ENTITY a "b">]><OME'), "declares"),
    "other files only": (PAGES, ome(tiff_data("x.tif", "1", IFD=0) + tiff_data("y.tif", "2", IFD=0)), "renamed"),
    "two images": (
        PAGES,
        ome("<TiffData/>", {"C": 1}).replace("</OME>", "") + ome("<TiffData/>", {"C": 1}).split('2016-06">', 1)[1],
        "2 separate images",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_xml_that_does_not_fit_the_pages_is_refused(tmp_path: Path, what: str) -> None:
    """The missing are never filled with zeros, and what is left over is never dropped."""
    pages, text, word = WRONG[what]
    with pytest.raises(ImageError, match=word) as caught:
        opened(write(tmp_path / "a.ome.tif", pages, text))
    assert "\n" not in str(caught.value)


def test_pictures_that_come_with_a_slide_are_not_the_image(tmp_path: Path) -> None:
    """Their names tell."""
    label = (
        '<Image ID="Image:1" Name="label image"><Pixels ID="Pixels:1" DimensionOrder="XYZCT" Type="uint16" SizeX="7" '
        'SizeY="5" SizeZ="1" SizeC="1" SizeT="1"><TiffData IFD="6" PlaneCount="1"/></Pixels></Image></OME>'
    )
    text = ome(tiff_data(IFD=0, PlaneCount=6)).replace("</OME>", label)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        for number, page in enumerate([*PAGES, np.ones((5, 7), np.uint16)]):
            writer.write(page, description=text if number == 0 else None, metadata=None, contiguous=False)
    assert_is_pixels(opened(tmp_path / "a.ome.tif"))


def test_samples_that_the_xml_names_apart_are_channels(tmp_path: Path) -> None:
    """A page of three samples can be stored as RGB only because no other page has three."""
    pixels = np.moveaxis(RNG.integers(0, 256, (3, 41, 29)).astype(np.uint8), 0, -1)
    names = "".join(f'<Channel ID="Channel:0:{c}" Name="{name}"/>' for c, name in enumerate(("DAPI", "GFP", "Cy5")))
    text = ome("<TiffData/>", {"C": 3, "Z": 1}, channels=names)
    source = opened(write(tmp_path / "a.ome.tif", pixels[None], text, photometric="rgb"))
    assert [channel.name for channel in source.header.channels] == ["DAPI", "GFP", "Cy5"]
    np.testing.assert_array_equal(source.read(0, 0, slice(0, 41), slice(0, 29)), np.moveaxis(pixels, -1, 0))


def test_channels_have_the_names_and_wavelengths_of_the_xml(tmp_path: Path) -> None:
    """Emission before excitation, in nanometres whatever the unit."""
    channels = (
        '<Channel ID="Channel:0:0" Name="DAPI" ExcitationWavelength="405" EmissionWavelength="461.5"/>'
        '<Channel ID="Channel:0:1" Fluor="Alexa 488" ExcitationWavelength="4880" ExcitationWavelengthUnit="Å"/>'
    )
    text = ome("<TiffData/>", channels=channels).replace("Type=", 'PhysicalSizeX="162.5" PhysicalSizeXUnit="nm" Type=')
    header = opened(write(tmp_path / "a.ome.tif", PAGES, text)).header
    assert header.channels == (ChannelInfo("DAPI", 461.5), ChannelInfo("Alexa 488", 488.0))
    assert header.pixel_size == pytest.approx(0.1625)


def test_the_only_channel_keeps_its_name_without_an_axis(tmp_path: Path) -> None:
    """A folder of single-channel files is chosen from by it."""
    for channels, expected in (
        ('<Channel ID="Channel:0:0" Name="DAPI"/>', (ChannelInfo("DAPI"),)),
        ('<Channel ID="Channel:0:0"/>', ()),
    ):
        text = ome("<TiffData/>", {"C": 1}, channels=channels)
        header = opened(write(tmp_path / "a.ome.tif", PIXELS[0], text)).header
        assert (header.axes, header.channels) == ("ZYX", expected)


def test_xml_of_any_length_is_refused_before_it_is_parsed() -> None:
    """A description can be as long as the file."""
    with pytest.raises(ImageError, match="characters"):
        parse_ome("<OME>" + " " * MAX_XML + "</OME>")


def test_real_companions_of_a_microscope_parse(shared: Path) -> None:
    """Their pixels are not at hand; channels, sizes and files are what other software reads in them."""
    folder = shared / "formats" / "faim_hcs" / "ome-tiff"
    image = parse_ome((folder / "c3_z33.companion.ome").read_text(encoding="utf-8")).images[0]
    assert image.sizes == {"T": 1, "C": 3, "Z": 33, "Y": 2048, "X": 2048}
    assert image.channels[2] == ChannelInfo("Conf405", 460.0)
    assert image.pixel_size == pytest.approx(0.0649555549)
    assert len(image.planes) == 99
    with pytest.raises(ImageError, match="not beside it"):
        opened(folder / "c3_z33.companion.ome")
