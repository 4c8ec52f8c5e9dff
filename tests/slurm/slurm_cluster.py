"""A real Slurm on one machine: a controller and two nodes with a pretended GPU each, on loopback, in one folder.

Nothing of it outlives `stop`, and no service of the machine is touched: daemons run as this user from a configuration
of their own, on free ports, and are stopped by their own pid files. It needs no munge, no cgroups and no database, so
it starts in about a second, also in a container and for an ordinary user. Jobs see what they see on a cluster: queues,
arrays, requeueing, signals, preemption, memory limits and dying nodes.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from slurm.configuration import configuration
from slurm.processes import alive, ancestors, environments, name, send

NODES = ("n1", "n2")
PATIENCE = 240.0
"""Seconds that anything is waited for: far more than it takes, since other work may run on the machine."""
DONE = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "OUT_OF_MEMORY")
_GPUS = {"n1": "/dev/null", "n2": "/dev/zero"}
"""Slurm asks of a GPU only that it be a character device, each node's its own."""


def missing() -> str | None:
    """Which program of Slurm is not installed; None where all are there."""
    programs = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
    return next((program for program in programs if _program(program) is None), None)


@dataclass(frozen=True)
class Task:
    """What Slurm says of one job, or of one task of an array."""

    job: str
    """Number of the job; of a task of an array `<number of the array>_<task>`."""
    state: str
    """Such as `RUNNING`."""
    code: int
    """Its exit code."""
    killed_by: int
    """The signal that ended it, or 0."""
    restarts: int
    """How often it was requeued."""
    node: str
    """Where it runs or ran last; empty before."""


@dataclass
class SlurmCluster:
    """A running Slurm; `start` makes one."""

    folder: Path
    """Where its files are; must be short enough for the names of sockets."""
    requeue_exit: int | None = 75
    """Exit code at which Slurm puts a job into the queue again; None as at sites that have not set it."""
    _ports: list[int] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What programs need in order to talk to this Slurm and to no other."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        return own | {"SLURM_CONF": str(self._configuration), "PATH": _path()}

    # life

    def start(self) -> None:
        """Starts the daemons and waits until both nodes are there."""
        for part in ("state", "log", "run", *(f"spool/{node}" for node in NODES)):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        self._ports = _free_ports(1 + len(NODES))
        self._write_configuration()
        gpus = "".join(f"NodeName={node} Name=gpu File={device}\n" for node, device in _GPUS.items())
        (self.folder / "gres.conf").write_text(gpus)
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        self.call("slurmctld", "-c", "-f", self._configuration)
        for node in NODES:
            self.call("slurmd", "-c", "-f", self._configuration, "-N", node)
        self.wait(lambda: all(state == "idle" for state in self.nodes().values()), "nodes to be idle")

    def stop(self) -> None:
        """Ends all jobs and daemons of this Slurm."""
        self.call("scancel", "--user", str(os.getuid()), check=False)
        for node in NODES:
            self.end_processes(node)
        daemons = [pid for path in (self.folder / "run").glob("*.pid") if (pid := _pid(path)) is not None]
        for pid in daemons:
            send(pid, signal.SIGTERM)
        end = time.monotonic() + 10
        while any(map(alive, daemons)) and time.monotonic() < end:
            time.sleep(0.1)
        for pid in daemons:
            send(pid, signal.SIGKILL)

    @contextmanager
    def without_requeue_exit(self) -> Iterator[None]:
        """For a while a site that does not requeue jobs for their exit code."""
        before, self.requeue_exit = self.requeue_exit, None
        self._write_configuration()
        self.call("scontrol", "reconfigure")
        try:
            yield
        finally:
            self.requeue_exit = before
            self._write_configuration()
            self.call("scontrol", "reconfigure")

    # asking

    def nodes(self) -> dict[str, str]:
        """State of each node, such as `idle`; `down*` when it does not answer."""
        lines = self.call("sinfo", "-h", "-N", "-p", "normal", "-o", "%N %T", check=False).splitlines()
        return dict.fromkeys(NODES, "none") | dict(line.split() for line in lines)

    def tasks(self, job: str) -> list[Task]:
        """All tasks of an array in order, or the one of a job that is none."""
        records = self.call("scontrol", "show", "job", "-o", job).splitlines()
        return sorted((_task(record) for record in records if record), key=lambda task: task.job)

    def task(self, job: str) -> Task:
        """The job, or the task of an array, written as `12_3`."""
        return self.tasks(job)[0]

    def log(self, job: str, folder: Path) -> str:
        """What jobs have written to `slurm-<job>.out` in a folder."""
        return (folder / f"slurm-{job}.out").read_text(errors="replace")

    def processes(self, job: str) -> list[int]:
        """Processes of a job or task, also those that Slurm has lost sight of; the shell of its script first."""
        number = self._field(job, "JobId")  # a task's own, which is not that of its array
        return [
            pid
            for pid, environment in environments()
            if self._is_ours(environment) and environment["SLURM_JOB_ID"] == number
        ]

    # doing

    def submit(self, *arguments: object, folder: Path, environment: dict[str, str] | None = None) -> str:
        """Calls `sbatch` in a folder and returns the job's number."""
        call = [_program("sbatch") or "sbatch", "--parsable", *map(str, arguments)]
        done = subprocess.run(
            call,
            cwd=folder,
            env=self.environment | (environment or {}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def release(self, *jobs: str) -> None:
        """Lets jobs begin that were submitted with `SBATCH_HOLD`."""
        self.call("scontrol", "release", ",".join(jobs))

    def signal(self, job: str, name: str) -> None:
        """Sends a signal to the shell of a job's script alone, as `--signal=B:...` does when the time runs out."""
        self.call("scancel", f"--signal={name}", "--batch", job)

    def requeued(self, job: str, times: int = 1) -> None:
        """Waits until a job was put into the queue again, and has it start soon instead of in two minutes."""
        self.wait(lambda: self.task(job).restarts >= times, f"{job} to be requeued")
        self.wait(lambda: self.task(job).state != "COMPLETING", f"{job} to be at rest")
        if self.task(job).state == "PENDING":
            # not at once: within the second in which it ended, its node takes it for the job that was to be killed
            self.call("scontrol", "update", f"jobid={job}", "StartTime=now+2")

    def wait(self, condition: Callable[[], bool], what: str, *, job: str | None = None, every: float = 0.2) -> None:
        """Waits until a condition holds; says what Slurm was doing where it never does, or a job ends before."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if job is not None and (task := self.task(job)).state in DONE and not condition():
                raise AssertionError(f"{task} while waiting for {what}\n{self._log_of(job)}")
            if time.monotonic() > end:
                raise AssertionError(f"waited {PATIENCE:.0f} s for {what}\n{self.report()}")
            time.sleep(every)

    def ended(self, job: str) -> list[Task]:
        """Waits until all of a job or array has come to its end, and returns its tasks."""
        self.wait(lambda: all(task.state in DONE for task in self.tasks(job)), f"{job} to end")
        return self.tasks(job)

    def lose_node(self, node: str) -> None:
        """What a node is like that has lost its network: Slurm's daemons on it are gone, the jobs' processes go on.

        The controller is told, as by a site's watchdog; by itself it waits for minutes.
        """
        pid = _pid(self.folder / "run" / f"slurmd-{node}.pid")
        assert pid is not None, self.report()
        # the daemon first, so that it cannot tell the controller of the death of the others
        send(pid, signal.SIGKILL)
        for stepd in self._step_daemons(node):
            send(stepd, signal.SIGKILL)
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")

    def return_node(self, node: str) -> None:
        """Ends what is left on a lost node, as a reboot does, and takes it back."""
        self.end_processes(node)
        self.call("slurmd", "-c", "-f", self._configuration, "-N", node)
        self.wait(lambda: self.nodes()[node] in ("idle", "mixed", "allocated"), f"{node} to be back")

    def end_processes(self, node: str) -> None:
        """Kills all processes of jobs on a node."""
        for pid, environment in environments():
            if self._is_on(node, environment):
                send(pid, signal.SIGKILL)

    def call(self, program: str, *arguments: object, check: bool = True) -> str:
        """Runs a program of Slurm and returns what it prints."""
        done = subprocess.run(
            [_program(program) or program, *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, f"{program} {arguments}: {done.stderr}\n{self.report()}"
        return done.stdout

    def report(self) -> str:
        """Queue, nodes and the ends of all logs, for the message of a test that fails."""
        parts = []
        for command in (["squeue", "-a"], ["sinfo", "-N", "-l"]):
            done = subprocess.run(
                [_program(command[0]) or command[0], *command[1:]],
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            parts.append(done.stdout + done.stderr)
        for path in sorted((self.folder / "log").glob("*.log")):
            end = path.read_text(errors="replace").splitlines()[-15:]
            parts += [f"{path.name}:", *end]
        return "\n".join(parts)

    # inner parts

    @property
    def _configuration(self) -> Path:
        return self.folder / "slurm.conf"

    def _is_ours(self, environment: dict[str, str]) -> bool:
        return environment.get("SLURM_CONF") == str(self._configuration) and "SLURM_JOB_ID" in environment

    def _is_on(self, node: str, environment: dict[str, str]) -> bool:
        return self._is_ours(environment) and environment.get("SLURMD_NODENAME") == node

    def _field(self, job: str, name: str) -> str:
        for word in self.call("scontrol", "show", "job", "-o", job).split():
            if word.startswith(f"{name}="):
                return word.removeprefix(f"{name}=")
        raise AssertionError(f"no {name} of job {job}")

    def _log_of(self, job: str) -> str:
        path = Path(self._field(job, "StdOut"))
        return path.read_text(errors="replace") if path.exists() else ""

    def _step_daemons(self, node: str) -> list[int]:
        """The daemons that watch the jobs of a node, found as ancestors of the jobs' own processes."""
        jobs = [pid for pid, environment in environments() if self._is_on(node, environment)]
        return sorted({above for pid in jobs for above in ancestors(pid) if name(above) == "slurmstepd"})

    def _write_configuration(self) -> None:
        text = configuration(
            self.folder, self._ports[0], dict(zip(NODES, self._ports[1:], strict=True)), self.requeue_exit
        )
        self._configuration.write_text(text)


def _path() -> str:
    """PATH with the places of daemons, which ordinary users often lack."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _program(name: str) -> str | None:
    return shutil.which(name, path=_path())


def _free_ports(count: int) -> list[int]:
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


def _task(record: str) -> Task:
    """Reads a line of `scontrol show job -o`."""
    fields = dict(word.split("=", 1) for word in record.split() if "=" in word)
    code, _, killed_by = fields["ExitCode"].partition(":")
    task = fields.get("ArrayTaskId")
    job = fields["JobId"] if task is None else f"{fields['ArrayJobId']}_{task}"
    node = fields.get("NodeList", "").replace("(null)", "")
    return Task(job, fields["JobState"], int(code), int(killed_by), int(fields.get("Restarts", 0)), node)


def _pid(path: Path) -> int | None:
    """The number in a pid file, if that process is one of Slurm's daemons still."""
    try:
        pid = int(path.read_text())
    except (OSError, ValueError):
        return None
    return pid if (name(pid) or "").startswith(("slurmd", "slurmctld")) else None
