"""Holds the house to what other packages document: what they do not, they change without a word in their notes."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import tifffile

PACKAGE = Path(__file__).parents[1] / "nucseg_batch"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PUBLIC_UNDERSCORES = {"_asdict", "_fields", "_make", "_replace"}
"""Methods of named tuples, whose underscore only keeps them apart from field names."""
_RANGES = "a store must answer them: the documented `Store.get` takes them, though its module does not list them"
EXCEPTIONS = {
    f"zarr.abc.store.{name}": _RANGES
    for name in ("ByteRequest", "OffsetByteRequest", "RangeByteRequest", "SuffixByteRequest")
}
"""What must be used although its module does not list it, with the reason."""
INTERNAL = re.compile(r"(^|\.)(_\w*|core|src|internals?)(\.|$)")
"""Modules that are a package's own business, as their names say."""
DOCUMENTED_MODULES = {"bioimageio.core", "fsspec.core", "numba.core.event"}
"""Modules with such a name that their packages' manuals list all the same."""
PROPERTIES_OF_TIFFS = ("TiffFile", "TiffPages", "TiffPage", "TiffFrame", "TiffPageSeries", "TiffTags", "TiffTag")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def defined(path: Path) -> frozenset[str]:
    """Names that a file gives to functions, classes, attributes and fields of its own."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return frozenset(names)


@cache
def defined_somewhere() -> frozenset[str]:
    """Names that the package gives to anything."""
    return frozenset().union(*(defined(path) for path in SOURCES))


def underscored(path: Path) -> Iterator[str]:
    """Attributes that begin with one underscore and that are not the package's own.

    A private attribute of `self` may come from a class of ours in another file, any other from the same file only.
    """
    for node in ast.walk(tree(path)):
        name: Any = None
        owner = ""
        if isinstance(node, ast.Attribute):
            name, owner = node.attr, getattr(node.value, "id", "")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
        if not isinstance(name, str) or not re.match(r"_[^_]", name) or name in PUBLIC_UNDERSCORES:
            continue
        ours = defined_somewhere() if owner in ("self", "cls") else defined(path)
        if name not in ours and owner not in sys.stdlib_module_names:
            yield f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}"


def test_no_file_reaches_for_private_attributes_of_others() -> None:
    """`TiffPageSeries._pages` and the like work until the day they do not."""
    assert [found for path in SOURCES for found in underscored(path)] == []


def foreign(module: str) -> bool:
    return module.split(".")[0] not in {"nucseg_batch", *sys.stdlib_module_names}


def imported(path: Path) -> Iterator[tuple[str, str | None, str]]:
    """Module, name in it and name in the file of all that a file imports from other packages."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module and foreign(node.module):
            yield from ((node.module, alias.name, alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if foreign(alias.name):
                    bound = alias.name if alias.asname else alias.name.split(".")[0]
                    yield bound, None, alias.asname or bound


def loaded(module: str) -> ModuleType | None:
    """A module of a package that is installed; backends that are not in use are left out."""
    if module.split(".")[0] in {"tensorflow", "jax", "torch"}:
        return None
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def is_public(owner: Any, name: str) -> bool:
    """Whether a module offers a name: lists it where it lists any, or has it under a name without an underscore."""
    if name.startswith("_") and not name.startswith("__"):
        return False
    if not isinstance(owner, ModuleType):
        return hasattr(owner, name)
    listed = getattr(owner, "__all__", None)
    if name in listed if listed is not None else hasattr(owner, name):
        return True
    try:
        importlib.import_module(f"{owner.__name__}.{name}")  # modules below it need not be listed
    except ImportError:
        return name == "__version__"
    return True


def undocumented(path: Path) -> Iterator[str]:
    """What a file takes from other packages that these do not offer."""
    aliases: dict[str, ModuleType] = {}
    for module, name, bound in imported(path):
        if INTERNAL.search(module) and module not in DOCUMENTED_MODULES:
            yield f"{path.relative_to(PACKAGE)}: {module} is internal"
        owner = loaded(module)
        if owner is None:
            continue
        if name is None:
            aliases[bound] = owner
        elif not is_public(owner, name) and f"{module}.{name}" not in EXCEPTIONS:
            yield f"{path.relative_to(PACKAGE)}: {module} does not offer {name}"
        elif isinstance(value := getattr(owner, name, None), ModuleType):
            aliases[bound] = value
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = aliases.get(node.value.id)
            if owner is not None and not is_public(owner, node.attr):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}: {owner.__name__} does not offer {node.attr}"


def test_files_use_only_modules_and_names_that_other_packages_offer() -> None:
    """Whatever is not in a package's `__all__`, or lies in its `core` or `src`, is not ours to use."""
    assert [found for path in SOURCES for found in undocumented(path)] == []


@cache
def documented_of_tiffs() -> frozenset[str]:
    """Attributes of tifffile's classes that have a docstring, or a string below their annotation."""
    names: set[str] = set()
    classes = {getattr(tifffile, name) for name in PROPERTIES_OF_TIFFS} | {tifffile.FileHandle}
    source = ast.parse(Path(sys.modules[tifffile.TiffFile.__module__].__file__ or "").read_text(encoding="utf-8"))
    for body in (node.body for node in ast.walk(source) if isinstance(node, ast.ClassDef)):
        owner = next((one for one in classes if any(getattr(item, "name", "") in vars(one) for item in body)), None)
        if owner is None:
            continue
        for item, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(item, ast.FunctionDef) and ast.get_docstring(item):
                names.add(item.name)
            elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                names |= {item.target.id} if said else set()
    return frozenset(name for name in names if not name.startswith("_"))


def test_what_is_asked_of_tifffile_is_documented_there() -> None:
    """Its objects have no types here, so a name that a new version dropped is found by no type checker.

    Asked are objects that go by these names; what our own records with such a name have is ours.
    """
    objects = {"series", "image", "largest", "level", "key", "keyframe", "page", "full", "first"}
    asked: set[str] = set()
    for path in sorted((PACKAGE / "files" / "tiff").glob("*.py")):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute):
                owner = node.value
                named = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                asked |= {node.attr} if named in objects else set()
    assert asked - defined_somewhere() - documented_of_tiffs() == set(), f"in tifffile {tifffile.__version__}"
    assert {"dataoffset", "is_truncated", "databytecounts"} <= asked & documented_of_tiffs()


def test_every_exception_is_still_needed() -> None:
    """One that a package has come to document, or that nobody uses any more, must go."""
    used = {f"{module}.{name}" for path in SOURCES for module, name, _ in imported(path)}
    assert EXCEPTIONS.keys() <= used
    assert not [full for full in EXCEPTIONS if is_public(loaded(full.rpartition(".")[0]), full.rpartition(".")[2])]
