"""The processes that work on a run together: a dask cluster of our own, on this machine or of jobs, or somebody else's.

Only what dask needs is imported, never Keras.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Future, Nanny, Scheduler, SpecCluster

from nucseg_batch.errors import DeviceError, NucsegError, UsageError
from nucseg_batch.executors.processes import ProcessPlan
from nucseg_batch.executors.surroundings import ARITHMETIC
from nucseg_batch.executors.worker import THREADS, WorkerSetup, finish_in_flight
from nucseg_batch.files.run_layout import WORKER_LOG

JOB_CLUSTERS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "oar": "OARCluster",
}
"""Schedulers of jobs, and what dask-jobqueue calls them."""
JOB_CORES = 4
"""Cores of a worker's job where dask's configuration does not say; options of the job may say otherwise."""
JOB_MEMORY = "16GiB"
"""Its memory likewise."""
JOB_LOGS = {"slurm": '--output="{}/' + WORKER_LOG.format("%j") + '"'}
"""Options with which jobs log into the run folder."""
CONNECT_SECONDS = 15
"""How long a scheduler may take to answer."""
LOOPBACK = "127.0.0.1"
LOGGERS = ("distributed", "tornado", "asyncio")
"""Who would else print whatever happens to a worker."""
VARIABLES = ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL", *ARITHMETIC)
"""Variables of this process that all workers get."""
COMPARED = ("python", "dask", "distributed", "msgpack", "cloudpickle")
"""What dask's own processes should have in one version; of everything else the run's fingerprint is compared."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ClusterSettings:
    """Which processes do the work."""

    scheduler: str | None = None
    """Address of a dask scheduler that is there already."""
    cluster: str | None = None
    """`local` or one of JOB_CLUSTERS: what kind of cluster to start."""
    processes: int | None = None
    """Processes of a local one; None takes as many as suit this machine, see `processes`."""
    jobs: int | None = None
    """Jobs of one that consists of jobs; None takes one."""
    job_options: tuple[str, ...] = ()
    """Options of these jobs, as their scheduler spells them."""

    def __post_init__(self) -> None:
        if (self.scheduler is None) == (self.cluster is None):
            given = "both" if self.cluster is not None else "neither, though other options are for a cluster"
            raise UsageError(f"--scheduler joins a cluster, --cluster starts one: give one of them, not {given}.")
        if self.processes is not None and self.cluster != "local":
            raise UsageError(
                "--processes is for this machine: leave it out with --scheduler, and give --jobs for jobs."
            )
        if self.cluster not in JOB_CLUSTERS and (self.jobs is not None or self.job_options):
            raise UsageError("--jobs and --job-option are for clusters of jobs, such as --cluster slurm.")

    @property
    def text(self) -> str:
        """What the user gave."""
        return f"--scheduler {self.scheduler}" if self.scheduler is not None else f"--cluster {self.cluster}"


class WorkerPool:
    """Workers that are at hand; `open_pool` makes one."""

    def __init__(
        self,
        client: Client,
        token: str,
        expected: int,
        *,
        readers: int | None = None,
        refill: Callable[[], object] = lambda: None,
    ) -> None:
        self.expected = expected
        """Tasks that all workers together have in flight when all have come."""
        self.readers = readers
        """Threads with which each task reads where nothing else is said; None leaves it to the worker."""
        self._client = client
        self._token = token
        self._refill = refill

    def submit(self, function: Callable[..., Any], *arguments: Any, key: str) -> Future:
        """Hands out a task; no two have one key."""
        try:
            return self._client.submit(function, *arguments, key=f"nucseg-{self._token}-{key}", pure=False)
        except Exception as error:  # dask has several ways to say so
            raise DeviceError("the dask scheduler has disappeared; run the same command again to resume.") from error

    def threads(self) -> int:
        """Tasks that workers who are there have in flight at once; jobs that were lost are sent in again."""
        self._refill()
        with contextlib.suppress(OSError):
            return sum(self._client.nthreads().values())
        return 0

    def drain(self, futures: list[Future], seconds: float) -> None:
        """Takes tasks back, and waits for the units that are in flight."""
        with contextlib.suppress(Exception):  # whoever is gone has nothing in flight
            self._client.cancel(futures, force=True)
            self._client.run(finish_in_flight, self._token, seconds, on_error="ignore")


@contextlib.contextmanager
def open_pool(
    settings: ClusterSettings,
    token: str,
    run_folder: Path,
    *,
    device: str,
    plan: ProcessPlan | None = None,
    prefix: str = "",
    tell: Tell,
    log: Tell,
) -> Iterator[WorkerPool]:
    """Starts or joins a cluster while the block runs; DeviceError where that is not possible.

    token: a name for this session; run_folder: where processes of our own log what they print; device: as in the
    settings; plan: the processes of a local cluster; prefix: of the names of these; log: hears what dask has to say.
    """
    with dask.config.set(_patience(settings)), _logged(log), contextlib.ExitStack() as stack:
        try:
            if settings.scheduler is not None:
                pool = _joined(stack, settings.scheduler, token, tell)
            elif settings.cluster == "local":
                assert plan is not None
                pool = _local(stack, plan, token, run_folder, device, prefix)
            else:
                pool = _of_jobs(stack, settings, token, run_folder, tell)
        except NucsegError:
            raise
        except Exception as error:  # dask, tornado and the programs of schedulers have their own
            raise DeviceError(f"{settings.text}: {_line(error)}") from error
        yield pool


def _patience(settings: ClusterSettings) -> dict[str, Any]:
    """How long dask waits before it treats a worker as lost; local workers restart on their own.

    Dask would also have the allocator of each process return memory at once, which costs more than all else in a run of
    large images with a stub in the network's place: one process made 28 Mpx/s with that and 73 without (measured).
    """
    lost = "1 day" if settings.cluster == "local" else "60s"
    return {
        "distributed.admin.tick.limit": "1h",
        "distributed.comm.timeouts.connect": "30s",
        "distributed.deploy.lost-worker-timeout": lost,
        "distributed.nanny.pre-spawn-environ": {},
    }


def environment() -> dict[str, str]:
    """Variables that every worker gets."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _joined(stack: contextlib.ExitStack, address: str, token: str, tell: Tell) -> WorkerPool:
    """Workers of somebody's scheduler."""
    client = _client(stack, address)
    _compare_versions(client, tell)
    name = f"nucseg-batch-{token}"
    client.register_plugin(WorkerSetup(environment()), name=name)
    stack.callback(_suppressed, lambda: client.unregister_worker_plugin(name))
    return WorkerPool(client, token, max(THREADS, sum(client.nthreads().values())))


def _local(
    stack: contextlib.ExitStack, plan: ProcessPlan, token: str, run_folder: Path, device: str, prefix: str
) -> WorkerPool:
    """Processes on this machine, which nobody else can reach."""
    options = {"nthreads": THREADS, "memory_limit": 0, "host": LOOPBACK, "silence_logs": logging.WARNING}
    workers = {
        f"{prefix}{i}": {"cls": Nanny, "options": {**options, "env": plan.variables(i, device)}}
        for i in range(plan.count)
    }
    place = {"host": LOOPBACK, "port": 0, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
    cluster = SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": place})
    stack.callback(_suppressed, cluster.close)
    client = _client(stack, cluster)
    log = str(run_folder.absolute() / WORKER_LOG.format("%n"))
    client.register_plugin(WorkerSetup(environment(), log), name=f"nucseg-batch-{token}")
    return WorkerPool(client, token, THREADS * plan.count, readers=max(1, min(8, plan.cores // 2)))


def _of_jobs(
    stack: contextlib.ExitStack, settings: ClusterSettings, token: str, run_folder: Path, tell: Tell
) -> WorkerPool:
    """Workers that are jobs of their own; sent in here, and again when they are lost."""
    try:
        queues = importlib.import_module("dask_jobqueue")
    except ImportError as error:
        raise UsageError(f"{settings.text} needs dask-jobqueue: pip install 'nucseg-batch[hpc]'") from error
    kind, count = str(settings.cluster), settings.jobs or 1

    def configured(name: str, default: Any) -> Any:
        value = dask.config.get(f"jobqueue.{kind}.{name}", None)
        return default if value is None else value

    logs = [JOB_LOGS[kind].format(run_folder.absolute())] if kind in JOB_LOGS else []
    extra = ["--nthreads", THREADS, "--memory-limit", 0, "--no-dashboard"]
    cluster = getattr(queues, JOB_CLUSTERS[kind])(
        cores=configured("cores", JOB_CORES),
        memory=configured("memory", JOB_MEMORY),
        processes=configured("processes", 1),
        job_name="nucseg-batch",
        job_extra_directives=[*logs, *configured("job-extra-directives", []), *settings.job_options],
        worker_extra_args=[*configured("worker-extra-args", []), *extra],
        scheduler_options={"dashboard": False, "dashboard_address": ":0", **configured("scheduler-options", {})},
        silence_logs=False,
    )
    stack.callback(_suppressed, cluster.close)
    client = _client(stack, cluster)
    client.register_plugin(WorkerSetup(environment()), name=f"nucseg-batch-{token}")

    async def sent() -> None:
        await cluster

    cluster.scale(jobs=count)
    cluster.sync(sent)  # raises what the scheduler of jobs has against them
    tell(f"{count} job{'s' * (count > 1)} sent to {kind}")
    return WorkerPool(client, token, THREADS * count, refill=lambda: cluster.scale(jobs=count))


def _client(stack: contextlib.ExitStack, place: Any) -> Client:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that differ, which is told in one line
        client = Client(place, timeout=CONNECT_SECONDS, set_as_default=False)
    stack.callback(_suppressed, client.close)
    return client


def _compare_versions(client: Client, tell: Tell) -> None:
    """Says in one line where dask's processes do not fit together."""
    versions: Any = client.get_versions()
    own = versions["client"]["packages"]
    others = {"the scheduler": versions["scheduler"], **versions["workers"]}
    different = {
        f"{name} {packages['packages'].get(name)} on {who}"
        for who, packages in others.items()
        for name in COMPARED
        if packages and packages["packages"].get(name) != own.get(name)
    }
    if different:
        tell(f"versions differ, which may fail: {', '.join(sorted(different)[:3])}; here {own}")


@contextlib.contextmanager
def _logged(log: Tell) -> Iterator[None]:
    """Has what dask reports logged, and not printed."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with contextlib.suppress(OSError):
                log(f"{record.name}: {record.getMessage()}")

    before = []
    handler = Handler(logging.WARNING)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        before.append((logger, logger.handlers, logger.propagate, logger.level))
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, handlers, propagate, level in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def _suppressed(close: Callable[[], Any]) -> None:
    """Closes something that may be gone already."""
    with contextlib.suppress(Exception):
        close()


def _line(error: Exception) -> str:
    """One line that says what is wrong; what a program of a scheduler printed says it best."""
    text = str(error)
    _, _, printed = text.partition("stderr:\n")
    lines = [line.strip() for line in (printed or text).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
