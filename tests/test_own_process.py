"""What a process that runs only this program leaves out, and how it ends."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from nucseg_batch.machine import own_process

KERAS = """
import json, sys
from nucseg_batch.machine.own_process import claim
if {claimed}:
    claim()
import nucseg_batch.network
from nucseg_batch.network import UNUSED
loaded = [name for name in UNUSED if name in sys.modules]
import matplotlib.pyplot
print(json.dumps(loaded))
"""
ENDING = """
import atexit, gc, sys
from nucseg_batch.__main__ import main
atexit.register(lambda: print(gc.get_freeze_count() > 1000))
main()
"""


def printed(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=240, check=True)
    return done.stdout.splitlines()[-1]


def test_keras_loads_nothing_that_is_not_used_here() -> None:
    """It imports these packages where they are installed; what needs them later finds them."""
    assert json.loads(printed("-c", KERAS.format(claimed=True))) == []


def test_in_the_process_of_others_keras_is_loaded_as_ever() -> None:
    """A notebook may train on tables of pandas afterwards."""
    assert "matplotlib" in json.loads(printed("-c", KERAS.format(claimed=False)))


def test_packages_are_hidden_while_the_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded already stays."""
    monkeypatch.setattr(own_process, "_claimed", True)
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with own_process.without(["this", "json"]):
        assert importlib.import_module("json") is json
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("this")
    assert "this" not in sys.modules


def test_the_end_of_the_program_searches_nothing_for_garbage() -> None:
    """Python would go through all that Keras made, which takes a second."""
    assert printed("-c", ENDING, "--version") == "True"
