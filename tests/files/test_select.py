from __future__ import annotations

import pytest

from nucseg_batch.errors import ImageError, UsageError
from nucseg_batch.files.find.select import choose_channel, chosen_places, image_info, is_dna_stain
from nucseg_batch.files.source import ChannelInfo, Header
from nucseg_batch.settings import SegmentSettings


def header(axes: str = "YX", *names: str, **changes: object) -> Header:
    """A header with lengths T 5, C as many as names, Z 7, Y 101, X 103 and S 3."""
    lengths = {"T": 5, "C": len(names), "Z": 7, "Y": 101, "X": 103, "S": 3}
    values: dict[str, object] = {
        "axes": axes,
        "shape": tuple(lengths[axis] for axis in axes),
        "dtype": "uint16",
        "size": 1000,
        "mtime_ns": 12,
        "channels": tuple(ChannelInfo(name) for name in names),
    }
    return Header(**(values | changes))  # type: ignore[arg-type]


def info(found: Header, **settings: object):
    return image_info("a.tif", found, SegmentSettings(**settings))  # type: ignore[arg-type]


def test_what_a_header_says_is_planned() -> None:
    """Every plane of a 5D image, on the channel of the nuclei."""
    planned = image_info(
        "p.zarr/A/1",
        header("TCZYX", "GFP", "DAPI", pixel_size=0.65, levels=4),
        SegmentSettings(),
        group="p.zarr/A/1",
    )
    assert (planned.key, planned.group, planned.size, planned.mtime_ns) == ("p.zarr/A/1", "p.zarr/A/1", 1000, 12)
    assert (planned.height, planned.width, planned.channels, planned.dtype) == (101, 103, 1, "uint16")
    assert (planned.names, planned.nuclei) == (("GFP", "DAPI"), 1)
    assert (planned.t, planned.z, planned.projected) == ((0, 5, 1), (0, 7, 1), False)
    assert (planned.pixel_size, planned.levels) == (0.65, 4)


def test_a_colour_picture_has_three_channels_and_no_names() -> None:
    """Its colours are one picture, not stains."""
    planned = info(header("YXS"))
    assert (planned.channels, planned.names, planned.nuclei, planned.t, planned.z) == (3, (), 0, None, None)


CHANNELS = [ChannelInfo("GFP", 509.0), ChannelInfo("DAPI", 461.0), ChannelInfo("Cy5"), ChannelInfo("Cy5 long", 668.0)]


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("DAPI", 1),
        ("dapi", 1),
        ("auto", 1),
        ("0", 0),
        ("3", 3),
        ("461", 1),
        ("455", 1),
        ("470nm", 1),
        ("505 nm", 0),
        ("long", 3),
        ("cy5", 2),
        ("gf", 0),
    ],
)
def test_a_channel_is_chosen_by_name_wavelength_number_or_part_of_its_name(wanted: str, place: int) -> None:
    """In the order that select.py lists."""
    assert choose_channel(wanted, CHANNELS) == place


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("Dapy", "Did you mean 'DAPI'"),
        ("4", "no channel '4', but 0 GFP (509 nm), 1 DAPI (461 nm), 2 Cy5, 3 Cy5 long (668 nm)"),
        ("560", "no channel '560'"),
        ("cy", "means 2 of its channels: 2 Cy5, 3 Cy5 long"),
        ("red", "no channel 'red'"),
        ("", "no channel ''"),
    ],
)
def test_what_means_no_channel_or_several_is_refused_with_those_there_are(wanted: str, message: str) -> None:
    """Never the first one in silence."""
    with pytest.raises(ImageError) as refused:
        choose_channel(wanted, CHANNELS)
    assert message in str(refused.value)


def test_another_stain_is_not_offered_as_a_typing_error() -> None:
    """RFP is not GFP misspelt."""
    with pytest.raises(ImageError) as refused:
        choose_channel("RFP", CHANNELS)
    assert "Did you mean" not in str(refused.value)


def test_a_name_counts_before_a_number() -> None:
    """Channels that are called 1, 2, 3, or by their lasers, are chosen as the user sees them."""
    assert choose_channel("1", [ChannelInfo("1"), ChannelInfo("2"), ChannelInfo("3")]) == 0
    assert choose_channel("488", [ChannelInfo("405", 450.0), ChannelInfo("488", 520.0), ChannelInfo("x", 488.0)]) == 1


def test_two_channels_as_near_to_a_wavelength_are_refused() -> None:
    """Neither is meant more than the other."""
    with pytest.raises(ImageError, match="means 2 of its channels"):
        choose_channel("500", [ChannelInfo("a", 490.0), ChannelInfo("b", 510.0)])


@pytest.mark.parametrize(
    "name",
    [
        "DAPI",
        "dapi-T2",
        "Hoechst 33342",
        "HOECHST",
        "DRAQ5",
        "DRAQ 7",
        "SiR-DNA",
        "SPY555-DNA",
        "DNA",
        "Nuclei",
        "ch00 DNA",
    ],
)
def test_names_of_dna_stains_are_known(name: str) -> None:
    """`auto` then finds the nuclei."""
    assert is_dna_stain(name)


@pytest.mark.parametrize(
    "name", ["nuclear stain", "Nucleus channel", "Propidium Iodide", "H2B-mCherry", "NucBlue", "TO-PRO-3"]
)
def test_rarer_names_of_dna_stains_are_known(name: str) -> None:
    """The list is in the docstring."""
    assert is_dna_stain(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "0",
        "405",
        "GFP",
        "SYTO 14",
        "DNA-PK",
        "mtDNA",
        "RNA",
        "Nuclear pore",
        "anti-dsDNA",
        "Channel 1",
        "PI",
        "blue",
    ],
)
def test_other_names_are_not_taken_for_dna(name: str) -> None:
    """A wrong channel in silence is worse than a question."""
    assert not is_dna_stain(name)


@pytest.mark.parametrize("names", [("GFP", "Cy5"), ("0", "1"), ("DAPI", "H2B-GFP"), ("", "")])
def test_an_unclear_channel_is_a_question_that_names_all(names: tuple[str, ...]) -> None:
    """Also where two of them stain DNA."""
    with pytest.raises(ImageError, match="say with --channel which shows the nuclei"):
        info(header("CYX", *names))


@pytest.mark.parametrize(
    ("axes", "names", "channel"),
    [
        ("YX", (), "auto"),
        ("YX", (), "green"),
        ("YX", (), "0"),
        ("YX", (), "each"),
        ("YXS", (), "red"),
        ("YXS", (), "grey"),
        ("CYX", ("Cy5",), "auto"),
        ("CYX", ("Cy5",), "blue"),
        ("CYX", ("",), "0"),
        ("YX", ("DAPI",), "dapi"),
    ],
)
def test_an_only_channel_is_taken(axes: str, names: tuple[str, ...], channel: str) -> None:
    """Grey images may lie among colour ones, of which a colour is chosen."""
    assert info(
        header(axes, *names, shape=(1, 9, 9)[-len(axes) :]) if "S" not in axes else header(axes), channel=channel
    )


@pytest.mark.parametrize(
    ("axes", "names", "channel", "message"),
    [
        ("YX", (), "DAPI", "without a name"),
        ("YX", (), "1", "without a name"),
        ("YXS", (), "DAPI", "colour picture"),
        ("YXS", (), "0", "colour picture"),
        ("CYXS", ("a", "b"), "auto", "axis of channels besides"),
        ("CYX", ("Cy5",), "DAPI", "no channel 'DAPI'"),
        ("CYX", ("a", "b"), "each", "say with --channel"),
        ("CYX", ("a", "b"), "grey", "no channel 'grey'"),
    ],
)
def test_a_channel_that_an_image_does_not_have_is_refused(
    axes: str, names: tuple[str, ...], channel: str, message: str
) -> None:
    """What was asked for must not be passed by."""
    with pytest.raises(ImageError, match=message):
        info(header(axes, *names), channel=channel)


def test_channels_without_names_are_numbered_and_repeated_names_are_told_apart() -> None:
    """They become columns of the tables."""
    found = header("CYX", "DAPI", "", "GFP", "GFP", shape=(5, 101, 103))
    assert info(found).names == ("DAPI", "1", "GFP-2", "GFP-3", "4")


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("3", [3]),
        ("-1", [6]),
        ("0:3", [0, 1, 2]),
        ("1:6:2", [1, 3, 5]),
        (":-4", [0, 1, 2]),
        ("-2:", [5, 6]),
        ("::3", [0, 3, 6]),
        ("5:100", [5, 6]),
        (":", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_places_along_an_axis_are_chosen_as_in_python(text: str, places: list[int]) -> None:
    """Ends count from the back where they are negative, and a range may reach beyond the end."""
    assert list(chosen_places("z", text, 7)) == places
    planned = info(header("ZYX"), z=text)
    assert list(planned.depths) == places


def test_equal_choices_are_planned_equal() -> None:
    """They share arrays of masks, and a run may be resumed with either."""
    assert info(header("TYX"), t="0:5:2").t == info(header("TYX"), t="::2").t == info(header("TYX"), t="0:99:2").t


@pytest.mark.parametrize("text", ["7", "-8", "7:", "3:3", "5:2"])
def test_places_beyond_the_image_are_refused(text: str) -> None:
    """With the length of its axis."""
    with pytest.raises(ImageError, match="axis z has length 7, counted from 0"):
        info(header("ZYX"), z=text)


@pytest.mark.parametrize(
    ("axis", "text"), [("t", "max"), ("t", "a"), ("z", "1-3"), ("z", "0:9:0"), ("z", "0:9:-1"), ("t", "")]
)
def test_what_is_no_selection_is_a_usage_error(axis: str, text: str) -> None:
    """It is wrong for every image, so the whole run is refused."""
    with pytest.raises(UsageError, match=f"^{axis} must be"):
        info(header("TZYX"), **{axis: text})


def test_max_projects_depths_where_there_are_any() -> None:
    """A plane among stacks is its own projection."""
    stack, plane = info(header("TZYX"), z="max"), info(header("TYX"), z="max")
    assert (stack.projected, stack.z, stack.axes) == (True, None, "t")
    assert (plane.projected, plane.z) == (False, None)


def test_an_image_without_an_axis_has_place_0_of_it_only() -> None:
    """`--t 3` of a single image is a mistake."""
    assert info(header(), t="0").t is None
    with pytest.raises(ImageError, match="axis t has length 1, counted from 0"):
        info(header(), t="3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (0, 103)}, "no pixels"),
        ({"shape": (2001, 1009)}, "--max-pixels"),
        ({"shape": (2001, 1009), "chunk": (2001, 1009)}, "each of its chunks"),
        ({"shape": (20_000, 20_000), "size": 700_000}, "--max-pixels"),
    ],
)
def test_an_image_that_would_need_too_much_at_once_is_refused(changes: dict[str, object], message: str) -> None:
    """From the header alone, before memory is taken."""
    with pytest.raises(ImageError, match=message):
        info(header(**changes), max_pixels=2000 * 1009)


def test_a_large_image_in_small_chunks_is_planned() -> None:
    """Only pieces of it are ever decoded."""
    planned = info(header(shape=(100_000, 100_000), chunk=(512, 512)), max_pixels=10**6)
    assert planned.height == 100_000


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    """A kilobyte that would become 162 MB; what is stored counts where that is known."""
    with pytest.raises(ImageError, match="bomb"):
        info(header(shape=(9000, 9000)))
    assert info(header(shape=(9000, 9000), stored_bytes=10**6))
    assert info(header(shape=(9000, 9000), size=10**6))


def test_the_channel_of_separate_files_was_chosen_before() -> None:
    """By the names of files, which the header does not have."""
    found = header("CYX", "w1", "w2")
    planned = image_info("b_w2.tif", found, SegmentSettings(channel="C01"), files=("b_w1.tif", "b_w2.tif"), nuclei=1)
    assert (planned.files, planned.nuclei, planned.names) == (("b_w1.tif", "b_w2.tif"), 1, ("w1", "w2"))
