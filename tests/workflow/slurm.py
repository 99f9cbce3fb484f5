"""A real Slurm for one test: its own keys, ports and folder, nothing outside the loopback device."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr", "sshare")
CONFIG = """\
ClusterName=toy
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MinJobAge=3600
ReturnToService=2
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MpiDefault=none
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname={host} CPUs=2 RealMemory=20000
PartitionName=main Nodes=localhost Default=YES State=UP
"""
CGROUPS = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
ConstrainCores=no
ConstrainDevices=no
ConstrainRAMSpace=no
ConstrainSwapSpace=no
"""


def missing() -> str:
    """Why Slurm cannot be started here; empty if it can."""
    absent = [name for name in (*DAEMONS, "mungekey", "sbatch") if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    return "" if os.geteuid() == 0 else "Slurm's daemons want to be root here"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback device that nobody uses."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def daemon(folder: Path, *command: str) -> Iterator[subprocess.Popen]:
    """A daemon in the foreground that ends with the block."""
    with open(folder / f"{command[0]}.out", "w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def write_clients(folder: Path, config: Path) -> None:
    """Scripts before the clients that name the configuration; Snakemake's plugin deletes SLURM_CONF."""
    folder.mkdir()
    for name in CLIENTS:
        if (path := shutil.which(name)) is not None:
            script = folder / name
            script.write_text(f'#!/bin/sh\nSLURM_CONF="{config}" exec {path} "$@"\n')
            script.chmod(0o755)


@contextmanager
def running_slurm(folder: Path) -> Iterator[Path]:
    """One controller and one node of two cores; yields a folder with clients for PATH. All daemons end with the block."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir()
    config, clients = folder / "slurm.conf", folder / "clients"
    ports = dict(zip(("controller_port", "node_port"), free_ports(2), strict=True))
    config.write_text(CONFIG.format(folder=folder, host=socket.gethostname().partition(".")[0], **ports))
    (folder / "cgroup.conf").write_text(CGROUPS)
    write_clients(clients, config)
    key, munge = folder / "munge" / "key", folder / "munge"
    subprocess.run(["mungekey", "--create", f"--keyfile={key}"], check=True)
    files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "seed", "log")]
    with (
        daemon(folder, "munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files),
        daemon(folder, "slurmctld", "-D", "-c", "-f", str(config)),
        daemon(folder, "slurmd", "-D", "-c", "-f", str(config)),
    ):
        wait_for_node(folder, clients)
        try:
            yield clients
        finally:
            subprocess.run([clients / "scancel", "--partition=main"], timeout=60, check=False)
            wait_for_end_of_jobs(clients)


def wait_for_end_of_jobs(clients: Path) -> None:
    """Returns when no job is left that would outlive the daemons, or after a while."""
    end = time.monotonic() + 20
    squeue = [clients / "squeue", "--noheader", "--states=RUNNING,COMPLETING,PENDING"]
    while time.monotonic() < end and subprocess.run(squeue, capture_output=True, timeout=60).stdout:
        time.sleep(0.5)


def wait_for_node(folder: Path, clients: Path) -> None:
    """Returns when the node takes jobs."""
    end, said = time.monotonic() + 60, ""
    while "idle" not in said.split():
        logs = "".join(
            f"\n{log.name}:\n{log.read_text(errors='replace')[-2000:]}"
            for log in sorted(folder.glob("*.[lo][ou][gt]"))
        )
        assert time.monotonic() < end, f"no node is ready: {said}{logs}"
        done = subprocess.run(
            [clients / "sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, timeout=60
        )
        said = done.stdout + done.stderr
        time.sleep(0.5)
