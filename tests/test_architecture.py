"""Holds the house's rules: imports point down the layers; few places print, read the environment or need Keras."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nucseg_batch"
LAYERS = {
    "machine": 0,
    "errors": 0,
    "columns": 0,
    "compartments": 0,
    "options": 0,
    "settings": 1,
    "plan": 2,
    "model_record": 2,
    "arrays": 3,
    "files": 3,
    "network": 3,
    "pipeline": 4,
    "training": 4,
    "executors": 5,
    "results": 5,
    "api": 6,
    "cli": 6,
}
FAMILIES = ("arrays", "files", "network")
DOWNWARD_BETWEEN_FAMILIES = {("files", "arrays"), ("network", "arrays")}
"""Tables name the columns that measuring returns, and the device runs array functions; the reverse would be upward."""
FILES_LEVELS = {
    "annotations": 5,
    "find": 4,
    "image_array": 4,
    "flat_field_file": 3,
    "opened": 3,
    "run": 3,
    "array_source": 2,
    "bioio_source": 2,
    "images": 2,
    "masks": 2,
    "run_layout": 2,
    "channel_source": 1,
    "csv_rows": 1,
    "flat_fields": 1,
    "picture": 1,
    "raster": 1,
    "tiff": 1,
    "zarr": 1,
    **dict.fromkeys(
        ("atomic_write", "dask_windows", "kinds", "missing", "names", "palettes", "pixel_size", "png_pixels", "retry"),
        0,
    ),
    **dict.fromkeys(("png", "sample", "source", "toml"), 0),
}
"""Order of the folders and files within `files`; each imports only from lower levels, so that none imports itself."""
SOURCES = sorted(PACKAGE.rglob("*.py"))
IN_FILES = [path for path in SOURCES if path.is_relative_to(PACKAGE / "files")]


def part_of(path: Path, top: Path = PACKAGE) -> str:
    relative = path.relative_to(top)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_layers_below_or_its_own_part(path: Path) -> None:
    """A change in one layer then cannot reach the layers below it."""
    here = part_of(path)
    if here not in LAYERS:
        return
    for module in imports(path):
        pieces = module.split(".")
        if pieces[0] != "nucseg_batch" or len(pieces) < 2 or pieces[1] not in LAYERS or pieces[1] == here:
            continue
        there = pieces[1]
        allowed = LAYERS[there] < LAYERS[here] or (here, there) in DOWNWARD_BETWEEN_FAMILIES
        assert allowed, f"{path.name} ({here}) imports {module}"


def test_every_part_of_the_package_has_a_layer() -> None:
    """A new folder must be given its place before it can be used."""
    assert {part_of(path) for path in SOURCES} - {"__init__", "__main__"} == set(LAYERS)


@pytest.mark.parametrize("path", IN_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_within_files_imports_point_down(path: Path) -> None:
    """It is the largest part; without an order its folders once imported each other in a circle."""
    here = part_of(path, PACKAGE / "files")
    for module in imports(path):
        pieces = module.split(".")
        if pieces[:2] == ["nucseg_batch", "files"] and len(pieces) > 2 and pieces[2] != here:
            assert FILES_LEVELS[pieces[2]] < FILES_LEVELS[here], f"{path.name} ({here}) imports {module}"


def test_every_folder_and_file_within_files_has_a_level() -> None:
    """A new one must be given its place before it can be used."""
    assert {part_of(path, PACKAGE / "files") for path in IN_FILES} - {"__init__"} == set(FILES_LEVELS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_prints_and_only_it_and_executors_read_the_environment(path: Path) -> None:
    """A library that prints or obeys hidden variables cannot be used in other programs."""
    here = part_of(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert here == "cli" or "print" not in names
    assert here in ("cli", "executors", "machine") or not attributes & {"environ", "getenv"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_one_file_knows_backends(path: Path) -> None:
    """Device code is written once, for TensorFlow, JAX and torch alike."""
    backends = {"tensorflow", "jax", "torch"}
    found = {module.split(".")[0] for module in imports(path)} & backends
    assert not found or path.relative_to(PACKAGE).as_posix() == "network/backend.py"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short_enough_to_have_one_duty(path: Path) -> None:
    """400 lines is where a file has always had two."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_help_and_planning_do_not_import_keras(tmp_path: Path) -> None:
    """They must answer at once, also on a login node without TensorFlow."""
    program = (
        "import sys\n"
        "from nucseg_batch.cli import main, printed, progress\n"
        "from nucseg_batch.executors import local\n"
        "from nucseg_batch.files.find import channel_files, discover, header_scan\n"
        "from nucseg_batch.files.run import finish\n"
        "from nucseg_batch.executors import existing, inspection\n"
        "loaded = {'keras', 'tensorflow', 'jax', 'torch', 'jinja2', 'numba'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
