"""What is written into slurm.conf: a site as others are, but quick, small, and alone on its machine."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

ALONE = {
    # no keys, no services, no mail; it listens on loopback alone
    "AuthType": "auth/none",
    "CredType": "cred/none",
    "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",
    "MailProg": "/bin/true",
    "AccountingStorageType": "accounting_storage/none",
    "MpiDefault": "none",
    "SwitchType": "switch/none",
    # without control groups, memory is watched by looking at it
    "ProctrackType": "proctrack/linuxproc",
    "TaskPlugin": "task/none",
    "JobAcctGatherType": "jobacct_gather/linux",
    "JobAcctGatherFrequency": "task=1",
    "JobAcctGatherParams": "OverMemoryKill",
    # nodes pretend to be of the size that jobs for clusters ask for
    "SlurmdParameters": "config_overrides",
}
QUICK = {
    "SchedulerType": "sched/backfill",
    "SchedulerParameters": "batch_sched_delay=1,sched_interval=2,bf_interval=2",
    "ReturnToService": 2,
    # ended jobs can be asked for their codes until the end of the tests
    "MinJobAge": 3600,
}
USUAL = {
    "KillWait": 30,
    "SelectType": "select/cons_tres",
    "SelectTypeParameters": "CR_Core_Memory",
    "GresTypes": "gpu",
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
    "JobRequeue": 1,
    "MaxArraySize": 101,
}
NODE = "CPUs=16 Boards=1 SocketsPerBoard=1 CoresPerSocket=16 ThreadsPerCore=1 RealMemory=64000 Gres=gpu:1 State=UNKNOWN"
PARTITION = "Nodes=ALL MaxTime=INFINITE DefaultTime=20 DefMemPerNode=100 State=UP"


def configuration(folder: Path, port: int, nodes: dict[str, int], requeue_exit: int | None) -> str:
    """The text, for a controller and nodes at these ports; jobs of partition `urgent` preempt those of `normal`."""
    host, user = socket.gethostname().split(".")[0], pwd.getpwuid(os.getuid()).pw_name
    here = {
        "ClusterName": "tests",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": port,
        "SlurmUser": user,
        "SlurmdUser": user,
        "SlurmctldPidFile": folder / "run" / "slurmctld.pid",
        "SlurmdPidFile": folder / "run" / "slurmd-%n.pid",
        "SlurmctldLogFile": folder / "log" / "slurmctld.log",
        "SlurmdLogFile": folder / "log" / "slurmd-%n.log",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool" / "%n",
    }
    requeue = {} if requeue_exit is None else {"RequeueExit": requeue_exit}
    lines = [f"{key}={value}" for key, value in (here | ALONE | QUICK | USUAL | requeue).items()]
    lines += [f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={at} {NODE}" for name, at in nodes.items()]
    lines += [
        f"PartitionName=normal Default=YES PriorityTier=1 {PARTITION}",
        f"PartitionName=urgent PriorityTier=10 PreemptMode=OFF {PARTITION}",
    ]
    return "\n".join(lines) + "\n"
