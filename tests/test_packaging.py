"""What installers, type checkers and CI are told about the package agrees with itself."""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pages import ROOT
from tiers import LONG

import nucseg_batch

TABLES: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = TABLES["project"]
BUILD: list[str] = TABLES["build-system"]["requires"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def requirements(lines: list[str]) -> list[Requirement]:
    return [Requirement(line) for line in lines]


def minimum(requirement: Requirement) -> Version:
    (lowest,) = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    return lowest


def workflow(name: str) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return loaded


def declared_pythons() -> set[str]:
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in PROJECT["classifiers"])
    return {match[1] for match in found if match}


def test_the_lowest_leg_installs_exactly_the_lowest_declared_versions() -> None:
    """A minimum that no run has installed is a guess."""
    text = (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8")
    lines = text.partition("\n# Not declared by us")[0].splitlines()
    pinned = {}
    for requirement in requirements([line for line in lines if not line.startswith("#")]):
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert canonicalize_name(requirement.name) not in pinned
        pinned[canonicalize_name(requirement.name)] = Version(pin.version)
    declared = requirements(PROJECT["dependencies"] + EXTRAS["test"])
    assert pinned == {canonicalize_name(one.name): minimum(one) for one in declared}


def test_a_package_has_the_same_minimum_wherever_it_is_declared() -> None:
    """Otherwise the tests run with another version than the extra allows."""
    minimums: dict[str, set[Version]] = {}
    extras = [line for lines in EXTRAS.values() for line in lines]
    for one in requirements([*BUILD, *PROJECT["dependencies"], *extras]):
        minimums.setdefault(canonicalize_name(one.name), set()).add(minimum(one))
    assert not {name: found for name, found in minimums.items() if len(found) > 1}


def test_no_dependency_has_an_upper_limit_that_nothing_explains() -> None:
    """A cap hides a break from the tests, and keeps users from installing other programs beside this one."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for line in text.splitlines():
        if re.match(r'\s*"[\w.\[\],-]+>=[^"]*(<|==|!=|~=)', line):
            assert re.search(r"#.*https://\S+/(issues|pull)/\d+", line), f"no upstream issue explains {line}"


def test_tested_pythons_are_those_that_are_declared() -> None:
    """PyPI shows the classifiers as a promise."""
    jobs = workflow("tests.yml")["jobs"]
    tested = jobs["newest"]["strategy"]["matrix"]["python"]
    assert len(tested) == len(set(tested))
    assert set(tested) == declared_pythons()


def test_the_lowest_versions_run_on_the_lowest_python() -> None:
    """Only there do all of them have wheels."""
    oldest = min(declared_pythons(), key=Version)
    assert PROJECT["requires-python"] == f">={oldest}"
    steps = workflow("tests.yml")["jobs"]["lowest"]["steps"]
    assert [step["with"]["python-version"] for step in steps if "python-version" in step.get("with", {})] == [oldest]
    assert any("-c tests/lowest.txt" in step.get("run", "") for step in steps)
    assert f"\noldest={oldest}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_fast_tier_is_the_one_that_contributing_names() -> None:
    """Three places select it."""
    markers = re.search(r"pytest .*-m '([^']+)'", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert markers
    assert f"\nfast='{markers[1]}'\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    steps = workflow("tests.yml")["jobs"]["lowest"]["steps"]
    assert any(f"-m '{markers[1]}'" in step.get("run", "") for step in steps)


@pytest.mark.parametrize("place", LONG)
def test_every_place_of_the_long_tests_exists(place: str) -> None:
    """A file that was renamed would slow the fast tier down unseen."""
    assert (ROOT / "tests" / place).exists()


RIGHTS = {"publish": {"id-token": "write"}, "deploy": {"pages": "write", "id-token": "write"}}
"""Of the jobs that publish the package and the documentation."""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_commits_and_jobs_to_few_rights(path: Path) -> None:
    """A tag of somebody else's repository can be moved to other code."""
    loaded = workflow(path.name)
    assert loaded["permissions"] == {"contents": "read"}
    for name, job in loaded["jobs"].items():
        assert "timeout-minutes" in job, name
        assert job.get("permissions") == RIGHTS.get(name), name
        for step in job["steps"]:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step.get("uses", f"a/b@{'0' * 40}")), step


def test_only_a_tag_publishes_and_only_what_was_checked() -> None:
    """A publication cannot be taken back."""
    loaded = workflow("release.yml")
    assert loaded[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key "on" as true
    publish = loaded["jobs"]["publish"]
    assert publish["needs"] == "build"
    assert publish["environment"]["name"] == "pypi"
    assert not any("checkout" in step.get("uses", "") for step in publish["steps"])
    assert not any("password" in step.get("with", {}) for step in publish["steps"])
    assert any("twine check --strict" in step.get("run", "") for step in loaded["jobs"]["build"]["steps"])


def test_the_citation_names_the_version_of_the_package() -> None:
    """Otherwise people cite another one than they used."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == nucseg_batch.__version__
    assert citation["title"] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]


def test_the_wheel_has_its_types_its_model_its_templates_and_no_tests(tmp_path: Path) -> None:
    """Without `py.typed` type checkers see nothing of the package; without the model it does nothing."""
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(built).namelist())
    assert {"nucseg_batch/py.typed", "nucseg_batch/models/default.keras"} <= names
    described = f"nucseg_batch-{nucseg_batch.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"nucseg_batch", described}
    endings = (".py", ".html", ".css", ".js")
    source = {path.relative_to(ROOT).as_posix() for path in (ROOT / "nucseg_batch").rglob("*")}
    assert {name for name in source if name.endswith(endings)} == {name for name in names if name.endswith(endings)}
    assert "nucseg_batch/results/report/templates/page.html" in names
    (metadata,) = [name for name in names if name.endswith("METADATA")]
    assert "Classifier: Typing :: Typed" in zipfile.ZipFile(built).read(metadata).decode().splitlines()
