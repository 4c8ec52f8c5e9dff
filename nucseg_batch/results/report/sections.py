"""The sections of the page, from what was found; each returns markup and reads nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nucseg_batch.files.names import printable
from nucseg_batch.files.run.timings import Timings
from nucseg_batch.plan import Assumption
from nucseg_batch.results.report import heatmap
from nucseg_batch.results.report.advice import Note
from nucseg_batch.results.report.charts import histogram, share_bar
from nucseg_batch.results.report.failure_reasons import FailureReason
from nucseg_batch.results.report.gallery_selection import GallerySelection
from nucseg_batch.results.report.markup import Markup, count, element, figure, join, percent, prose, text
from nucseg_batch.results.report.outliers import KINDS
from nucseg_batch.results.report.page import cell, name_cell, soft, table
from nucseg_batch.results.report.ranking import Finding
from nucseg_batch.results.report.run_statistics import RunStatistics
from nucseg_batch.results.report.settings_text import Setting
from nucseg_batch.results.report.wells import Plate

REASONS = 20
"""Reasons for failures that are listed."""
NAMED = 6
"""Planes that are named of each kind of outlier."""
CELLS = 24_000
"""Wells that are drawn in all heat maps together."""
LISTED_PLATES = 200
"""Plates that are listed."""
STAGES = {
    "read": "reading and decoding images",
    "size": "estimating the width of the nuclei",
    "segment": "the network and the separation of nuclei",
    "measure": "areas, shapes and intensities",
    "write": "compressing and writing masks",
}


def header(name: str, survey: RunStatistics, times: Timings | None, version: str) -> Markup:
    """Title, when, and the figures that matter most."""
    per = "plane" if survey.stacks else "image"
    facts = [("Images", f"{survey.images:,}", f"{figure(survey.pixels / 1e6)} megapixels", "")]
    if survey.planes != survey.images:
        facts.append(("Planes", f"{survey.planes:,}", "time points and depths", ""))
    facts.append(("Nuclei", f"{survey.nuclei:,}", "", ""))
    if "nuclei" in survey.of_planes:
        facts.append((f"Nuclei per {per}", figure(survey.of_planes["nuclei"].median), "median", ""))
    if "size" in survey.of_planes:
        area = survey.of_nuclei["area_um2" if survey.micrometres else "area"]
        facts.append(("Area of a nucleus", figure(area.median), f"{_unit(survey)}, median", ""))
    if "confidence" in survey.of_planes:
        facts.append(("Confidence", f"{survey.of_planes['confidence'].median:.2f}", f"median of {per}s", ""))
    facts.append(("Failed", f"{survey.failed:,}", f"{per}s" if survey.failed else "", "bad" if survey.failed else ""))
    moments = () if times is None else (f"{moment:%Y-%m-%d %H:%M %z}" for moment in (times.began, times.ended))
    when = " to ".join(dict.fromkeys(moments))
    told = ", ".join(filter(None, (f"nucseg-batch {version}" if version else "", when)))
    cards = (
        element(
            "div", element("dt", title), element("dd", value, element("small", more) if more else None), class_=kind
        )
        for title, value, more, kind in facts
    )
    return join(element("h1", f"Nuclei of {name}"), soft(told), element("dl", *cards, class_="facts"))


def look_at(notes: Sequence[Note]) -> Markup:
    """What to know first."""
    if not notes:
        fine = element("strong", "Nothing stands out.")
        return element("ul", element("li", fine, " Look at some pictures all the same.", class_="fine"), class_="notes")
    items = (
        element(
            "li",
            element("strong", note.title),
            " ",
            prose(note.words),
            join(" ", element("a", "See more", href=f"#{note.link}"), ".") if note.link else None,
        )
        for note in notes
    )
    return element("ul", *items, class_="notes")


def failures(reasons: Sequence[FailureReason], file: str) -> Markup:
    """Why images have no mask."""
    if not reasons:
        return soft("None: every image has a mask.")
    rows = [
        (
            name_cell(reason.message),
            cell(f"{reason.count:,}", number=True),
            cell(reason.stage),
            cell(_names([element("span", name) for name in reason.names], reason.count)),
        )
        for reason in reasons[:REASONS]
    ]
    rest = sum(reason.count for reason in reasons[REASONS:])
    more = f" {rest:,} failed for other reasons." if rest else ""
    return join(
        table(("Reason", "How many", "While", "Images"), rows, "reasons stacked"),
        soft("Messages that differ only in names and numbers count as one reason. All are in ", file, ".", more),
    )


def _names(names: Sequence[Markup], number: int) -> Markup:
    """Some names, and how many there are beside them."""
    more = [element("li", f"and {number - len(names):,} more", class_="soft")] if number > len(names) else []
    return element("ul", *(element("li", name) for name in names), *more)


def distributions(survey: RunStatistics) -> Markup:
    """Histograms."""
    per = "plane" if survey.stacks else "image"
    panels = []
    areas = survey.of_nuclei.get("area_um2" if survey.micrometres else "area")
    if areas is not None:
        unit = f"area of a nucleus ({_unit(survey)})"
        panels.append(histogram(areas, title="Area", unit=unit, of="nuclei", whole=not survey.micrometres))
    if "intensity_mean" in survey.of_nuclei:
        values = survey.of_nuclei["intensity_mean"]
        panels.append(histogram(values, title="Intensity", unit="mean intensity (grey values)", of="nuclei"))
    if survey.planes > 1:
        title = f"Nuclei per {per}"
        unit = f"nuclei in the {per}"
        panels.append(histogram(survey.of_planes["nuclei"], title=title, unit=unit, of=f"{per}s", whole=True))
    for of, named in ((f"{per}s", survey.of_planes), ("nuclei", survey.of_nuclei)):
        if "confidence" in named:
            title = f"Confidence of {of}"
            panels.append(
                histogram(named["confidence"], title=title, unit="confidence (0 to 1)", of=of, whole=False, top=1.0)
            )
    if not panels:
        return soft("There is nothing to count.")
    return join(element("div", *panels, class_="panels"), soft("Dashed line: median. Point at a bar for its numbers."))


def outliers(survey: RunStatistics, choice: GallerySelection, shown: Collection[int]) -> Markup:
    """How many planes are not as they should be, and the first of them."""
    per = "plane" if survey.stacks else "image"
    rows = []
    for kind in KINDS:
        ranking = choice.outliers[kind.name]
        if not ranking.count:
            continue
        first = [_named(finding, finding.number in shown) for finding in ranking.first[:NAMED]]
        number = element("br").join((f"{ranking.count:,}", text(percent(ranking.count, survey.planes))))
        rows.append(
            (
                name_cell(kind.title),
                cell(Markup(number), number=True),
                cell(prose(kind.why)),
                cell(_names(first, ranking.count)),
            )
        )
    unknown = [
        name
        for name, columns in (
            ("confidence", "confidence"),
            ("focus", "sharpness"),
            ("saturation", "saturated_fraction"),
        )
        if columns not in survey.of_planes
    ]
    said = (
        f"This run was made without columns for {', '.join(unknown)}, so these could not be judged." if unknown else ""
    )
    if not rows:
        return join(soft(f"No {per} differs much from the others."), soft(said) if said else None)
    head = ("Kind", f"{per.capitalize()}s", "What it means", "The clearest")
    return join(
        table(head, rows, "stacked"),
        soft("Outliers are relative to this run. Underlined names have a picture above. ", said),
    )


def _named(finding: Finding, shown: bool) -> Markup:
    name = element("a", finding.row.name, href=f"#p{finding.number}") if shown else text(finding.row.name)
    return join(name, " ", element("span", finding.what, class_="soft"))


def plates(found: Sequence[Plate], survey: RunStatistics) -> Markup:
    """Heat maps of as many plates as there is room for, and a list of all."""
    per = "plane" if survey.stacks else "image"
    wanted = heatmap.metrics(micrometres=survey.micrometres, rated="confidence" in survey.of_planes, per=per)
    spans = [(metric, span) for metric in wanted if (span := heatmap.limits(found, metric)) is not None]
    parts, room = [], CELLS
    drawn = 0
    for plate in found:
        room -= len(plate.rows) * len(plate.columns) * len(spans)
        if room < 0 and drawn:
            break
        drawn += 1
        maps = (heatmap.heatmap(plate, metric, span, per) for metric, span in spans)
        title = plate.name or "The plate"
        parts += [element("h3", f"{title}: {len(plate.rows) * len(plate.columns)} wells"), soft(_known(plate))]
        parts.append(element("div", *maps, class_="panels"))
    words = (
        "Colours mean the same on all plates. Dashed squares have no image, grey ones no nuclei or no result, and an "
        "orange cross says that images of the well failed. Point at a well for its numbers."
    )
    listed = _list_of_plates(found) if len(found) > 1 else Markup("")
    left = soft(f"{len(found) - drawn} more plates are in the list only.") if drawn < len(found) else None
    return join(soft(words), *parts, left, listed)


def _known(plate: Plate) -> str:
    wells = plate.wells.values()
    failed = sum(well.failed for well in wells)
    known = sum(well.planes > 0 for well in wells)
    nuclei = sum(well.nuclei for well in wells)
    return f"{count(known, 'well')} with results, {nuclei:,} nuclei" + (f", {failed:,} failed" if failed else "")


def _list_of_plates(found: Sequence[Plate]) -> Markup:
    rows = [
        (
            name_cell(plate.name),
            cell(f"{sum(well.planes > 0 for well in plate.wells.values()):,}", number=True),
            cell(f"{sum(well.planes for well in plate.wells.values()):,}", number=True),
            cell(f"{sum(well.nuclei for well in plate.wells.values()):,}", number=True),
            cell(f"{sum(well.failed for well in plate.wells.values()):,}", number=True),
        )
        for plate in found[:LISTED_PLATES]
    ]
    return join(element("h3", "All plates"), table(("Plate", "Wells", "Images", "Nuclei", "Failed"), rows))


def settings_section(
    settings: Sequence[Setting], origin: Sequence[Setting], assumed: Sequence[Assumption] = ()
) -> Markup:
    """Where the results come from, what was assumed of the input, and with which settings."""
    changed = [setting for setting in settings if setting.changed]
    parts = [table(("What", "Which"), [(name_cell(one.name), cell(one.value)) for one in origin])]
    if assumed:
        parts += [element("h3", "Assumptions"), _assumptions(assumed)]
    if settings:
        words = f"{count(len(changed), 'setting differs', 'settings differ')} from the defaults." if changed else None
        parts += [element("h3", "Settings"), soft(words or "All settings are the defaults.")]
        if changed:
            parts.append(_settings(changed))
        rest = [setting for setting in settings if not setting.changed]
        parts.append(element("details", element("summary", "Settings that are the defaults"), _settings(rest)))
    return join(*parts)


def _assumptions(assumed: Sequence[Assumption]) -> Markup:
    rows = [
        (
            cell(printable(f"{one.example}: {one.what}" if one.example else one.what)),
            cell(one.evidence),
            cell(one.option),
            cell("doubtful" if one.doubtful else ""),
            cell(f"{one.images:,}", number=True),
        )
        for one in assumed
    ]
    return table(("Assumed", "Evidence", "If that is wrong", "", "Images"), rows)


def _settings(settings: Sequence[Setting]) -> Markup:
    rows = [
        (
            name_cell(one.name),
            cell(one.value),
            cell(element("code", one.option)),
        )
        for one in settings
    ]
    return table(("What", "Value", "Option"), rows)


def stages(times: Timings) -> Markup:
    """How long each stage took."""
    rows = []
    for name, stage in times.stages.items():
        share = stage.busy / stage.of if stage.of else 0.0
        rows.append(
            (
                name_cell(name.capitalize()),
                cell(STAGES.get(name, "")),
                cell(share_bar(share, f"{name}: at work {share:.0%} of the time"), f" {share:.0%}"),
                cell(f"{figure(stage.work)} s", number=True),
            )
        )
    seconds = max(stage.of for stage in times.stages.values())
    words = (
        f"{figure(seconds)} s from the first image read to the last mask written"
        + (f", in {times.processes} processes together" if times.processes > 1 else "")
        + ". The busiest stage limits the speed. Work is summed over threads and includes waiting for the "
        "device or a core."
    )
    return join(soft(words), table(("Stage", "What it does", "At work", "Work"), rows))


def _unit(survey: RunStatistics) -> str:
    return "µm²" if survey.micrometres else "pixels"
