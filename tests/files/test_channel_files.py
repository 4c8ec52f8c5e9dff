from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from nucseg_batch.errors import ImageError, UsageError
from nucseg_batch.files.channel_source import ChannelFiles
from nucseg_batch.files.find.channel_files import with_channels
from nucseg_batch.files.find.channel_naming import channel_names
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.entries import Discovery
from nucseg_batch.files.find.header_scan import scan_headers
from nucseg_batch.files.source import ChannelInfo, Header
from nucseg_batch.settings import SegmentSettings

GUIDS = [f"{number:08X}-0B5D-4D52-9B5D-1C0D5A6E7F80" for number in range(9)]
HTD = '"HTSInfoFile", Version 1.0\n"NWavelengths", 2\n"WaveName1", "GFP"\n"WaveName2", "Hoechst 33342"\n"EndFile"\n'
MES = """<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementSetting xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"><bts:ChannelList>
<bts:Channel bts:Ch="1" bts:Target="405" bts:Acquisition="BP445/45" bts:Fluorophore="" />
<bts:Channel bts:Ch="2" bts:Target="488" bts:Acquisition="BP525/50" bts:Fluorophore="" />
</bts:ChannelList></bts:MeasurementSetting>"""
HARMONY = """<?xml version="1.0" encoding="utf-8"?>
<EvaluationInputData xmlns="43B2A954-E3C3-47E1-B392-6635266B0DD3/HarmonyV6"><Maps><Map>
<Entry ChannelID="1"><ChannelName>Alexa 488</ChannelName><MainEmissionWavelength>522</MainEmissionWavelength></Entry>
<Entry ChannelID="2"><ChannelName>HOECHST 33342</ChannelName></Entry>
</Map></Maps></EvaluationInputData>"""


def found(folder: Path, *names: str, pattern: str | None = None) -> Discovery:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (1 + len(name) % 7))
    return discover(str(folder), pattern=pattern)


def joined(folder: Path, *names: str, channel: str = "auto", pattern: str | None = None) -> Discovery:
    return with_channels(found(folder, *names, pattern=pattern), channel)


@pytest.mark.parametrize(
    ("names", "token", "others"),
    [
        pytest.param(
            [f"exp_B02_s{s}_w{w}{GUIDS[w * s]}.tif" for s in (1, 2) for w in (1, 2, 3)], "w2", 2, id="ImageXpress"
        ),
        pytest.param([f"p_B02_s{s}_w{w}.TIF" for s in (1, 2) for w in (1, 2)], "W1", 1, id="ImageXpress exported"),
        pytest.param(
            [f"x_B03_T0001F00{f}L01A0{c}Z01C0{c}.tif" for f in (1, 2) for c in (1, 2)], "C02", 1, id="Yokogawa"
        ),
        pytest.param([f"r01c02f0{f}p01-ch{c}sk1fk1fl1.tiff" for f in (1, 2) for c in (1, 4)], "ch4", 1, id="Operetta"),
        pytest.param(
            [f"A - 02(fld {f} wv {c} - {c}).tif" for f in (1, 2) for c in ("DAPI", "FITC")], "DAPI", 1, id="IN"
        ),
        pytest.param([f"AS_0001_A01f0{f}d{d}.TIF" for f in (1, 2) for d in (0, 1)], "d0", 1, id="Cellomics"),
        pytest.param([f"s{s}_ch0{c}.tif" for s in (1, 2) for c in (0, 1, 2)], "ch01", 2, id="Leica"),
        pytest.param([f"s{s}_C{c}.png" for s in (1, 2) for c in (1, 2)], "c1", 1, id="letter"),
        pytest.param([f"s{s}_{stain}.png" for s in (1, 2) for stain in ("DAPI", "GFP")], "DAPI", 1, id="stain"),
        pytest.param([f"t{s}_{stain}_C{i}.png" for s in (1, 2) for i, stain in enumerate(("DAPI", "GFP"))], "dapi", 1),
        pytest.param([f"e_w{w}{stain}_s{s}.TIF" for s in (1, 2) for w, stain in ((1, "DAPI"), (2, "GFP"))], "w1", 1),
        pytest.param([f"{s}_{nm}_x.tif" for s in ("a", "b") for nm in ("405", "488")], "405", 1, id="any token"),
    ],
)
def test_files_that_differ_only_in_the_channel_are_one_image(
    tmp_path: Path, names: list[str], token: str, others: int
) -> None:
    """Of each place one file is segmented, and the others are measured with it."""
    images = joined(tmp_path, *names, channel=token).entries
    assert len(images) == 2
    for image in images:
        assert image.files[image.nuclei] == image.key
        assert len(image.files) == len(image.channels) == others + 1
        assert image.size == sum((tmp_path / key).stat().st_size for key in image.files)
        assert image.mtime_ns == max((tmp_path / key).stat().st_mtime_ns for key in image.files)
    assert sorted(key for image in images for key in image.files) == sorted(names)
    assert token.lower() in images[0].key.lower()


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([f"plate_C{well:02d}.tif" for well in range(1, 13)], id="wells of one row"),
        pytest.param([f"plate_{row}{well:02d}.tif" for row in "ABCD" for well in range(1, 4)], id="wells of a plate"),
        pytest.param(["cat_red.png", "cat_blue.png", "dog.png", "cow.png"], id="colours of one thing"),
        pytest.param(["a_DAPI.tif", "b_DAPI.tif"], id="one channel only"),
        pytest.param([f"img_{i:03d}.png" for i in range(30)], id="numbers"),
        pytest.param(["p_B02_s1_w1.TIF", "p_B02_s2_w1.TIF"], id="one wavelength only"),
        pytest.param(["a/x_w1.tif", "b/x_w2.tif"], id="in different folders"),
    ],
)
def test_other_names_are_images_by_themselves(tmp_path: Path, names: list[str]) -> None:
    """A wrong guess would drop images in silence."""
    images = joined(tmp_path, *names).entries
    assert [image.key for image in images] == sorted(names)
    assert not any(image.files for image in images)


def test_a_plate_of_several_channels_is_refused_without_a_choice(tmp_path: Path) -> None:
    """To segment every channel as nuclei would be wrong in silence; the line names the channels."""
    names = [f"p_B02_s{s}_w{w}.TIF" for s in (1, 2) for w in (1, 2, 3)]
    with pytest.raises(UsageError, match=r"w1, w2, w3.*--channel w1.*--channel each") as refused:
        joined(tmp_path, *names)
    assert "\n" not in str(refused.value)
    assert len(with_channels(found(tmp_path), "each").entries) == 6


def test_a_stain_of_dna_decides_by_itself(tmp_path: Path) -> None:
    """As it does for channels within a file; a note says so."""
    plate = joined(tmp_path, *(f"s{s}_{stain}.png" for s in (1, 2) for stain in ("GFP", "DAPI", "mito")))
    assert [image.key for image in plate.entries] == ["s1_DAPI.png", "s2_DAPI.png"]
    assert plate.notes == ("IN: 2 images of 3 channels in files of their own; nuclei in DAPI, measured too: GFP, mito",)


@pytest.mark.parametrize(
    ("metadata", "content", "names", "choice", "key", "channels"),
    [
        (
            "p.HTD",
            HTD,
            [f"p_B02_w{w}.TIF" for w in (1, 2)],
            "auto",
            1,
            ["GFP", "Hoechst 33342"],
        ),
        ("p.HTD", HTD, [f"TimePoint_1/ZStep_2/p_B02_w{w}.TIF" for w in (1, 2)], "gfp", 0, ["GFP", "Hoechst 33342"]),
        ("a.mes", MES, [f"x_B03_T0001F001L01A0{c}Z01C0{c}.tif" for c in (1, 2)], "405", 0, ["C01", "C02"]),
        ("a.mes", MES, [f"x_B03_T0001F001L01A0{c}Z01C0{c}.tif" for c in (1, 2)], "520", 1, ["C01", "C02"]),
        (
            "Index.xml",
            HARMONY,
            [f"r01c02f01p01-ch{c}sk1fk1fl1.tiff" for c in (1, 2)],
            "auto",
            1,
            ["Alexa 488", "HOECHST"],
        ),
    ],
    ids=["plate's HTD beside files", "plate's HTD above", "laser", "emission", "Harmony"],
)
def test_names_and_wavelengths_come_from_what_the_microscope_wrote(
    tmp_path: Path, metadata: str, content: str, names: list[str], choice: str, key: int, channels: list[str]
) -> None:
    """`--channel DAPI` then works on files that are called w1."""
    (tmp_path / metadata).write_text(content)
    (image,) = joined(tmp_path, *names, channel=choice).entries
    assert image.key == names[key]
    assert [channel.name[: len(name)] for channel, name in zip(image.channels, channels, strict=True)] == channels


def test_damaged_metadata_leave_the_tokens(tmp_path: Path) -> None:
    """They help where they can, and never stop a run."""
    for name in ("p.HTD", "a.mes", "Index.xml"):
        (tmp_path / name).write_bytes(b"<half \xff")
    (image,) = joined(tmp_path, "p_B02_w1.TIF", "p_B02_w2.TIF", channel="w1").entries
    assert [channel.name for channel in image.channels] == ["w1", "w2"]


def test_a_number_that_could_mean_two_channels_is_refused(tmp_path: Path) -> None:
    """`--channel 1` is the second channel, but w1 the first: neither is taken in silence."""
    names = [f"p_B02_s1_w{w}.TIF" for w in (1, 2, 3)]
    with pytest.raises(UsageError, match="may mean w1 or w2"):
        joined(tmp_path, *names, channel="1")
    assert joined(tmp_path, channel="0").entries[0].key == names[0]
    assert joined(tmp_path, channel="3").entries[0].key == names[2]
    zero = [f"a/s1_ch0{c}.tif" for c in (0, 1, 2)]
    assert joined(tmp_path / "a", *(name[2:] for name in zero), channel="1").entries[0].key == "s1_ch01.tif"


def test_a_channel_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    """A typing error must not change what is segmented."""
    with pytest.raises(UsageError, match=r"no channel 'DAPY', but 0 DAPI, 1 GFP\. Did you mean 'DAPI'"):
        joined(tmp_path, "a_DAPI.TIF", "a_GFP.TIF", channel="DAPY")


def test_a_pattern_of_one_channel_chooses_it_and_the_others_are_measured(tmp_path: Path) -> None:
    """`--pattern "*_w2*"` is a way to say which channel shows the nuclei."""
    names = [f"p_B0{well}_w{w}.TIF" for well in (2, 3) for w in (1, 2, 3)]
    plate = joined(tmp_path, *names, pattern="*_w2*")
    assert [image.key for image in plate.entries] == ["p_B02_w2.TIF", "p_B03_w2.TIF"]
    assert plate.entries[0].files == tuple(names[:3])
    assert plate.skipped == {}
    only = with_channels(found(tmp_path, pattern="*B03_w2*"), "auto")
    assert [image.files for image in only.entries] == [tuple(names[3:])]
    assert only.skipped == {"image that does not match --pattern": 3}


def test_a_pattern_of_several_channels_limits_what_is_measured(tmp_path: Path) -> None:
    """So a channel that only some images have can be left out."""
    names = [f"p_B0{well}_w{w}.TIF" for well in (2, 3) for w in (1, 2, 3)]
    plate = joined(tmp_path, *names, pattern="*_w[13]*", channel="w1")
    assert [image.files for image in plate.entries] == [(names[0], names[2]), (names[3], names[5])]


def test_an_image_that_lacks_a_measured_channel_is_segmented_and_told(tmp_path: Path) -> None:
    """One file that was lost must not cost the mask; the image has no values for that channel."""
    names = [f"p_B02_s{s}_w{w}.TIF" for s in (1, 2, 3) for w in (1, 2, 3)]
    names.remove("p_B02_s2_w3.TIF")
    names.remove("p_B02_s3_w2.TIF")
    names.remove("p_B02_s3_w3.TIF")
    plate = joined(tmp_path, *names, channel="w2")
    assert [image.key for image in plate.entries] == ["p_B02_s1_w2.TIF", "p_B02_s2_w2.TIF"]
    assert plate.entries[1].files == ("p_B02_s2_w1.TIF", "p_B02_s2_w2.TIF")
    assert [channel.name for channel in plate.entries[1].channels] == ["w1", "w2"]
    assert plate.entries[1].nuclei == 1
    assert "IN: 1 image lacks files of channels that others have (p_B02_s2_w2.TIF: w3); they have no" in plate.notes[1]
    assert [(failure.image, failure.stage) for failure in plate.failures] == [("p_B02_s3_w1.TIF", "plan")]


def test_a_damaged_file_of_another_channel_is_named(tmp_path: Path) -> None:
    """The image is called by the file that shows its nuclei, which is not the one to replace."""
    for site in (1, 2):
        for channel in (1, 2):
            tifffile.imwrite(tmp_path / f"p_B02_s{site}_w{channel}.TIF", np.zeros((97, 83), np.uint16))
    damaged = tmp_path / "p_B02_s2_w2.TIF"
    damaged.write_bytes(damaged.read_bytes()[:4000])
    plate = with_channels(discover(str(tmp_path)), "w1")
    (failure,) = scan_headers(plate, SegmentSettings(channel="w1"), lambda done: None).failures
    assert failure.image == "p_B02_s2_w1.TIF"
    assert failure.message.startswith("p_B02_s2_w2.TIF: the TIFF is truncated")


def test_an_image_that_lacks_the_channel_of_the_nuclei_is_a_failure(tmp_path: Path) -> None:
    """There is nothing to segment in it."""
    names = [f"p_B02_s{s}_w{w}.TIF" for s in (1, 2) for w in (1, 2)]
    names.remove("p_B02_s2_w1.TIF")
    plate = joined(tmp_path, *names, channel="w1")
    assert [image.key for image in plate.entries] == ["p_B02_s1_w1.TIF"]
    assert [(failure.image, failure.stage) for failure in plate.failures] == [("p_B02_s2_w2.TIF", "plan")]
    assert "w1, which shows the nuclei, is missing" in plate.failures[0].message


def wave(path: Path, name: str, nm: float) -> None:
    """An OME-TIFF of one channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channel = {"Name": name, "EmissionWavelength": nm, "EmissionWavelengthUnit": "nm"}
    tifffile.imwrite(path, DEEP, ome=True, metadata={"axes": "YX", "Channel": channel})


def test_a_wavelength_is_found_in_files_where_the_plate_tells_names_only(tmp_path: Path) -> None:
    """The `.HTD` of MetaXpress names channels; only the files say the wavelength."""
    (tmp_path / "p.HTD").write_text(HTD)
    wave(tmp_path / "p_B02_w1.TIF", "1", 525)
    wave(tmp_path / "p_B02_w2.TIF", "2", 461)
    (image,) = with_channels(discover(str(tmp_path)), "460").entries
    assert image.key == "p_B02_w2.TIF"
    assert image.channels == (ChannelInfo("GFP", 525.0), ChannelInfo("Hoechst 33342", 461.0))


@pytest.mark.parametrize(
    ("names", "wanted", "images", "refused"),
    [
        (["p_B02_s1_w1.TIF", "p_B02_s2_w1.TIF"], "W1", 2, 0),
        (["p_B02_s1_w1.TIF", "p_B02_s2_w1.TIF"], "dapi", 2, 0),
        (["p_B02_s1_w1.TIF", "p_B02_s2_w1.TIF"], "w2", 0, 2),
        (["9987_B02.TIF", "9987_B03_s1.TIF"], "w1", 2, 0),
        (["9987_B02.TIF", "9987_B03_s1.TIF"], "w2", 0, 2),
        (["q/p_B02_w1.TIF", "q/p_B02_w2.TIF", "r/p_B02_w1.TIF"], "w1", 2, 0),
        (["B01_w1.TIF", "B01_w2.TIF", "B02.TIF"], "w1", 1, 1),
    ],
    ids=["token", "name", "another token", "left out", "another one left out", "beside a plate of two", "no token"],
)
def test_a_plate_of_one_channel_answers_to_the_token_of_its_files(
    tmp_path: Path, names: list[str], wanted: str, images: int, refused: int
) -> None:
    """One command for many plates: the files' own names count, whatever name the metadata give the channel."""
    for name in names:
        wave(tmp_path / name, "DAPI", 461)
    plates = with_channels(discover(str(tmp_path)), wanted)
    found = scan_headers(plates, SegmentSettings(channel=wanted), lambda done: None)
    assert (len(found.images), len(found.failures)) == (images, refused)
    assert all(image.nuclei == 0 for image in found.images)


def test_depths_may_have_different_channels(tmp_path: Path) -> None:
    """A projection of one channel and single depths of another lie in one plate; each is complete in itself."""
    names = [f"p_E07_s{s}_w{w}.TIF" for s in (1, 2) for w in (1, 3)]
    names += [f"ZStep_1/p_E07_s{s}_w{w}.TIF" for s in (1, 2) for w in (1, 2)]
    names += [f"ZStep_2/p_E07_s{s}_w2.TIF" for s in (1, 2)]
    plate = joined(tmp_path, *names, channel="w1")
    assert [len(image.files) for image in plate.entries] == [2, 2, 2, 2]
    assert plate.failures == ()
    assert plate.skipped == {"image at a depth without the channel of the nuclei": 2}
    assert any("projections" in note for note in plate.notes)


def test_two_files_of_one_channel_at_one_place_are_a_failure(tmp_path: Path) -> None:
    """Which of them is meant cannot be known."""
    names = ["x_B03_T0001F001L01A01Z01C01.tif", "x_B03_T0001F001L01A03Z01C01.tif", "x_B03_T0001F001L01A02Z01C02.tif"]
    plate = joined(tmp_path, *names, channel="C01")
    assert plate.entries == ()
    assert "several files" in plate.failures[0].message


def test_names_of_every_microscope_are_told_apart_from_each_other(shared: Path) -> None:
    """Real plates: the microscope, and how many of its files are channels."""
    for folder, microscope, count in (("ImageXpress", "ImageXpress", 108), ("CV8000", "Yokogawa", 96)):
        entries = discover(str(shared / "formats" / "faim_hcs" / folder)).entries
        names = channel_names(entry.key for entry in entries)
        assert {name.microscope for name in names} == {microscope}
        assert len(names) == count


@pytest.mark.parametrize(
    ("folder", "channel", "pattern", "images", "channels"),
    [
        ("ImageXpress_exported/9987_Plate_3434", "auto", None, 12, ("DAPI", "FITC", "Texas Red")),
        ("ImageXpress_exported/9987_Plate_3435", "DAPI", None, 8, ("DAPI", "FITC")),
        ("ImageXpress_exported/9987_Plate_3435", "auto", "*w2.TIF", 8, ("DAPI", "FITC")),
        ("ImageXpress/Projection-Mix", "w1", None, 44, ("w1", "w2", "w3")),
        ("ImageXpress/1well-3C-2S-Zmix-T", "624", None, 4, ("FITC", "Cy3", "Texas Red")),
        ("CV8000", "405", None, 48, ("C01", "C02")),
    ],
)
def test_real_plates_are_put_together(
    shared: Path, folder: str, channel: str, pattern: str | None, images: int, channels: tuple[str, ...]
) -> None:
    """Files of ImageXpress, of its export, and of a CV8000, with depths and time points as files of their own."""
    plate = with_channels(discover(str(shared / "formats" / "faim_hcs" / folder), pattern=pattern), channel)
    assert len(plate.entries) == images
    assert tuple(info.name for info in plate.entries[0].channels) == channels
    assert plate.failures == ()


class Plane:
    """A source of one plane, as the readers of files give it."""

    def __init__(self, pixels: np.ndarray, axes: str = "YX", mtime_ns: int = 1) -> None:
        self.pixels = pixels
        self.header = Header(axes, pixels.shape, pixels.dtype.name, pixels.nbytes, mtime_ns)
        self.closed = False

    def read(self, t: int, z: int, rows: slice, columns: slice) -> np.ndarray:
        return self.pixels[..., rows, columns]

    def close(self) -> None:
        self.closed = True


RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 2**16, (23, 37), dtype=np.uint16)
SHALLOW = RNG.integers(0, 2**8, (23, 37), dtype=np.uint8)
CHANNELS = [ChannelInfo("DAPI", 461.0), ChannelInfo("GFP")]


def test_separate_files_read_as_one_image_of_several_channels() -> None:
    """In a type that holds all of their values."""
    planes = [Plane(SHALLOW, mtime_ns=5), Plane(DEEP[None], "CYX", mtime_ns=7)]
    source = ChannelFiles(planes, CHANNELS)
    header = source.header
    assert (header.axes, header.shape, header.dtype) == ("CYX", (2, 23, 37), "uint16")
    assert (header.size, header.mtime_ns) == (SHALLOW.nbytes + DEEP.nbytes, 7)
    assert header.channels == tuple(CHANNELS)
    window = source.read(0, 0, slice(3, 20), slice(5, 36))
    np.testing.assert_array_equal(window, np.stack([SHALLOW, DEEP])[:, 3:20, 5:36])
    assert window.dtype == np.uint16
    source.close()
    assert all(plane.closed for plane in planes)


def test_files_that_do_not_go_together_are_refused() -> None:
    """Another shape, or colours, would be read as something they are not."""
    with pytest.raises(ImageError, match="Y is 23 in DAPI, but 37 in GFP"):
        ChannelFiles([Plane(DEEP), Plane(SHALLOW.T)], CHANNELS)
    with pytest.raises(ImageError, match="GFP holds colours"):
        ChannelFiles([Plane(DEEP), Plane(np.zeros((23, 37, 3), np.uint8), "YXS")], CHANNELS)
    with pytest.raises(ImageError, match="channels of its own"):
        ChannelFiles([Plane(np.zeros((2, 23, 37), np.uint8), "CYX"), Plane(DEEP)], CHANNELS)


def test_a_tiff_tells_its_channel_where_nothing_else_does(tmp_path: Path) -> None:
    """OME-TIFFs name the one channel that they hold."""
    for token, name in (("w1", "Cy5"), ("w2", "DAPI")):
        tifffile.imwrite(
            tmp_path / f"a_B02_{token}.tif", DEEP, ome=True, metadata={"axes": "YX", "Channel": {"Name": name}}
        )
    (image,) = with_channels(discover(str(tmp_path)), "auto").entries
    assert image.key == "a_B02_w2.tif"
    assert [channel.name for channel in image.channels] == ["Cy5", "DAPI"]
