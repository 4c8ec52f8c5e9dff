"""Files for workflow engines: run by their engine where it is installed, checked against the commands everywhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import imagecodecs
import jinja2
import pytest
import yaml
from packaging.requirements import Requirement
from pictures import disks, fluorescence

import nucseg_batch
from nucseg_batch.cli.main import parser
from nucseg_batch.columns import OPTIONAL_GROUPS

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
MODULE = EXAMPLES / "nextflow" / "modules" / "nucsegbatch" / "segment"
GALAXY = EXAMPLES / "galaxy" / "nucseg_batch.xml"
CWL = EXAMPLES / "cwl" / "nucseg_batch.cwl"
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
TABLES = ("images", "nuclei", "failures")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*command: object, folder: Path, code: int = 0) -> str:
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=280, env=ENVIRONMENT, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def program(name: str) -> str:
    """A program of an engine; skips without it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (pip install {name})")
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, one of which is damaged, and in `one` the tables of a run without an engine."""
    folder = tmp_path_factory.mktemp("made")
    picture = imagecodecs.png_encode(fluorescence(disks((67, 83), [(20, 21), (45, 60)], 11), seed=1))
    (folder / "in").mkdir()
    (folder / "one").mkdir()
    for name, content in {"small8": picture, "other": picture, "damaged": picture[:200]}.items():
        (folder / "in" / f"{name}.png").write_bytes(content)
    run("nucseg-batch", "segment", "in", "one/out.zarr", "--diameter", "26", folder=folder, code=3)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """The same in a folder of the test's own."""
    return shutil.copytree(made, tmp_path / "place")


def same_tables(place: Path, stem: Path) -> bool:
    return all(
        (place / "one" / f"out.{name}.csv").read_bytes() == stem.with_name(f"{stem.name}.{name}.csv").read_bytes()
        for name in TABLES
    )


def test_snakemake_runs_shares_and_does_nothing_twice(place: Path) -> None:
    """The tables are those of one process, with the failed image among the failures and not an end of the workflow."""
    options = ("in=in", "out=out.zarr", "shares=2", "plan_options=--diameter 26")
    command = (program("snakemake"), "report", "-s", EXAMPLES / "Snakefile", "--cores", 2, "--config", *options)
    assert "Warning" not in run(*command, folder=place)
    assert same_tables(place, place / "out")
    assert (place / "out.report.html").is_file()
    assert "Nothing to be done" in run(*command, folder=place)
    (place / "out.nuclei.csv").unlink()
    run(*("tables" if word == "report" else word for word in command), folder=place)
    assert same_tables(place, place / "out")


def test_cwl_runs_the_tool(place: Path) -> None:
    """Valid, and with the outputs that it declares."""
    cwltool = program("cwltool")
    assert "is valid CWL" in run(cwltool, "--validate", CWL, folder=place)
    kept = ("--preserve-environment", "PYTHONPATH", "--preserve-environment", "PATH")
    run(cwltool, "--no-container", *kept, "--outdir", "cwl", CWL, "--images", "in", "--diameter", 26, folder=place)
    assert same_tables(place, place / "cwl" / "out")
    assert (place / "cwl" / "out.zarr" / "zarr.json").is_file()


def galaxy_values(images: list[tuple[str, Path]]) -> dict[str, Any]:
    """What Galaxy fills into the command: data sets are paths, with the name that the user knows."""

    class Data(str):
        element_identifier: str
        ext = "png"

    data = [Data(path) for _, path in images]
    for one, (name, _) in zip(data, images, strict=True):
        one.element_identifier = name
    return {"images": data, "channel": "auto", "diameter": 26.0, "threshold": "", "measure": None, "model": None}


def test_the_command_of_galaxy_runs_on_links(place: Path) -> None:
    """Data sets of Galaxy are files elsewhere, without a name of their own; all outputs of the tool are made."""
    template = pytest.importorskip("Cheetah.Template", reason="needs Cheetah (pip install CT3)")
    tool = ElementTree.parse(GALAXY).getroot()
    (place / "job").mkdir()
    images = []
    for number, path in enumerate(sorted((place / "in").iterdir())):
        images.append((path.stem, path.rename(place / f"dataset_{number}.dat")))
    script = str(template.Template(tool.findtext("command"), searchList=[galaxy_values(images)]))
    run("bash", "-c", " ".join(script.split("\n")), folder=place / "job", code=3)
    assert same_tables(place, place / "job" / "out")
    for output in tool.iterfind("outputs/data"):
        assert (place / "job" / output.attrib["from_work_dir"]).is_file()
    found = tool.find("outputs/collection/discover_datasets")
    assert found is not None
    labels = [path.name for path in (place / "job" / found.attrib["directory"]).iterdir()]
    assert sorted(re.fullmatch(found.attrib["pattern"], name)["designation"] for name in labels) == ["other", "small8"]


def test_the_tool_of_galaxy_is_valid() -> None:
    """By the schema that Galaxy and planemo check tools with."""
    etree = pytest.importorskip("lxml.etree", reason="needs lxml")
    if importlib.util.find_spec("galaxy") is None or (at := importlib.util.find_spec("galaxy.tool_util")) is None:
        pytest.skip("needs Galaxy's schema (pip install galaxy-tool-util)")
    folder = next(iter(at.submodule_search_locations or []))
    schema = etree.XMLSchema(etree.parse(Path(folder) / "xsd" / "galaxy.xsd"))
    schema.assertValid(etree.parse(GALAXY))


def test_the_tools_have_options_of_segment_and_the_version_of_the_package() -> None:
    """An option that was renamed would fail in front of the users of a server."""
    known = {name for parameter in parser().commands["segment"].params for name in parameter.opts}
    tool = ElementTree.parse(GALAXY).getroot()
    assert {one.attrib["argument"] for one in tool.iterfind("inputs/param") if "argument" in one.attrib} <= known
    assert tool.findtext("macros/token") == nucseg_batch.__version__
    groups = [one.attrib["value"] for one in tool.iterfind("inputs/param[@argument='--measure']/option")]
    assert groups == list(OPTIONAL_GROUPS)
    cwl = yaml.safe_load(CWL.read_text())
    prefixes = {
        one["inputBinding"].get("prefix", "--channel") for one in cwl["inputs"].values() if "inputBinding" in one
    }
    assert prefixes <= known
    for path in (EXAMPLES / "Dockerfile", MODULE / "main.nf", MODULE / "environment.yml"):
        versions = re.findall(r"nucseg-batch(?::|==)(\d[\d.]*\d)", path.read_text())
        assert set(versions) == {nucseg_batch.__version__}, path.name


def process(path: Path, name: str) -> str:
    """The text of a process of Nextflow."""
    return re.split(r"\n}\n", path.read_text().partition(f"process {name} {{")[2])[0]


def script(path: Path, name: str, values: dict[str, object]) -> str:
    """The shell script of a process, with values filled in as Nextflow does."""
    (text,) = re.findall(r'script:.*?"""\n(.*?)"""', process(path, name), re.DOTALL)[:1]
    filled = re.sub(r"(?<!\\)\$\{([\w.]+)\}", lambda found: str(values[found[1]]), text)
    filled = "\n".join(line.removeprefix("    ") for line in filled.splitlines())
    return filled.replace("\\$", "$").replace("\\\\", "\\")


@pytest.mark.parametrize("staged", ["files", "folder"])
def test_the_nextflow_module_makes_what_it_declares(place: Path, staged: str) -> None:
    """Images are staged as links, as files or as one folder."""
    (place / "work" / "images").mkdir(parents=True)
    for path in (place / "in").iterdir() if staged == "files" else [place / "in"]:
        (place / "work" / "images" / path.name).symlink_to(path)
    values = {"prefix": "p1", "given": "", "args": "--diameter 26", "task.cpus": 2, "task.process": "A:B"}
    run("bash", "-ue", "-c", script(MODULE / "main.nf", "NUCSEGBATCH_SEGMENT", values), folder=place / "work")
    assert same_tables(place, place / "work" / "p1")
    outputs = re.findall(r'path[( ]"([^"]+)"\)?\s*, emit', process(MODULE / "main.nf", "NUCSEGBATCH_SEGMENT"))
    assert len(outputs) == 7
    assert all((place / "work" / name.replace("${prefix}", "p1")).exists() for name in outputs)
    versions = yaml.safe_load((place / "work" / "versions.yml").read_text())
    assert versions == {"A:B": {"nucseg-batch": nucseg_batch.__version__}}


def test_the_nextflow_module_describes_its_inputs_and_outputs() -> None:
    """In the form of nf-core: names, types and descriptions, in the order of main.nf."""
    meta = yaml.safe_load((MODULE / "meta.yml").read_text())
    text = process(MODULE / "main.nf", "NUCSEGBATCH_SEGMENT")
    assert {"name", "description", "keywords", "authors", "output", "tools"} <= set(meta)
    assert meta["name"] == "nucsegbatch_segment"
    assert len(set(meta["keywords"])) >= 3
    assert meta["tools"][0]["nucseg-batch"]["licence"] == [PROJECT["license"]]
    named = re.findall(r"(?:val|path)\(([\w.]+)", text.partition("input:")[2].partition("output:")[0])
    assert [name for channel in meta["input"] for one in channel for name in one] == named
    emitted = re.findall(r'path[( ]"([^"]+)"\)?\s*, emit: (\w+)', text)
    assert [next(iter(one)) for one in meta["output"]] == [emit for _, emit in emitted]
    for one, (pattern, emit) in zip(meta["output"], emitted, strict=True):
        assert pattern in one[emit][-1]
    elements = [one for channel in meta["input"] for one in channel]
    elements += [one for output in meta["output"] for channel in output.values() for one in channel]
    for element in elements:
        ((_, said),) = element.items()
        assert said["type"] in {"map", "file", "directory", "string", "integer", "float", "boolean", "list"}
        assert said["description"]


def test_the_processes_of_the_nextflow_workflow_make_one_run(place: Path) -> None:
    """Plan, two shares in any order, finish; the shares of a workflow write into one OUT."""
    path, out = EXAMPLES / "nextflow" / "main.nf", place / "out.zarr"
    values: dict[str, object] = {"place": place / "in", "out": out, "task.cpus": 1, "params.shares": 2}
    values |= {"params.plan_options": "--diameter 26", "params.segment_options": ""}
    run("bash", "-ue", "-c", script(path, "PLAN", values), folder=place)
    for share in (1, 0):
        run("bash", "-ue", "-c", script(path, "SHARE", values | {"share": share}), folder=place)
    run("bash", "-ue", "-c", script(path, "FINISH", values), folder=place)
    assert same_tables(place, place / "out")
    state = json.loads(run("nucseg-batch", "status", out, "--json", "--quiet", folder=place))
    assert (state["shares"], state["complete"]) == (2, True)


@pytest.mark.parametrize("name", ["Dockerfile", "nucseg-batch.def"])
def test_containers_install_the_wheel_on_a_python_that_is_tested(name: str) -> None:
    """They are built seldom, by people far away."""
    text = (EXAMPLES / name).read_text()
    assert "\n#   pip wheel --no-deps -w dist .\n" in text
    (version,) = re.findall(r"^From:? python:([\d.]+)-slim$", text, re.MULTILINE | re.IGNORECASE)
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]
    extras = {extra for words in re.findall(r"EXTRAS=([a-z,]+)", text) for extra in words.split(",")}
    assert {"export", "gpu"} == extras
    assert extras <= set(PROJECT["optional-dependencies"])
    assert "nucseg_batch-*.whl" in text


def test_the_conda_recipe_requires_what_the_package_requires() -> None:
    """Some packages have other names there; extras are left out."""
    text = (EXAMPLES / "conda" / "meta.yaml").read_text()
    recipe = yaml.safe_load(jinja2.Template(text).render(PYTHON="python"))
    assert str(recipe["package"]["version"]) == nucseg_batch.__version__
    renamed = {"dask": "dask-core", "matplotlib": "matplotlib-base"}
    wanted = {renamed.get(one.name, one.name): str(one.specifier) for one in map(Requirement, PROJECT["dependencies"])}
    python, system, *others = recipe["requirements"]["run"]
    assert python == f"python {PROJECT['requires-python']}"
    assert system == "__linux"
    assert dict(line.split(" ") for line in others) == wanted
    assert recipe["build"]["entry_points"] == [f"nucseg-batch = {PROJECT['scripts']['nucseg-batch']}"]
    assert recipe["about"]["license"] == PROJECT["license"]
