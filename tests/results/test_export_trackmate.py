"""Tracks in TrackMate's XML: its structure, and what a reader of such files finds."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from exporting import exported
from movies import Movie, movie
from numpy.typing import NDArray
from small_runs import SmallRun, small_run

import nucseg_batch
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.results.run import FinishedRun

pytest.importorskip("laptrack")


def tracked_run(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    frames: NDArray[np.uint8],
    *,
    name: str = "a.tif",
    region: int = 512,
    **options: Any,
) -> SmallRun:
    """A run over one movie, of 0.25 micrometres a pixel unless `options` are other ones."""
    run = small_run(place, monkeypatch, link="t", region=region)
    axes = "TZYX" if frames.ndim == 4 else "TYX"
    known = {"resolution": (4, 4), "metadata": {"axes": axes, "unit": "um", "spacing": 1.5}}
    tifffile.imwrite(run.folder / name, frames, imagej=True, **(options or known))
    run.segment()
    return run


def simulated() -> Movie:
    return movie(25, (127, 139), 12, speed=1.0, seed=6)


def pixels(truth: Movie) -> NDArray[np.uint8]:
    return np.where(truth.tracks > 0, 150, 10).astype(np.uint8)


def squares(*places: tuple[int, int] | None) -> NDArray[np.uint8]:
    """A movie of one nucleus of 9 x 8 pixels at these places."""
    found = np.full((len(places), 47, 59), 10, np.uint8)
    for frame, place in zip(found, places, strict=True):
        if place is not None:
            frame[place[0] : place[0] + 9, place[1] : place[1] + 8] = 150
    return found


def written(run: SmallRun, folder: Path, name: str = "a") -> ET.Element:
    assert exported(run, folder, "trackmate").formats["trackmate"].written == 1
    return ET.parse(folder / "trackmate" / f"{name}.xml").getroot()


def spots(root: ET.Element) -> dict[int, dict[str, str]]:
    return {int(spot.attrib["ID"]): spot.attrib for spot in root.iter("Spot")}


def edges(root: ET.Element) -> set[tuple[int, int]]:
    return {(int(one.attrib["SPOT_SOURCE_ID"]), int(one.attrib["SPOT_TARGET_ID"])) for one in root.iter("Edge")}


def expected_edges(run: SmallRun) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    """Edges by time point and label, from the table of tracks."""
    table = nucseg_batch.read_tracks(run.store, library="pandas").fillna({"parent_track_id": 0}).sort_values("t")
    last: dict[int, tuple[int, int]] = {}
    found = set()
    for row in table.itertuples():
        before = last.get(row.track_id)
        if before is None and row.parent_track_id:
            before = last[row.parent_track_id]
        if before is not None:
            found.add((before, (int(row.t), int(row.label))))
        last[row.track_id] = int(row.t), int(row.label)
    return found


def test_spots_and_edges_are_those_of_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In micrometres, with the outline of each nucleus around its centre, and with divisions."""
    run = tracked_run(tmp_path, monkeypatch, pixels(simulated()))
    root = written(run, tmp_path / "out")
    assert root.find("Model").attrib == {"spatialunits": "micron", "timeunits": "frame"}
    nuclei = nucseg_batch.read_nuclei(run.store, library="pandas")
    tracks = nucseg_batch.read_tracks(run.store, library="pandas")
    found = spots(root)
    assert len(found) == len(nuclei) == int(root.find("Model/AllSpots").attrib["nspots"])
    assert sorted(found) == list(range(len(nuclei)))
    for spot, nucleus, track in zip(
        (found[number] for number in sorted(found)), nuclei.itertuples(), tracks.itertuples(), strict=True
    ):
        assert (int(spot["FRAME"]), int(spot["NUCSEG_LABEL"])) == (nucleus.t, nucleus.label)
        assert int(spot["NUCSEG_TRACK"]) == track.track_id
        assert float(spot["AREA"]) == pytest.approx(nucleus.area / 16, rel=1e-5)
        assert float(spot["RADIUS"]) == pytest.approx((nucleus.area / 16 / np.pi) ** 0.5, rel=1e-5)
    place = {number: (int(spot["FRAME"]), int(spot["NUCSEG_LABEL"])) for number, spot in found.items()}
    by_place = {(place[a], place[b]) for a, b in edges(root)}
    assert by_place == expected_edges(run)
    sources = [source for source, _ in edges(root)]
    assert len(sources) - len(set(sources)) == sum(int(one.attrib["NUMBER_SPLITS"]) for one in root.iter("Track")) > 0


def test_centres_and_outlines_lie_on_the_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(0, 0) is the centre of the first pixel, and outlines go along the edges of pixels."""
    run = tracked_run(tmp_path, monkeypatch, squares((5, 7), (6, 9)))
    root = written(run, tmp_path / "out")
    first, second = (spot for spot in root.iter("Spot"))
    assert (float(first.attrib["POSITION_X"]), float(first.attrib["POSITION_Y"])) == (10.5 / 4, 9 / 4)
    corners = np.array(second.text.split(), np.float64).reshape(-1, 2)
    assert len(corners) == int(second.attrib["ROI_N_POINTS"]) == 4
    centre = float(second.attrib["POSITION_X"]), float(second.attrib["POSITION_Y"])
    rows, columns = np.nonzero(open_masks(run.store)["a.tif"][1])
    low, high = (corners + centre).min(axis=0) * 4, (corners + centre).max(axis=0) * 4
    assert np.allclose(low, (columns.min() - 0.5, rows.min() - 0.5))
    assert np.allclose(high, (columns.max() + 0.5, rows.max() + 0.5))


def test_a_gap_is_an_edge_over_two_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The format needs no new number after it, and a frame without nuclei has no spots."""
    run = tracked_run(tmp_path, monkeypatch, squares((5, 7), (5, 8), None, (6, 9)))
    root = written(run, tmp_path / "out")
    assert edges(root) == {(0, 1), (1, 2)}
    (track,) = root.iter("Track")
    asked = ("NUMBER_SPOTS", "NUMBER_GAPS", "NUMBER_SPLITS", "TRACK_START", "TRACK_STOP", "TRACK_DURATION")
    assert [float(track.attrib[name]) for name in asked] == [3, 1, 0, 0, 3, 3]
    assert [len(frame) for frame in root.iter("SpotsInFrame")] == [1, 1, 0, 1]


def test_a_nucleus_that_is_not_linked_is_a_spot_and_no_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As TrackMate itself saves it."""
    run = tracked_run(tmp_path, monkeypatch, squares((5, 7), (35, 40)))
    root = written(run, tmp_path / "out")
    assert (len(spots(root)), list(root.iter("Track"))) == (2, [])


def test_slices_have_tracks_of_their_own_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At their depth in micrometres; frames hold the spots of all slices."""
    frames = np.stack([squares((5, 7), (5, 8)), squares((25, 7), (26, 8)), squares(None, None)], axis=1)
    run = tracked_run(tmp_path, monkeypatch, frames)
    root = written(run, tmp_path / "out")
    assert [float(spot["POSITION_Z"]) for _, spot in sorted(spots(root).items())] == [0, 1.5, 0, 1.5]
    assert edges(root) == {(0, 2), (1, 3)}
    assert [frame.attrib["frame"] for frame in root.iter("SpotsInFrame")] == ["0", "1"]
    image = root.find("Settings/ImageData").attrib
    assert [image[name] for name in ("nslices", "nframes", "width", "height")] == ["3", "2", "59", "47"]
    assert [float(image[name]) for name in ("pixelwidth", "voxeldepth")] == [0.25, 1.5]


def test_without_a_pixel_size_units_are_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tracked_run(tmp_path, monkeypatch, squares((5, 7), (5, 8)), metadata={"axes": "TYX"})
    root = written(run, tmp_path / "out")
    assert root.find("Model").attrib["spatialunits"] == "pixel"
    assert float(next(root.iter("Spot")).attrib["AREA"]) == 72


def test_the_file_has_what_trackmate_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader fails without these elements, and takes each value of a spot but its name as a number.

    The text of a spot begins with its first number: the reader splits it at white space.
    """
    run = tracked_run(tmp_path, monkeypatch, squares((5, 7), (5, 8)), name="a & 'b' \x07.tif", metadata={"axes": "TYX"})
    root = written(run, tmp_path / "out", "a & 'b' \x07")
    assert root.tag == "TrackMate"
    assert int(root.attrib["version"].split(".")[0]) >= 7
    for path in (
        "Model/FeatureDeclarations/SpotFeatures", "Model/FeatureDeclarations/EdgeFeatures",
        "Model/FeatureDeclarations/TrackFeatures", "Model/AllSpots", "Model/AllTracks", "Model/FilteredTracks",
        "Settings/ImageData", "Settings/BasicSettings", "Settings/DetectorSettings", "Settings/InitialSpotFilter",
        "Settings/SpotFilterCollection", "Settings/TrackerSettings", "Settings/TrackFilterCollection",
        "Settings/AnalyzerCollection", "GUIState",
    ):  # fmt: skip
        assert root.find(path) is not None, path
    declared = {kind: {one.attrib["feature"] for one in root.iter(kind) for one in one} for kind in
                ("SpotFeatures", "EdgeFeatures", "TrackFeatures")}  # fmt: skip
    for spot in root.iter("Spot"):
        assert spot.attrib.keys() - {"ID", "name", "ROI_N_POINTS"} <= declared["SpotFeatures"]
        assert [float(value) for name, value in spot.attrib.items() if name != "name"]
        assert spot.text.strip() == spot.text
    for track in root.iter("Track"):
        assert track.attrib.keys() - {"name"} == declared["TrackFeatures"]
    assert {name for edge in root.iter("Edge") for name in edge.attrib} == declared["EdgeFeatures"]
    ids = {one.attrib["TRACK_ID"] for one in root.iter("Track")}
    assert ids == {one.attrib["TRACK_ID"] for one in root.iter("TrackID")} == {"0"}
    assert root.find("Settings/ImageData").attrib["filename"] == "a & 'b' ?.tif"
    assert "nucseg-batch" in root.find("Log").text


def test_large_planes_have_the_same_spots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their outlines come by windows, and nuclei are numbered region by region."""
    found = []
    for region in (512, 64):
        run = tracked_run(tmp_path / str(region), monkeypatch, pixels(simulated()), region=region)
        root = written(run, tmp_path / f"out{region}")
        same = ("FRAME", "POSITION_X", "POSITION_Y", "AREA", "RADIUS", "ROI_N_POINTS")
        place = {number: tuple(spot[name] for name in same) for number, spot in spots(root).items()}
        outlines = {place[int(one.attrib["ID"])]: one.text for one in root.iter("Spot")}
        found.append((outlines, {(place[a], place[b]) for a, b in edges(root)}))
    assert {unit.label_array.regional for unit in run.units} == {True}
    assert found[0] == found[1]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tracked_run(tmp_path, monkeypatch, pixels(simulated()))
    for name in ("one", "two"):
        exported(run, tmp_path / name, "trackmate")
    one, two = ((tmp_path / name / "trackmate" / "a.xml").read_bytes() for name in ("one", "two"))
    assert one == two


def test_images_without_tracks_are_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run(tmp_path, monkeypatch)
    run.put("plane.tif", squares((5, 7))[0])
    run.segment()
    outcome = exported(run, tmp_path / "out", "trackmate").formats["trackmate"]
    assert outcome.reasons == ["plane.tif: it has no time points."]
    assert outcome.written == 0


def test_pytrackmate_reads_spots_and_lineages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label of its table is a track of TrackMate: a mother and all that descends from it."""
    pytrackmate = pytest.importorskip("pytrackmate")
    run = tracked_run(tmp_path, monkeypatch, pixels(simulated()))
    exported(run, tmp_path / "out", "trackmate")
    found = pytrackmate.trackmate_peak_import(str(tmp_path / "out" / "trackmate" / "a.xml"), get_tracks=True)
    nuclei = nucseg_batch.read_nuclei(run.store, library="pandas")
    tracks = nucseg_batch.read_tracks(run.store, library="pandas")
    linked = tracks.groupby("track_id")["t"].transform("size") > 1
    mothers = dict(tracks.dropna(subset="parent_track_id")[["track_id", "parent_track_id"]].to_numpy(int).tolist())
    linked |= tracks["track_id"].isin([*mothers, *mothers.values()])

    def oldest(track: int) -> int:
        return oldest(mothers[track]) if track in mothers else track

    of_spot = found.set_index("spot_id").loc[range(len(nuclei))]
    assert np.allclose(of_spot["x"], nuclei["centroid-1"] / 4, rtol=1e-5)
    assert np.allclose(of_spot["y"], nuclei["centroid-0"] / 4, rtol=1e-5)
    assert (of_spot["t_stamp"].to_numpy() == nuclei["t"].to_numpy(int)).all()
    lineages = [oldest(track) for track in tracks["track_id"]]
    pairs = set(zip(of_spot["label"][linked.to_numpy()], np.array(lineages)[linked.to_numpy()], strict=True))
    assert len(pairs) == len({label for label, _ in pairs}) == len({lineage for _, lineage in pairs})
    assert mothers


def test_a_reader_of_trackmate_files_finds_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """geff, the exchange format of tracking programs, converts it without another warning."""
    convert = pytest.importorskip("geff.convert")
    geff = pytest.importorskip("geff")
    run = tracked_run(tmp_path, monkeypatch, pixels(simulated()))
    root = written(run, tmp_path / "out")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No image folder found")
        warnings.filterwarnings("ignore", message=r"Missing tag\(s\): \['DisplaySettings'\]")  # the user's own are used
        warnings.filterwarnings("ignore", message="(Spatial|Temporal) unit")  # ImageJ's words are others than NGFF's
        convert.from_trackmate_xml_to_geff(tmp_path / "out" / "trackmate" / "a.xml", tmp_path / "a.geff")
        graph, metadata = geff.read(tmp_path / "a.geff", backend="networkx")
    assert set(graph.edges) == edges(root)
    found = spots(root)
    assert set(graph.nodes) == set(found)
    for number, values in graph.nodes(data=True):
        assert values["POSITION_X"] == pytest.approx(float(found[number]["POSITION_X"]))
        assert values["NUCSEG_TRACK"] == int(found[number]["NUCSEG_TRACK"])
    units = {axis.name: axis.unit for axis in metadata.axes}
    assert units["POSITION_X"] in ("micron", "micrometer")
    with FinishedRun(run.store) as finished:
        assert len(graph) == sum(row.nuclei for row in finished.planes())
