"""How busy a GPU was, as a driver that prints percentages says."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from small_runs import picture, small_run

from nucseg_batch.executors.device_watch import ASKED_MS, busy_seconds, watched
from nucseg_batch.files.run.timings import DeviceTotal, add_timings, now, read_timings
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.machine.device_use import compilations


def test_the_driver_is_asked_while_the_block_runs_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints a percentage of each GPU in turn, and a word for what it does not know."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "*driver_version*) echo 570.86.10 ;;\n"
        f'*utilization*) echo "$*" > {tmp_path}/asked; printf "40\\n80\\n[N/A]\\n60\\n0\\n"; touch {tmp_path}/printed\n'
        f"  exec sleep 600 ;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with watched(["GPU-a", "1"]) as seen:
        while not (tmp_path / "printed").exists():
            threading.Event().wait(0.01)
    assert seen.driver == "570.86.10"
    assert seen.share == pytest.approx(0.45)
    assert seen.of == pytest.approx(4 * ASKED_MS / 1000 / 2)
    assert "--id=GPU-a,1" in (tmp_path / "asked").read_text()
    assert [line for line in seen.lines() if "45%" in line]


def test_without_a_driver_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for gpus in ([], ["0"]):
        with watched(gpus) as seen:
            pass
        assert (seen.driver, seen.share) == ("", None)
    assert busy_seconds([], 1) == (0, 0)


def test_what_devices_did_adds_up_over_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that only asks the driver is none of those that computed; earlier versions recorded no device."""
    compilations.since_told()
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(3))
    run.segment()
    found = read_timings(run.store)
    assert found is not None
    assert (found.processes, found.device) == (1, DeviceTotal("a threshold"))
    add_timings(run.store, now(), {}, DeviceTotal("H100", "570", 3, 2.5, 1.0, 4.0))
    folder = RunLayout(run.store).timings
    (path,) = folder.iterdir()
    old = path.read_text()
    other = '{"began": "2020-02-03T04:05:06+01:00", "ended": "2020-02-03T04:05:07+01:00", "stages": {}, "device": %s}'
    (folder / "other.json").write_text(other % '{"name": "H100", "driver": "570", "programs": 1, "busy": 2, "of": 2}')
    found = read_timings(run.store)
    assert found is not None
    assert found.processes == 1
    assert found.device == DeviceTotal("H100; a threshold", "570", 4, 2.5, 3.0, 6.0)
    assert found.device.share == 0.5
    path.write_text(old[: old.index('"device"')].rstrip().rstrip(",") + "}")
    assert read_timings(run.store) is not None
