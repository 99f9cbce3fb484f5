"""A real Slurm for tests: a controller and two nodes with their own keys, ports and folder, on the loopback device alone."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr", "sshare")
CONFIG = """\
ClusterName=toy
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MinJobAge=3600
ReturnToService=2
SlurmdTimeout={node_timeout}
JobRequeue=1
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MpiDefault=none
GresTypes=gpu
NodeName=one NodeAddr=127.0.0.1 Port={one_port} NodeHostname={host} CPUs=2 RealMemory=20000 Gres=gpu:1
NodeName=two NodeAddr=127.0.0.1 Port={two_port} NodeHostname={host} CPUs=2 RealMemory=20000 Gres=gpu:1
PartitionName=main Nodes=one,two Default=YES State=UP
"""
NODES = ("one", "two")
GPU = "NodeName={node} Name=gpu File={file} Flags=nvidia_gpu_env\n"  # an empty file: Slurm counts it and tells its jobs of it
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


@dataclass
class Slurm:
    """A cluster that runs: a folder with clients for PATH, and the daemons of its nodes by name."""

    folder: Path
    clients: Path
    nodes: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self, node: str) -> None:
        """Starts the daemon of a node."""
        config = str(self.folder / "slurm.conf")
        self.nodes[node] = launch(self.folder, "slurmd", "-D", "-c", "-f", config, "-N", node)

    def kill(self, node: str) -> None:
        """Ends the daemon of a node at once; its jobs live on."""
        self.nodes[node].kill()
        self.nodes[node].wait()

    def ask(self, client: str, *options: str) -> str:
        """What a client says."""
        done = subprocess.run(
            [self.clients / client, *options], capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    def jobs(self, rule: str) -> dict[str, str]:
        """Slurm's jobs of a rule that are not over, and the state of each; the oldest is first."""
        rows = self.ask("squeue", "--noheader", "--sort=i", "--states=PD,R,CG", "--format=%i %T %k")
        words = (row.split(maxsplit=2) for row in rows.splitlines())
        return {job: state for job, state, comment in words if f"rule_{rule}" in comment}

    def end(self, timeout: float = 20) -> None:
        """Returns when no job is left, or after a while."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and self.ask("squeue", "--noheader", "--states=PD,R,CG"):
            time.sleep(0.5)

    def memory(self, job: str) -> int:
        """The MB that a job asked for."""
        said = self.ask("scontrol", "show", "job", job)
        (asked,) = re.findall(r"MinMemoryNode=(\d+)([MG])", said)
        return int(asked[0]) * (1024 if asked[1] == "G" else 1)


def launch(folder: Path, *command: str) -> subprocess.Popen:
    """A daemon in the foreground."""
    with open(folder / f"{command[0]}.out", "a") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def stop(process: subprocess.Popen) -> None:
    """Ends a daemon."""
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
def running_slurm(folder: Path, node_timeout: int = 300) -> Iterator[Slurm]:
    """A cluster of two nodes with two cores and an imagined GPU each. All daemons end with the block.

    A node whose daemon is silent for `node_timeout` seconds is down: its jobs are queued again.
    """
    for name in ("munge", "state", "spool.one", "spool.two"):
        (folder / name).mkdir()
    config, munge = folder / "slurm.conf", folder / "munge"
    facts = dict(zip(("controller_port", "one_port", "two_port"), free_ports(3), strict=True))
    facts |= {"node_timeout": node_timeout}
    config.write_text(CONFIG.format(folder=folder, host=socket.gethostname().partition(".")[0], **facts))
    (folder / "cgroup.conf").write_text(CGROUPS)
    gpus = {node: folder / f"{node}.gpu0" for node in NODES}
    for file in gpus.values():
        file.touch()
    (folder / "gres.conf").write_text(
        "".join(GPU.format(node=node, file=file) for node, file in gpus.items())
    )
    slurm = Slurm(folder, folder / "clients")
    write_clients(slurm.clients, config)
    subprocess.run(["mungekey", "--create", f"--keyfile={munge / 'key'}"], check=True)
    files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "seed", "log")]
    with ExitStack() as stack:
        socket_option = f"--socket={munge / 'socket'}"
        stack.callback(stop, launch(folder, "munged", "--foreground", "--force", socket_option, *files))
        stack.callback(stop, launch(folder, "slurmctld", "-D", "-c", "-f", str(config)))
        stack.callback(lambda: [stop(process) for process in slurm.nodes.values()])
        for node in NODES:
            slurm.start(node)
        wait_for_nodes(slurm)
        try:
            yield slurm
        finally:
            slurm.ask("scancel", "--partition=main")
            slurm.end()  # or jobs would outlive the daemons


def wait_for_nodes(slurm: Slurm) -> None:
    """Returns when both nodes take jobs."""
    end, said = time.monotonic() + 60, ""
    while said.split().count("idle") < len(NODES):
        logs = "".join(
            f"\n{log.name}:\n{log.read_text(errors='replace')[-2000:]}"
            for log in sorted(slurm.folder.glob("*.[lo][ou][gt]"))
        )
        assert time.monotonic() < end, f"no node is ready: {said}{logs}"
        said = slurm.ask("sinfo", "--noheader", "--Node", "--format=%T")
        time.sleep(0.5)
