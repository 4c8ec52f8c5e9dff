"""Channels in files of their own, as microscopes and people name them; what only looks like it; what is assumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nucseg_batch.errors import UsageError
from nucseg_batch.files.find.channel_files import MERGE, with_channels
from nucseg_batch.files.find.channel_naming import read_names
from nucseg_batch.files.find.channel_words import word_of
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.entries import Discovery
from nucseg_batch.files.find.select import is_dna_stain

SHAPE = (23, 31)


def put(folder: Path, names: Sequence[str], shapes: dict[str, tuple[int, ...]] | None = None) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.zeros((shapes or {}).get(name, SHAPE), np.uint16), photometric="minisblack")


def joined(folder: Path, names: Sequence[str], channel: str = "auto") -> Discovery:
    put(folder, names)
    return with_channels(discover(str(folder)), channel)


@pytest.mark.parametrize(
    ("names", "nuclei", "channels"),
    [
        pytest.param(
            [
                f"C{w}_02_{i}_4_{c}_002.tif"
                for w in (7, 11)
                for i, c in ((1, "Hoechst 33342"), (2, "CY5"), (3, "Bright Field"))
            ],
            "Hoechst 33342",
            3,
            id="Gen5",
        ),
        pytest.param(
            [f"D9_-1_{i}_{f}_{c}_001.tif" for f in (1, 2) for i, c in ((1, "DAPI 377,447"), (2, "TRITC 556,600"))],
            "DAPI 377,447",
            2,
            id="Gen5 with filters",
        ),
        pytest.param([f"n{i}-{c}.tif" for i in (1, 2) for c in ("Hoechst", "tdTomato", "SOX10")], "Hoechst", 3),
        pytest.param(
            [f"p{i}-{c}.tif" for i in (1, 2) for c in ("DAPI-blue", "FITC-green", "Nanog-red")],
            "DAPI-blue",
            3,
            id="with their colours",
        ),
        pytest.param(
            [f"Probe{i}_{c}.tif" for i in (1, 2) for c in ("DAPI_blau", "GFP_grün", "Hellfeld")],
            "DAPI_blau",
            3,
            id="in German",
        ),
        pytest.param([f"{c}_t07_{i}.tif" for i in (1, 2) for c in ("DRAQ5", "Nanog")], "DRAQ5", 2, id="stain first"),
        pytest.param([f"brain{i}DAPI.tif" for i in (1, 2)] + [f"brain{i}GFP.tif" for i in (1, 2)], "DAPI", 2),
        pytest.param([f"p{i}/{c}.tif" for i in (1, 2) for c in ("DAPI", "Iba1", "NeuN")], "DAPI", 3, id="own folders"),
        pytest.param([f"{c}/f{i}.tif" for i in (1, 2) for c in ("dapi", "fitc")], "dapi", 2, id="folder per channel"),
        pytest.param(
            [f"--W0000{i}--P00003--Z00000--T00000--{c}.tif" for i in (1, 2) for c in ("Hoechst", "Cy5", "Trans")],
            "Hoechst",
            3,
            id="scanR",
        ),
        pytest.param(
            [f"img_00000000{i}_{c}_002.tif" for i in (1, 2) for c in ("DAPI", "mCherry-LED")], "DAPI", 2, id="MM 1.4"
        ),
        pytest.param(
            [
                f"B - 3(fld {f} wv {c}).tif"
                for f in (1, 2)
                for c in ("UV - DAPI", "Blue - FITC", "TL-Brightfield - DAPI")
            ],
            "UV - DAPI",
            3,
            id="IN Cell with transmitted light",
        ),
        pytest.param(
            [
                f"S7_{c}.tif"
                for r in (2, 3)
                for c in (
                    f"1.0.4_R00{r}_DAPI__FINAL_F",
                    f"1.0.4_R00{r}_Cy3_CD31-AF555_FINAL_AFR_F",
                    f"2.0.4_R00{r}_Cy5_PCK26-AF647_FINAL_AFR_F",
                )
            ],
            "1.0.4 DAPI",
            3,
            id="CellDIVE",
        ),
        pytest.param([f"f{i}_c1_DAPI.tif" for i in (1,)] + ["f1_c2_AF647.tif"], None, 2, id="Zeiss with stains"),
        pytest.param([f"e{i}_{n}_{c}.tif" for i in (1, 2) for n, c in ((3, "DAPI"), (5, "GFP"))], "DAPI", 2),
        pytest.param([f"DAPI-GFP-run_{i}_{c}.tif" for i in (1, 2) for c in ("DAPI", "GFP")], "DAPI", 2),
    ],
)
def test_a_stain_of_dna_tells_the_channels(tmp_path: Path, names: list[str], nuclei: str | None, channels: int) -> None:
    """No file is segmented twice, and no channel is taken for nuclei."""
    found = joined(tmp_path, names)
    assert len(found.entries) == len(names) // channels
    assert sorted(key for entry in found.entries for key in entry.files) == sorted(names)
    for entry in found.entries:
        assert entry.files[entry.nuclei] == entry.key
        if nuclei:
            assert entry.channels[entry.nuclei].name == nuclei


@pytest.mark.parametrize(
    ("names", "tokens"),
    [
        pytest.param([f"x_t001xy{p}c{c}.tif" for p in (1, 2) for c in (1, 2, 3)], "c1, c2, c3", id="Nikon"),
        pytest.param([f"Snap-17_c{c}_ORG.tif" for c in (1, 2)], "c1, c2", id="Zeiss"),
        pytest.param([f"e_b0s1c{c}x0-1388y0-1040.tif" for c in (0, 1)], "c0, c1", id="Zeiss tiles"),
        pytest.param([f"002005-3-00100100{c}.tif" for c in (1, 2)], "001, 002", id="Columbus"),
        pytest.param([f"W0003F0001T0001Z01C{c}.tif" for c in (1, 2)], "C1, C2", id="CQ1"),
        pytest.param([f"r02c03f01p-ch{c}sk1fk1fl1.tiff" for c in (1, 3)], "ch1, ch3", id="Harmony projections"),
        pytest.param(
            [f"1_0_{z}_{c}.tiff" for z in (0, 1) for c in ("Fluorescence_405_nm_Ex", "BF_LED_matrix_full")],
            "BF_LED_matrix_full, Fluorescence_405_nm_Ex",
            id="squid",
        ),
        pytest.param([f"{i}_{nm}.tif" for i in ("a", "b") for nm in (405, 561, 640)], "405, 561, 640", id="lasers"),
        pytest.param([f"{c}_{w}_1.tif" for w in ("A1", "A2") for c in ("Phase", "Red")], "Phase, Red", id="Incucyte"),
    ],
)
def test_channels_without_a_stain_are_refused_by_name(tmp_path: Path, names: list[str], tokens: str) -> None:
    """To segment each of them is wrong in silence; a wavelength also excites other dyes."""
    put(tmp_path, names)
    with pytest.raises(UsageError, match=tokens):
        with_channels(discover(str(tmp_path)), "auto")
    assert len(with_channels(discover(str(tmp_path)), "each").entries) == len(names)
    first = tokens.split(", ")[0]
    assert {entry.channels[entry.nuclei].name for entry in with_channels(discover(str(tmp_path)), first).entries} == {
        first
    }


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([f"img_{i}.tif" for i in range(398, 412)], id="numbers that are wavelengths"),
        pytest.param([f"s_{i}.tif" for i in range(4)] + ["s_DAPI.tif"], id="numbers beside a stain"),
        pytest.param(["DAPI_mock.tif", "DAPI_treated.tif", "DAPI_day3.tif"], id="conditions"),
        pytest.param(["k_control.tif", "k_treated.tif", "k_DAPI.tif"], id="conditions beside a stain"),
        pytest.param([f"p_{w}_Hoechst.tif" for w in ("A01", "A02", "C01", "C02")], id="wells of one stain"),
        pytest.param(["m1_DAPI.tif", "m2_GFP.tif"], id="two samples, two stains"),
        pytest.param(["DAPI.tif", "liver.tif", "kidney.tif", "spleen.tif"], id="one is called like a stain"),
        pytest.param([f"nuclei_{i:03d}.tif" for i in range(5)], id="a data set of nuclei"),
        pytest.param(["a_t1.tif", "a_t2.tif", "b_t1.tif", "b_t2.tif"], id="time points"),
        pytest.param([f"plate_{r}{i:02d}.tif" for r in "ABC" for i in (1, 2)], id="wells"),
    ],
)
def test_names_that_only_look_like_channels_stay_images(tmp_path: Path, names: list[str]) -> None:
    """A wrong guess drops images."""
    found = joined(tmp_path, names)
    assert [entry.key for entry in found.entries] == sorted(names)
    assert not any(entry.files for entry in found.entries)
    assert not found.assumptions


@pytest.mark.parametrize(
    ("names", "merges"),
    [
        (["x_DAPI.tif", "x_GFP.tif", "x_RGB.tif", "y_DAPI.tif", "y_GFP.tif", "y_RGB.tif"], 2),
        (["q_CH1.tif", "q_CH2.tif", "q_Overlay.tif"], 1),
        (["q_DAPI.tif", "q_merged.tif"], 1),
        (["j 1_c1.tif", "j 1_c5.tif", "j 1_(c1+c5).tif", "j 2_c1.tif", "j 2_c5.tif", "j 2_(c1+c5).tif"], 2),
        (["M_A01f00d0.TIF", "M_A01f00d1.TIF", "M_A01f00o1.TIF"], 1),
    ],
)
def test_merges_beside_their_channels_are_skipped(tmp_path: Path, names: list[str], merges: int) -> None:
    """They show every nucleus a second time."""
    put(tmp_path, names)
    channel = "auto" if any("DAPI" in name for name in names) else read_names(names).names[0].token
    found = with_channels(discover(str(tmp_path)), channel)
    assert found.skipped[MERGE] == merges == len(found.passed[MERGE].names)
    assert any(MERGE in one.what and "--channel each" in one.option for one in found.assumptions)
    assert len(with_channels(discover(str(tmp_path)), "each").entries) == len(names)


def test_a_merge_without_channels_is_an_image(tmp_path: Path) -> None:
    """It is all there is."""
    assert len(joined(tmp_path, ["a_merge.tif", "b_merge.tif", "c.tif"]).entries) == 3


def test_one_image_with_an_unknown_marker_is_joined_and_doubted(tmp_path: Path) -> None:
    """Nothing but its place in the name says that it is a channel."""
    (image,) = joined(tmp_path, ["t_DAPI.tif", "t_Zfp42.tif"]).entries
    assert image.files == ("t_DAPI.tif", "t_Zfp42.tif")
    (assumed,) = joined(tmp_path, []).assumptions
    assert assumed.doubtful
    assert "Zfp42" in assumed.evidence
    assert "--channel each" in assumed.option
    (said,) = joined(tmp_path, [], channel="DAPI").assumptions
    assert not said.doubtful


@pytest.mark.parametrize("shape", [(23, 37), (3, 23, 31)])
def test_files_of_another_size_are_no_channels_by_weak_evidence(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Channels of one image have one size."""
    put(tmp_path, ["t_DAPI.tif", "t_Zfp42.tif"], {"t_Zfp42.tif": shape})
    found = with_channels(discover(str(tmp_path)), "auto")
    assert [entry.key for entry in found.entries] == ["t_DAPI.tif", "t_Zfp42.tif"]


def test_an_image_that_lacks_its_stain_is_a_failure_and_not_nuclei(tmp_path: Path) -> None:
    """Its marker would be counted as nuclei."""
    names = [f"{i}_{c}.tif" for i in ("a", "b", "c") for c in ("DAPI", "SOX10") if (i, c) != ("b", "DAPI")]
    found = joined(tmp_path, names)
    assert [entry.key for entry in found.entries] == ["a_DAPI.tif", "c_DAPI.tif"]
    assert [failure.image for failure in found.failures] == ["b_SOX10.tif"]


def test_two_of_many_names_do_not_refuse_a_folder(tmp_path: Path) -> None:
    """They are images; a line says so, and how to say otherwise."""
    names = ["slide_ch1.tif", "slide_ch2.tif", *(f"kidney{i}.tif" for i in range(6))]
    found = joined(tmp_path, names)
    assert len(found.entries) == 8
    (assumed,) = found.assumptions
    assert assumed.doubtful
    assert "--channel ch1" not in assumed.what
    assert "--channel ch1" in assumed.option
    said = joined(tmp_path, [], channel="ch2")
    assert [entry.key for entry in said.entries if entry.files] == ["slide_ch2.tif"]
    assert len(said.entries) == 7


@pytest.mark.parametrize("names", [["w_c1.tif", "w_c2.tif"], ["w_red.tif", "w_green.tif"]])
def test_letters_and_colours_of_one_image_are_doubted(tmp_path: Path, names: list[str]) -> None:
    """C1 and C2 may be wells; red and green two samples."""
    found = joined(tmp_path, names)
    assert len(found.entries) == 2
    assert [one.doubtful for one in found.assumptions] == [True]


@pytest.mark.parametrize(
    ("piece", "word"),
    [
        ("DAPI", "dna"),
        ("H33342", "dna"),
        ("SYTOX Green", "dna"),
        ("CD45RO", "other"),
        ("CD8a", "stain"),
        ("Cy5-CD45", "stain"),
        ("GFP_2", "no"),
        ("405", "laser"),
        ("402", "no"),
        ("A07", "no"),
        ("control2", "no"),
        ("composite", "merge"),
        ("BF_LED_matrix_left_half", "stain"),
    ],
)
def test_words_of_names(piece: str, word: str) -> None:
    """What a piece says decides whether it needs other evidence."""
    assert word_of(piece) == word


def test_transmitted_light_through_a_filter_is_no_stain() -> None:
    """IN Cell names the filter that was in place."""
    assert is_dna_stain("UV - DAPI")
    assert not is_dna_stain("TL-Brightfield - DAPI")
