"""What libraries read from files and variables of their own, and limits of the process, through the whole program."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from faults.harness import FIXED, call, digest, needs, run
from faults.test_surroundings import path_only

GIB = 2**30


def home_with(place: Path, **settings: object) -> Path:
    """A home with a keras.json."""
    (place / ".keras").mkdir(parents=True)
    (place / ".keras" / "keras.json").write_text(json.dumps(settings))
    return place


@pytest.mark.parametrize(
    "settings",
    [
        {"floatx": "float16", "image_data_format": "channels_first", "epsilon": 0.25},
        {"backend": "torch", "floatx": "float64"},
    ],
    ids=["layout and precision", "another backend"],
)
def test_keras_json_changes_no_byte(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    """The program builds its own network, and TensorFlow computes unless KERAS_BACKEND says otherwise."""
    home = home_with(tmp_path / "home", **settings)
    environment = path_only(HOME=str(home))
    run("segment", plain[0], tmp_path / "out.zarr", "--model", tiny, *FIXED, environment=environment)
    assert digest(tmp_path / "out.zarr") == digest(plain[1])


@pytest.mark.parametrize("settings", [{"floatx": "bfloat16"}, {"epsilon": "small"}])
def test_a_keras_json_that_keras_refuses_is_named(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    """In one line, before anything is written."""
    environment = path_only(HOME=str(home_with(tmp_path / "home", **settings)))
    done = run("segment", plain[0], tmp_path / "out.zarr", "--model", tiny, *FIXED, environment=environment, code=69)
    assert "keras.json" in done.refusal
    assert not (tmp_path / "out.run").exists()


def test_configuration_of_zarr_changes_no_byte(plain: tuple[Path, Path], tiny: Path, tmp_path: Path) -> None:
    """Chunks of zeros, the order of axes, the format and the layout of metadata are the program's own."""
    variables = {
        "ZARR_ARRAY__WRITE_EMPTY_CHUNKS": "True",
        "ZARR_ARRAY__READ_MISSING_CHUNKS": "False",
        "ZARR_ARRAY__ORDER": "F",
        "ZARR_DEFAULT_ZARR_FORMAT": "2",
        "ZARR_JSON_INDENT": "7",
    }
    environment = path_only(HOME=str(tmp_path), **variables)
    run("segment", plain[0], tmp_path / "out.zarr", "--model", tiny, *FIXED, environment=environment)
    assert digest(tmp_path / "out.zarr") == digest(plain[1])


def test_variables_that_choose_arithmetic_are_recorded_and_kept(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path
) -> None:
    """They are obeyed, and a run does not mix two ways to compute in silence."""
    store = tmp_path / "out.zarr"
    chosen = {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "XLA_FLAGS": "--xla_gpu_cuda_data_dir=/opt/cuda --xla_cpu_use_mkl_dnn=true",
    }
    arguments = ("segment", plain[0], store, "--model", tiny, *FIXED)
    run(*arguments, environment=path_only(HOME=str(tmp_path), **chosen))
    record = json.loads(store.with_suffix(".provenance.json").read_text())
    assert record["computed"]["environment"] == "ONEDNN_MAX_CPU_ISA=SSE41, XLA_FLAGS=--xla_cpu_use_mkl_dnn=true"
    assert "environment" not in json.loads(plain[1].with_suffix(".provenance.json").read_text())["computed"]
    (unit, *_) = sorted((store.with_suffix(".run") / "units").iterdir())
    unit.unlink()
    assert "ONEDNN_MAX_CPU_ISA" in call(*arguments, code=78).refusal


@pytest.mark.parametrize(("option", "limit", "words"), [("as", 2 * GIB, "ulimit -v"), ("data", GIB // 2, "ulimit -d")])
def test_a_limit_on_memory_that_keras_cannot_start_with_is_refused_in_one_line(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path, option: str, limit: int, words: str
) -> None:
    """TensorFlow would abort the process."""
    done = run(
        *("segment", plain[0], tmp_path / "out.zarr", "--model", tiny, *FIXED),
        before=needs("prlimit", f"--{option}={limit}"),
        environment=path_only(HOME=str(tmp_path)),
        code=69,
    )
    assert words in done.refusal
    assert f"{limit / GIB:.2g} GiB" in done.refusal
    assert not (tmp_path / "out.run").exists()


def test_too_few_threads_are_an_error_and_no_abort() -> None:
    """The limit is found by starting threads, whoever sets it; here their stacks find no room."""
    program = (
        "import resource\n"
        "from nucseg_batch.network.limits import check_threads\n"
        "from nucseg_batch.errors import DeviceError\n"
        "import threading\n"
        "check_threads(20)\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 100 * 2**20,) * 2)\n"
        "try:\n"
        "    check_threads(200)\n"
        "except DeviceError as error:\n"
        "    print(error, threading.active_count())\n"
    )
    source = program.replace("from nucseg_batch.network.limits import check_threads\n", LIMITS_ALONE)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert "needs 200" in done.stdout
    assert done.stdout.split()[-1] == "1", "no thread is left behind"


LIMITS_ALONE = (
    "import importlib.util, pathlib, nucseg_batch\n"
    "place = pathlib.Path(nucseg_batch.__file__).parent / 'network' / 'limits.py'\n"
    "spec = importlib.util.spec_from_file_location('limits', place)\n"
    "limits = importlib.util.module_from_spec(spec)\n"
    "spec.loader.exec_module(limits)\n"
    "check_threads = limits.check_threads\n"
)
"""The file by itself: its package would load Keras."""


def test_the_soft_limit_on_open_files_is_raised() -> None:
    """Some systems begin with 256."""
    program = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 1000))\n"
        "from nucseg_batch.cli.main import main\n"
        "try:\n"
        "    main(['--version'])\n"
        "finally:\n"
        "    print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1000:
        pytest.skip("the hard limit is lower")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "1000 1000"
