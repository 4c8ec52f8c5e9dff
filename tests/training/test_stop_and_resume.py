from __future__ import annotations

import csv
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures import annotated_folder

from nucseg_batch.cli.main import main
from nucseg_batch.network.architectures import build, network_spec
from nucseg_batch.network.model_file import Model, ModelInfo, save_model


@pytest.fixture
def deaf() -> Iterator[None]:
    """A TERM that comes when the training no longer listens must not end the tests."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("deaf")
def test_a_training_that_a_scheduler_ends_says_how_to_go_on_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TERM is how a night on a cluster ends: 75, one line, and no pass that was finished is lost."""
    data, small, model = annotated_folder(tmp_path / "data", 3), tmp_path / "small.keras", tmp_path / "m.keras"
    spec = network_spec("default", "instances", (4, 6))
    info = ModelInfo(spec.architecture, spec.widths, spec.task, 20.0)
    save_model(Model(build(spec, normalise=True), info), small)
    size = ["--epochs", "2", "--steps", "2", "--batch-size", "1", "--crop", "64", "--precision", "float32"]
    command = ["train", str(data), str(model), "--init", str(small), "--device", "cpu", *size]
    state, ended = tmp_path / "m.resume.json", threading.Event()

    def scheduler() -> None:
        while not (ended.wait(0.01) or (state.exists() and '"epochs_done": 1' in state.read_text())):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=scheduler)
    thread.start()
    with pytest.raises(SystemExit) as stopped:
        main(command)
    ended.set()
    thread.join()
    told = capsys.readouterr().err
    assert stopped.value.code == 75, told
    going_on = (
        "nucseg-batch: stopped. To continue, run the same command with --resume; an unfinished epoch starts again."
    )
    assert told.splitlines()[-1] == going_on
    assert not model.exists()

    with pytest.raises(SystemExit) as finished:
        main([*command, "--resume"])
    told = capsys.readouterr().err
    assert finished.value.code == 0, told
    assert "continuing after 1 of 2 epochs" in told
    with open(tmp_path / "m.history.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    assert model.exists()
