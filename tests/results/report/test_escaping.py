from __future__ import annotations

import base64
import hashlib
import itertools
import os
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from report_pages import Page, made_run, report_of, rewrite
from small_runs import picture

from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.report.page import environment

HOSTILE = (
    "<img src=x onerror=alert(1)>.tif",
    "\"><script>alert('2')<.tif",
    "a&b;.tif",
    "new\nline.tif",
    "right\u202egnp.tif",
    "x' onmouseover='alert(3).tif",
    os.fsdecode(b"latin-\xe9.tif"),
)


def test_names_of_files_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is sent around must not run what a file name says."""
    run = made_run(tmp_path, monkeypatch, dict.fromkeys(HOSTILE, picture(4)))
    bad = "<svg onload=alert(4)> \u202e"
    (run.folder / "later.tif").write_text("none")
    rewrite(RunLayout(run.store).tables["images"], lambda _, row: None)
    with open(RunLayout(run.store).tables["failures"], "a", encoding="utf-8") as file:
        file.write(f"<b>later</b>.tif,read,ImageError,{bad}\n")
    content = report_of(run.store)
    page = Page(content)
    assert {tag for tag, _ in page.elements} & {"b", "i"} <= {"b", "i"}
    assert len(page.of("script")) == 1
    assert not [tag for tag, attributes in page.elements if any(name.startswith("on") for name in attributes)]
    for name in ("<img src=x onerror=alert(1)>.tif", "a&b;.tif", "new\\x0aline.tif", "right\\x202egnp.tif"):
        assert name in page.text
    assert "latin-%E9.tif" in page.text
    assert "<svg onload=alert(4)> \\x202e" in page.text
    assert "\u202e" not in content
    assert "\udce9" not in content


def test_the_page_asks_for_nothing_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is opened offline, and nobody should learn that it was."""
    page = Page(report_of(made_run(tmp_path, monkeypatch, 9).store))
    for tag, attributes in page.elements:
        for name in ("src", "href", "data", "action", "poster", "srcset", "xlink:href"):
            value = attributes.get(name, "data:")
            assert value.startswith("data:image/") or value.startswith("#") or name not in attributes, (tag, value)
        assert "style" not in attributes, "a style that the policy blocks"
    (policy,) = (a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_what_links_point_at_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to nowhere makes a page look broken; an anchor that is there twice is ambiguous."""
    page = Page(report_of(made_run(tmp_path, monkeypatch, 40).store))
    anchors = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    assert {attributes["href"][1:] for attributes in page.of("a")} <= set(anchors)


def test_pictures_and_drawings_can_be_read_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture has a text, every drawing a title, and headings come in order."""
    content = report_of(made_run(tmp_path, monkeypatch, 9).store)
    page = Page(content)
    assert all("alt" in attributes for attributes in page.of("img"))
    assert all(attributes["aria-label"] for attributes in page.of("button"))
    drawings = [part for part in content.split("<svg")[1:] if 'class="scale"' not in part.partition(">")[0]]
    assert drawings
    assert all(part.partition(">")[2].startswith("<title>") for part in drawings)
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_page_lets_its_own_style_and_script_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy has their hashes, which must be those of what is on the page."""
    content = report_of(made_run(tmp_path, monkeypatch, 3).store)
    (policy,) = (a["content"] for a in Page(content).of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    for name in ("style", "script"):
        own = content.partition(f"<{name}>")[2].partition(f"</{name}>")[0]
        assert len(own) > 100
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_all_but_markup_is_escaped_and_seen() -> None:
    """Only so no template can forget it."""
    template = environment().from_string("<a title='{{ given }}'>{{ given }}</a>")
    assert template.render(given="<&\"'>") == "<a title='&lt;&amp;&#34;&#39;&gt;'>&lt;&amp;&#34;&#39;&gt;</a>"
    assert template.render(given="\u202e\udce9%41") == "<a title='\\x202e%E9%2541'>\\x202e%E9%2541</a>"
    assert template.render(given=Markup("<b>")) == "<a title='<b>'><b></a>"
    assert template.render(given=None) == "<a title=''></a>"
    with pytest.raises(UndefinedError):
        template.render()
