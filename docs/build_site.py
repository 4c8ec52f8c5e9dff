"""Builds the documentation as a site: `pip install -e '.[docs]'`, then `python docs/build_site.py OUT [URL]`.

The pages are written to be read in the repository, so their links are paths in it. They are copied to a temporary
folder together with pages from elsewhere in the repository, with links to the site or to the repository on the web (at
URL), and built there by Sphinx. Every warning is an error. The site works without network access.

Sphinx and not Material for MkDocs, whose maintenance ends in May 2027.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = {
    "index.md": "README.md",
    "model.md": "nucseg_batch/models/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
}
"""Pages of the site that lie outside `docs`."""
SECTIONS = {
    "Start here": ("gallery", "install", "recipes"),
    "Segment": ("segment", "output", "confidence", "report", "export"),
    "Your own model": ("train", "annotation", "evaluate", "model-export", "model"),
    "Clusters and large runs": ("many", "hpc", "workflows", "scale", "speed"),
    "Reference": ("command-line", "options", "python", "api", "glossary"),
    "About": ("compare", "architecture", "contributing", "changes"),
}
"""The pages, in the order in which the site lists them."""
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
"""A link or picture: its text, relative target and anchor."""
API = """# Python reference

The public interface, from its docstrings. [From Python](python.md) has examples.

```{eval-rst}
.. currentmodule:: nucseg_batch

.. autofunction:: segment
.. autoclass:: SegmentResult
   :members:
.. autoclass:: SegmentSettings
   :members:
.. autofunction:: segment_array
.. autofunction:: open_images
.. autoclass:: Images
   :members:
.. autoclass:: Predictor
   :members:
.. autofunction:: prepare_image
.. autoclass:: PreparedImage
   :members:
.. autofunction:: open_masks
.. autoclass:: Masks
   :members:
.. autofunction:: read_nuclei
.. autofunction:: read_images
.. autofunction:: read_volumes
.. autofunction:: read_tracks
.. autofunction:: read_wells
.. autofunction:: evaluate
.. autofunction:: evaluate_tracks
```
"""
CONFIG = """
project = "nucseg-batch"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "nucseg-batch"
default_role = "code"  # docstrings are written as Markdown is
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
myst_heading_anchors = 4
"""


def pages() -> dict[str, Path]:
    """The page of each name, in the repository; `docs/README.md`, a list of pages, is for the repository alone."""
    own = {path.name: path for path in (ROOT / "docs").glob("*.md") if path.name != "README.md"}
    return own | {name: ROOT / source for name, source in ELSEWHERE.items()}


def moved(text: str, source: str, repository: str | None) -> str:
    """A page of the repository, at the path `source`, as a page of the site."""
    text = text.replace("```mermaid", "```text")
    return LINK.sub(lambda link: moved_link(link, source, repository), text)


def moved_link(link: re.Match[str], source: str, repository: str | None) -> str:
    """A link of a page: to a page or file of the site, or to the repository on the web; mere text without its URL."""
    text, target, anchor = link[1], link[2], link[3] or ""
    path = os.path.normpath(os.path.join(os.path.dirname(source), target))
    shown = {file: page for page, file in ELSEWHERE.items()} | {"docs/README.md": "index.md"}
    if path in shown or path.startswith("docs/"):
        return f"[{text}]({shown.get(path, path.removeprefix('docs/'))}{anchor})"
    return text if repository is None else f"[{text}]({repository}/tree/HEAD/{path}{anchor})"


def contents() -> str:
    """The list of pages at the side of each page, as the end of the first page."""
    lists = [
        "\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *names, "```", ""])
        for title, names in SECTIONS.items()
    ]
    return "\n".join(["", *lists])


def build(out: Path, repository: str | None = None) -> None:
    """Writes the site to a folder; CalledProcessError where a page has a warning. repository: its URL, for links."""
    with tempfile.TemporaryDirectory() as folder:
        for name, path in pages().items():
            text = moved(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix(), repository)
            Path(folder, name).write_text(text + (contents() if name == "index.md" else ""), encoding="utf-8")
        for picture in (ROOT / "docs").rglob("*.png"):
            to = Path(folder, picture.relative_to(ROOT / "docs"))
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, to)
        Path(folder, "api.md").write_text(API, encoding="utf-8")
        Path(folder, "conf.py").write_text(CONFIG, encoding="utf-8")
        sphinx = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
        subprocess.run([*sphinx, folder, str(out)], check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]), *sys.argv[2:3])
