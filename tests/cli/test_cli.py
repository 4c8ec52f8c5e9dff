from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console

import nucseg_batch
from nucseg_batch.cli.main import main
from nucseg_batch.cli.progress import RunProgress, duration


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """It is kept in one place."""
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"nucseg-batch {nucseg_batch.__version__}\n"


def test_versions_of_what_it_works_with_are_told_without_loading_it() -> None:
    """For a report of an error; on a login node, where Keras may not even load."""
    program = (
        "import sys\n"
        "from nucseg_batch.cli.main import main\n"
        "try:\n    main(['segment', '--version', '--debug'])\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'keras', 'tensorflow', 'zarr', 'dask', 'jinja2'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"nucseg-batch {nucseg_batch.__version__}"
    assert lines[1].startswith(f"python {sys.version.split()[0]} ")
    assert {"keras", "zarr", "dask"} <= {line.split()[0] for line in lines}


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """2, and the option is named."""
    with pytest.raises(SystemExit) as stopped:
        main(["segment", "a", "b.zarr", "--treshold", "0.5"])
    assert stopped.value.code == 2
    assert "--treshold" in capsys.readouterr().err


def test_a_bug_is_told_in_one_line_and_shown_with_debug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1; the traceback is for those who ask."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("nucseg_batch.files.sample.write_sample", broken)
    for extra, lines in (([], 1), (["--debug"], 5)):
        with pytest.raises(SystemExit) as stopped:
            main(["sample", "x", *extra])
        assert stopped.value.code == 1
        errors = capsys.readouterr().err
        assert "unexpected ZeroDivisionError: by zero" in errors
        assert len(errors.splitlines()) >= lines
        assert ("Traceback" in errors) == bool(extra)


def test_without_a_terminal_progress_is_a_plain_line_every_few_seconds() -> None:
    """Logs must not fill with bars and control characters."""
    seconds = iter([0.0, 0.0, 1.0, 2.0, 6.0, 7.0, 11.5])
    text = io.StringIO()
    with RunProgress(Console(file=text, width=200), clock=lambda: next(seconds)) as progress:
        progress.start(10, 10_000_000, "images")
        for i in range(5):
            progress.plane(1_000_000, 3, failed=i == 1)
    assert text.getvalue().splitlines() == [
        "3 of 10 images, 9 nuclei, 0.5 images/s, 0.5 Mpx/s, 1 failed, about 18 s left",
        "5 of 10 images, 15 nuclei, 0.435 images/s, 0.435 Mpx/s, 1 failed, about 13 s left",
    ]
    assert "\x1b" not in text.getvalue()


def test_the_time_left_is_counted_from_the_first_image_on() -> None:
    """Until then loops are compiled, for half a minute, and a hundred images would seem to take an hour."""
    seconds = iter([0.0, 0.0, 30.0, 31.0, 41.0])
    text = io.StringIO()
    with RunProgress(Console(file=text, width=200), clock=lambda: next(seconds)) as progress:
        progress.start(100, 100_000_000, "images")
        for _ in range(3):
            progress.plane(1_000_000, 3, failed=False)
    first, second = text.getvalue().splitlines()
    assert "left" not in first
    assert second.endswith("about 9 min left")


def test_on_a_terminal_progress_is_a_bar() -> None:
    """With images, speed and time left."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    with RunProgress(console) as progress:
        progress.start(2, 200, "images")
        progress.plane(100, 1, failed=False)
        progress.plane(100, 1, failed=False)
    assert "2/2" in text.getvalue()
    assert "images/s" in text.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(43.4, "43 s"), (300, "5 min"), (9000, "2.5 h")])
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    """Nobody reads 9000 s."""
    assert duration(seconds) == text


def test_help_works_as_a_module_and_without_loading_keras() -> None:
    """On a login node, at once."""
    program = (
        "import sys, runpy\n"
        "sys.argv = ['nucseg-batch', 'segment', '--help']\n"
        "try:\n    runpy.run_module('nucseg_batch', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'keras', 'tensorflow', 'zarr'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "OUT.zarr" in done.stdout
