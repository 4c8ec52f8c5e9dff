"""The documentation as a site: built from the pages, offline, and every warning is an error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nucseg_batch

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://example.org/nucseg-batch"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Broken links, anchors and pages that no list names are warnings of Sphinx, and end the build."""
    out = tmp_path_factory.mktemp("site")
    program = [sys.executable, str(ROOT / "docs" / "build_site.py"), str(out), REPOSITORY]
    built = subprocess.run(program, capture_output=True, text=True, timeout=240)
    assert built.returncode == 0, built.stderr
    return out


def test_every_page_of_the_repository_is_on_the_site(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"}
    assert pages | {"index", "model", "contributing", "changes", "api"} <= {path.stem for path in site.glob("*.html")}


def test_the_reference_shows_the_whole_public_interface(site: Path) -> None:
    shown = set(re.findall(r'id="nucseg_batch\.(\w+)"', (site / "api.html").read_text()))
    assert set(nucseg_batch.__all__) - {"__version__"} <= shown


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        fetched = re.findall(r'<(?:script|img|link)\b[^>]*(?:src|href)="(https?:[^"]*)"', page.read_text())
        assert not fetched, page.name


def test_links_out_of_the_documentation_lead_into_the_repository(site: Path) -> None:
    """As those to examples, which are no pages."""
    linked = re.findall(rf'href="{REPOSITORY}/tree/HEAD/([^"#]+)', _all(site))
    assert "examples" in linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def _all(site: Path) -> str:
    return "\n".join(page.read_text() for page in site.glob("*.html"))
