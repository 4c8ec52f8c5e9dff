from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from report_pages import made_run, report_of
from small_runs import picture

from nucseg_batch.files.atomic_write import write_whole

OUTSIDE = "outside.invalid"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
)  # fmt: skip
LOOKING = """<script>
window.addEventListener("load", () => {
  const shown = [...document.images].map((image) => image.naturalWidth);
  document.querySelector(".view").click();
  const open = document.querySelector("dialog").open;
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const all = performance.getEntriesByType("resource").map((one) => one.name);
  const asked = all.filter((name) => !name.startsWith("data:"));
  document.body.dataset.seen = JSON.stringify({shown, open, wide, asked});
});
</script>"""
"""What a test looks at. The page's policy would not let it run, so the copy that it is put into has none."""


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page."""

    dom: str
    errors: list[str]
    asked: str


def browse(page: Path, folder: Path, width: int = 1200) -> Seen:
    """Opens a page in a real browser."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("needs the program chromium, of Debian's package of that name")
    log = folder / "net.json"
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", f"--window-size={width},900",
         "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return Seen(done.stdout, re.findall(r".*CONSOLE.*", done.stderr), log.read_text(encoding="utf-8"))


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A report with pictures, plates, failures, and names that would ask for something outside."""
    names = [f"{row}{column:02d}_<img src='http:" for row in "AB" for column in range(1, 7)]
    images = {f"{name}/{OUTSIDE}/x.png' onerror=document.title='bad'>.tif": picture(3) for name in names}
    run = made_run(tmp_path, monkeypatch, images)
    return report_of(run.store)


def test_a_browser_shows_the_page_without_an_error_or_a_request(content: str, tmp_path: Path) -> None:
    """Its script has run to the end under its own policy, and it has asked for nothing."""
    page = tmp_path / "page.html"
    write_whole(page, content)
    seen = browse(page, tmp_path)
    assert 'data-script="ready"' in seen.dom
    assert seen.errors == []
    assert OUTSIDE not in seen.asked
    assert "<title>Nuclei of out.zarr</title>" in seen.dom


def test_such_errors_and_requests_would_be_noticed(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    page = tmp_path / "bad.html"
    page.write_text(f"<img src='http://{OUTSIDE}/x.png'><script>nothing.there()</script>")
    seen = browse(page, tmp_path)
    assert OUTSIDE in seen.asked
    assert any("ReferenceError" in line for line in seen.errors)


@pytest.mark.parametrize("width", [1200, 500])
def test_pictures_are_shown_and_enlarged(content: str, tmp_path: Path, width: int) -> None:
    """All pictures decode, a click opens one, and nothing is wider than the window, on a phone either."""
    page = tmp_path / "page.html"
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", content)
    assert without != content
    write_whole(page, without.replace("</body>", LOOKING + "</body>"))
    match = re.search(r'data-seen="([^"]*)"', browse(page, tmp_path, width).dom)
    assert match is not None
    seen = json.loads(match[1].replace("&quot;", '"'))
    assert len(seen["shown"]) == content.count("<img ") >= 20
    assert min(seen["shown"]) > 0
    assert seen["open"]
    assert seen["asked"] == []
    assert seen["wide"] <= 0
