"""Sweeps: the same commands again and again, stopped at one point after the other, gone on with, and compared.

A point is a call with which a file appears, reaches the disk or goes, counted over all threads of a command.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from faults.tree import KILLED, Driver, Run, differences, planes_done, tree

Command = Sequence[object]
"""Arguments of the program."""
STOPPED = {signal.SIGKILL: KILLED, signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}
"""How a command ends after a signal."""
TABLES = (".images.csv", ".nuclei.csv", ".failures.csv")


@dataclass(frozen=True)
class Step:
    """One command of an uninterrupted run."""

    before: Path
    """A copy of all that was there before it."""
    calls: tuple[str, ...]
    """Its points."""
    code: int
    """Its exit code."""
    segmented: int
    """Images and regions that it segments."""


Point = tuple[int, int]
"""Number of a command, and of a call of it counted from 1."""


@dataclass
class Sweep:
    """What one sweep knows: the commands, and what they leave when nothing disturbs them."""

    drivers: Sequence[Driver]
    """Which run at once."""
    folder: Path
    """Where it works."""
    commands: Callable[[Path], list[Command]]
    """The commands for an output place."""
    base: Path | None = None
    """A folder with what is at the place already; copied for each run."""
    resume: Callable[[Path], list[Command]] | None = None
    """The commands with which a stopped run goes on, whatever locks they leave alone; None for the same ones."""
    mutant: str = ""
    """A mistake of mutants.py that every run makes."""
    steps: list[Step] = field(default_factory=list)
    reference: dict[str, str] = field(default_factory=dict)
    planes: set[str] = field(default_factory=set)

    def prepare(self) -> Sweep:
        """Runs all commands, keeping what was there before each."""
        store = self._place("reference", self.base)
        for number, command in enumerate(self.commands(store)):
            before = self.folder / f"before-{number}"
            shutil.copytree(store.parent, before)
            done = self.drivers[0].run(*command, code=None, trace=True)
            assert done.code in (0, 3), done.output + done.errors
            self.steps.append(Step(before, tuple(done.calls), done.code, done.segmented))
        self.reference, self.planes = tree(store), planes_done(store)
        return self

    def points(self, every: int = 1, after: str = "") -> list[Point]:
        """Each so-manyeth point; of each command only those after the last call that names `after`."""
        found = []
        for number, step in enumerate(self.steps):
            first = max((i for i, line in enumerate(step.calls, start=1) if after and after in line), default=0)
            found += [(number, call) for call in range(first + 1, len(step.calls) + 1)]
        return found[::every]

    def wrong(self, points: Sequence[Point], sent: int = signal.SIGKILL) -> list[str]:
        """All that is not as it should be when commands are stopped at points and gone on with; nothing, that is."""

        def part(number: int) -> list[str]:
            own = points[number :: len(self.drivers)]
            return [line for step, call in own for line in self._wrong_at(self.drivers[number], step, call, sent)]

        with ThreadPoolExecutor(len(self.drivers)) as pool:
            return [line for lines in pool.map(part, range(len(self.drivers))) for line in lines]

    def _wrong_at(self, driver: Driver, step: int, call: int, sent: int) -> list[str]:
        where = f"command {step} stopped at call {call}, {self.steps[step].calls[call - 1]}"
        before = self.steps[step].before
        store = self._place(f"{step}-{call}-{sent}{self.mutant}", before)
        first = self.commands(store)[step]
        stopped = driver.run(*first, code=None, kill=call, signal=int(sent), mutant=self.mutant)
        if stopped.code != STOPPED[signal.Signals(sent)]:
            return [f"{where}: it ended with {stopped.code}: {stopped.output}{stopped.errors}"]
        wrong = [] if sent == signal.SIGKILL else _left(store)
        wrong += self._half_tables(store, before / store.name)
        missing = self.planes - planes_done(store)
        commands = self.resume(store) if self.resume else self.commands(store)[step:]
        runs = [driver.run(*command, code=None, mutant=self.mutant) for command in commands]
        if not self.resume:
            wrong += _ends(runs, [step.code for step in self.steps[step:]])
        segmented = sum(run.segmented for run in runs)
        if segmented != len(missing):
            wrong.append(f"{segmented} images were segmented instead of {len(missing)}")
        wrong += [name for name in differences(store, self.reference) if not (self.resume and "/locks/" in name)]
        shutil.rmtree(store.parent)
        return [f"{where}: {line}" for line in wrong]

    def _half_tables(self, store: Path, before: Path) -> list[str]:
        """Tables that are neither as they were nor as they will be."""
        now, earlier = tree(store), tree(before)
        return [
            f"{name} is a half one"
            for name in TABLES
            if now.get(name) not in (earlier.get(name), self.reference.get(name))
        ]

    def _place(self, name: str, base: Path | None) -> Path:
        place = self.folder / name
        if base is None:
            place.mkdir(parents=True)
        else:
            shutil.copytree(base, place, symlinks=True)
        return place / "out.zarr"


def _left(store: Path) -> list[str]:
    """What a stop in good order must not leave."""
    return [f"{name} is left" for name in tree(store) if name.endswith(".partial") or "/begun/" in name]


def _ends(runs: Sequence[Run], codes: Sequence[int]) -> list[str]:
    found = [run.code for run in runs]
    return [] if found == list(codes) else [f"ended with {found}, not {list(codes)}: {[run.errors for run in runs]}"]
