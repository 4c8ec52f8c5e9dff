"""A paragraph for a methods section, and its references, from the provenance of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nucseg_batch.arrays.tracks import IOU as SAME
from nucseg_batch.arrays.tracks import REACH
from nucseg_batch.arrays.volumes import CONTAINED, IOU
from nucseg_batch.compartments import Distances
from nucseg_batch.settings import ESTIMATE, SegmentSettings

SHOWN = 16
"""Digits of a hash that a paragraph shows; the provenance has all 64."""
PRECISIONS = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16", "float32": "float32"}
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def _lengths(text: str, names: tuple[str, ...]) -> str:
    """`gap 0.5, width 2 micrometres` for distances as options have them."""
    distances = Distances.parsed(text, len(names))
    if distances is None:
        return text
    values = (f"{name} {value:g}" for name, value in zip(names, distances.values, strict=True))
    return f"{', '.join(values)} {'micrometres' if distances.micrometres else 'pixels'}"


def _selected(one: str, text: str) -> str:
    """`z-slices 2 to 11` for a selection as `--z` has it, `2:12`; numbers from the end stay as they are written."""
    parts = [int(part) if part.strip() else None for part in text.split(":")]
    if len(parts) == 1:
        return f"{one} {parts[0]}"
    start, stop, step = parts[0] or 0, parts[1], (parts[2] if len(parts) > 2 else None) or 1
    steps = f" in steps of {step}" if step > 1 else ""
    if start < 0 or (stop is not None and stop < 0):
        return f"{one}s {text}"
    if stop is None:
        return f"{one}s from {start}{steps}"
    places = range(start, stop, step)
    return f"{one}s {start} to {places[-1]}{steps}" if len(places) > 1 else f"{one} {start}"


_NEAREST = "each pixel of the nearest nucleus"
OPTIONS: dict[str, Callable[[Any], str]] = {
    "t": lambda v: _selected("time point", v),
    "z": lambda v: "maximum projection of the z-slices" if v.strip() == "max" else _selected("z-slice", v),
    "channel": "channel of the nuclei {}".format,
    "region": "side in pixels of the regions of large planes {}".format,
    "augment": "answers averaged over mirror images".format,
    "skip_empty": "regions without anything bright skipped".format,
    "ring": lambda v: f"rings around nuclei ({_lengths(v, ('gap', 'width'))}; {_NEAREST})",
    "expand": lambda v: f"cells around nuclei ({_lengths(v, ('up to',))}; {_NEAREST})",
    "measure": "further columns {}".format,
    "neighbour_radius": "neighbours at most {:g} pixels away".format,
}
"""What a paragraph says of options, of those that are named only where they are not the default."""


@dataclass(frozen=True)
class Reference:
    """A work to cite."""

    key: str
    """Name in BibTeX."""
    kind: str
    """Kind of entry in BibTeX."""
    fields: Mapping[str, str]
    """Fields of the entry."""

    def bibtex(self) -> str:
        """The entry in BibTeX."""
        inside = ",\n".join(f"  {name} = {{{value}}}" for name, value in self.fields.items())
        return f"@{self.kind}{{{self.key},\n{inside}\n}}"

    def line(self) -> str:
        """The entry as one line of text."""
        authors = self.fields["author"].strip("{}").replace(" and others", " et al.").replace(" and ", "; ")
        source = self.fields.get("journal") or self.fields.get("booktitle") or ""
        where = [source, self.fields.get("volume", ""), self.fields.get("pages", "")]
        doi = f"doi:{self.fields['doi']}" if "doi" in self.fields else ""
        rest = [" ".join(part for part in where if part), self.fields.get("note", ""), doi]
        told = ". ".join(part for part in rest if part)
        return f"{authors} ({self.fields['year']}). {self.fields['title']}. {told}."


UNET = Reference(
    "ronneberger2015unet",
    "inproceedings",
    {
        "author": "Ronneberger, O. and Fischer, P. and Brox, T.",
        "title": "U-Net: Convolutional Networks for Biomedical Image Segmentation",
        "booktitle": "Medical Image Computing and Computer-Assisted Intervention (MICCAI)",
        "pages": "234-241",
        "year": "2015",
        "doi": "10.1007/978-3-319-24574-4_28",
    },
)
BOWL = Reference(
    "caicedo2019bowl",
    "article",
    {
        "author": "Caicedo, J. C. and others",
        "title": "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl",
        "journal": "Nature Methods",
        "volume": "16",
        "pages": "1247-1253",
        "year": "2019",
        "doi": "10.1038/s41592-019-0612-7",
    },
)
EFFICIENTNET = Reference(
    "tan2019efficientnet",
    "inproceedings",
    {
        "author": "Tan, M. and Le, Q. V.",
        "title": "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
        "booktitle": "ICML",
        "year": "2019",
        "note": "arXiv:1905.11946",
    },
)
BBBC039 = Reference(
    "caicedo2019evaluation",
    "article",
    {
        "author": "Caicedo, J. C. and others",
        "title": "Evaluation of Deep Learning Strategies for Nucleus Segmentation in Fluorescence Images",
        "journal": "Cytometry Part A",
        "volume": "95",
        "pages": "952-965",
        "year": "2019",
        "doi": "10.1002/cyto.a.23863",
    },
)
KROMP = Reference(
    "kromp2020annotated",
    "article",
    {
        "author": "Kromp, F. and others",
        "title": "An annotated fluorescence image dataset for training nuclear segmentation methods",
        "journal": "Scientific Data",
        "volume": "7",
        "pages": "262",
        "year": "2020",
        "doi": "10.1038/s41597-020-00608-w",
    },
)
NAYLOR = Reference(
    "naylor2019segmentation",
    "article",
    {
        "author": "Naylor, P. and Laé, M. and Reyal, F. and Walter, T.",
        "title": "Segmentation of Nuclei in Histopathology Images by Deep Regression of the Distance Map",
        "journal": "IEEE Transactions on Medical Imaging",
        "volume": "38",
        "pages": "448-459",
        "year": "2019",
        "doi": "10.1109/TMI.2018.2865709",
    },
)
CENTRES = Reference(
    "neven2019instance",
    "inproceedings",
    {
        "author": "Neven, D. and De Brabandere, B. and Proesmans, M. and Van Gool, L.",
        "title": "Instance Segmentation by Jointly Optimizing Spatial Embeddings and Clustering Bandwidth",
        "booktitle": "CVPR",
        "year": "2019",
        "note": "arXiv:1906.11109",
    },
)
STITCHING = Reference(
    "stringer2021cellpose",
    "article",
    {
        "author": "Stringer, C. and Wang, T. and Michaelos, M. and Pachitariu, M.",
        "title": "Cellpose: a generalist algorithm for cellular segmentation",
        "journal": "Nature Methods",
        "volume": "18",
        "pages": "100-106",
        "year": "2021",
        "doi": "10.1038/s41592-020-01018-x",
    },
)
LAPTRACK = Reference(
    "fukai2023laptrack",
    "article",
    {
        "author": "Fukai, Y. T. and Kawaguchi, K.",
        "title": "LapTrack: linear assignment particle tracking with tunable metrics",
        "journal": "Bioinformatics",
        "volume": "39",
        "pages": "btac799",
        "year": "2023",
        "doi": "10.1093/bioinformatics/btac799",
    },
)
SKIMAGE = Reference(
    "vanderwalt2014skimage",
    "article",
    {
        "author": "van der Walt, S. and others",
        "title": "scikit-image: image processing in Python",
        "journal": "PeerJ",
        "volume": "2",
        "pages": "e453",
        "year": "2014",
        "doi": "10.7717/peerj.453",
    },
)
NGFF = Reference(
    "moore2021ngff",
    "article",
    {
        "author": "Moore, J. and others",
        "title": "OME-NGFF: a next-generation file format for expanding bioimaging data-access strategies",
        "journal": "Nature Methods",
        "volume": "18",
        "pages": "1496-1498",
        "year": "2021",
        "doi": "10.1038/s41592-021-01326-w",
    },
)


def references(record: Mapping[str, Any]) -> list[Reference]:
    """What a run rests on, itself first; record: as `files.run.provenance` writes it."""
    own = {
        "author": "{The nucseg-batch developers}",
        "title": f"nucseg-batch {record['version']}",
        "year": "2026",
        "note": f"Computer software, version {record['version']}",
    }
    joined = {"z": [STITCHING], "t": [LAPTRACK]}.get(record["settings"].get("link"), [])
    return [Reference("nucsegbatch", "misc", own), *model_references(record["model"]), *joined, SKIMAGE, NGFF]


def model_references(model: Mapping[str, Any]) -> list[Reference]:
    """References for a model: its architecture, the method that separates nuclei, and the data of the default model.

    model: its name, architecture and task.
    """
    lite = model.get("architecture") == "efficientnetlite0"
    named = [UNET, EFFICIENTNET] if lite else [UNET] if model.get("architecture") in ("default", "unet") else []
    trained = [] if model["name"] != "default" else [BOWL, BBBC039, KROMP, NAYLOR] if lite else [BOWL]
    votes = [CENTRES] if model.get("task", "instances") == "instances" else []
    return [*named, *trained, *votes]


def paragraph(record: Mapping[str, Any]) -> str:
    """The methods of a run in a few sentences, each of them a fact from its provenance."""
    return " ".join(_sentences(record))


def _sentences(record: Mapping[str, Any]) -> Iterator[str]:
    model, given, output = record["model"], record["settings"], record["output"]
    name = "its default model" if model["name"] == "default" else f"the model {model['name']}"
    network = _network(model)
    yield (
        f"Nuclei were segmented with nucseg-batch {record['version']} and {name} (SHA-256 {model['sha256'][:SHOWN]}"
        f"{'; ' + network if network else ''}{_computed(record['computed'])})."
    )
    threshold, smallest = given["threshold"], given["min_area"]
    parts = []
    if model.get("threshold") is not None or threshold is not None:
        tuned = " (tuned with the model)" if threshold is None else ""
        parts.append(f"foreground above a probability of {threshold or model['threshold']:g}{tuned}")
    if model.get("min_area") is not None or smallest is not None:
        least = model.get("min_area") if smallest is None else smallest
        unit = "pixels at the network's scale" if smallest is None else "pixels"
        parts.append(f"nuclei of at least {least} {unit}")
    parts += _others(given, record.get("pattern"))
    if parts:
        yield f"Settings: {', '.join(parts)}."
    if channels := record.get("channels"):
        yield f"Nuclei were taken from channel {' or '.join(channels)}."
    if given.get("flatfield"):
        how = "estimated from the images" if given["flatfield"] == ESTIMATE else f"given as {given['flatfield']}"
        yield f"Uneven illumination was corrected: pixels were divided by the flat field {how}."
    yield _scale(record, given)
    if given.get("link") == "z":
        yield (
            f"Nuclei of neighbouring z-slices were joined if their intersection over union was at least {IOU:g}, or if "
            f"{CONTAINED:.0%} of the smaller one lay in the larger one; gaps of one slice were bridged, and nuclei on "
            f"top of each other separated at necks. This gave {output['volumes']} volumes."
        )
    if given.get("link") == "t":
        yield (
            f"Nuclei of successive time points were linked if their intersection over union was above {SAME:g}, and "
            "all others, gaps of one time point and divisions with laptrack (doi:10.1093/bioinformatics/btac799) by "
            f"distance, at most {REACH:g} median widths of nuclei. This gave {output['tracks']} tracks."
        )
    planes = f" ({_counted(output['planes'], 'plane')})" if output["planes"] != output["images"] else ""
    unit = "plane" if record["input"]["planes"] > record["input"]["images"] else "image"
    lost = output["failures"]
    failed = f"; {_counted(lost, unit)} could not be processed" if lost else ""
    missing = output["missing"]
    missing = f"; {_counted(missing, 'plane')} {'was' if missing == 1 else 'were'} not done yet" if missing else ""
    found = "1 nucleus was" if output["nuclei"] == 1 else f"{output['nuclei']} nuclei were"
    yield f"In {_counted(output['images'], 'image')}{planes}, {found} found{failed}{missing}."
    yield (
        "Properties of nuclei are defined as in scikit-image's regionprops; masks are OME-Zarr "
        f"{'labels written into the input store' if record.get('in_place') else '0.5 label images'}."
    )
    table = "nuclei.parquet" if "nuclei.csv" not in output["sha256"] else "nuclei.csv"
    yield (
        f"Input: SHA-256 {record['input']['sha256'][:SHOWN]} over names and pixels; output: {table} SHA-256 "
        f"{output['sha256'].get(table, '')[:SHOWN]}."
    )


def _network(model: Mapping[str, Any]) -> str:
    kinds = {
        "default": "a half-resolution U-Net",
        "unet": "a U-Net",
        "efficientnetlite0": "a half-resolution U-Net with an EfficientNet-Lite0 encoder",
    }
    architecture = model.get("architecture", "")
    kind = kinds.get(architecture, f"architecture {architecture}" if architecture else "")
    data = " trained on images of the 2018 Data Science Bowl" if model["name"] == "default" else ""
    more = " and of five other collections" if data and architecture == "efficientnetlite0" else ""
    return f"{kind}{data}{more}" if kind else ""


def _computed(computed: Mapping[str, str]) -> str:
    if not computed:
        return ""
    library, _, version = computed.get("backend", "").partition(" ")
    device = computed.get("device", "").upper()
    precision = PRECISIONS.get(computed.get("precision", ""), computed.get("precision", ""))
    return f"; {BACKENDS.get(library, library)} {version}, {precision} on a {device}"


def _others(given: Mapping[str, Any], pattern: str | None) -> Iterator[str]:
    for name, words in OPTIONS.items():
        value, default = given.get(name), getattr(SegmentSettings, name)
        if value not in (None, default):
            yield words(value)
    if pattern:
        yield f"files that match {pattern}"


def _scale(record: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    known = record["model"].get("diameter")
    width = f", so that nuclei are {known:g} pixels wide" if known else ""
    if given["diameter"] is not None:
        return (
            f"Images were rescaled for the network from a given nuclear width of {given['diameter']:g} pixels{width}."
        )
    adapt = (record.get("scales") or {}).get("adapt")
    how = {
        "each": "each by a factor of its own, found by looks at several scales",
        "sized": "each by a factor of its own, estimated by the size network of the model; images whose nuclei turned "
        "out much wider or narrower were segmented again",
        "outliers": "all by one factor measured on a sample, and by one of their own where their nuclei differ",
    }.get(str(adapt), "by a factor that was measured")
    return f"Images were rescaled for the network{width}, {how} (column scale of images.csv)."


def _counted(number: int, word: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {word}{'s' * (number != 1)}"
