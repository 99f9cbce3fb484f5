"""The workflow's side: a server for the jobs of this run of Snakemake, and what they use of the machine."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from edadm.warm import SETTING, SOCKET

LONGEST = 100  # bytes in the name of a socket, of which Linux takes 107
# Snakemake tells libraries in jobs of one thread, which all are, how many threads they have.
_THREADS = ("OMP_NUM", "GOTO_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM", "NUMEXPR_NUM")
_SERVER = ("-m", "edadm.warm.server")
_servers: list[subprocess.Popen[bytes]] = []  # whose pipes end with this process


def start() -> None:
    """Starts the server, of which jobs know from the environment; nothing where it is not wanted.

    It does not matter whether it lives: jobs start by themselves where it does not answer.
    """
    if os.environ.get(SETTING) == "0" or not sys.platform.startswith("linux") or not count_forks():
        return
    with suppress(OSError):
        folder = _private_folder()
        os.environ[SOCKET] = str(folder / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.environ[SOCKET])
            listener.listen(128)
            command = [sys.executable, *_SERVER, str(listener.fileno()), str(folder)]
            _servers.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[listener.fileno()],
                    env=os.environ | {f"{name}_THREADS": "1" for name in _THREADS},
                )
            )


def _private_folder() -> Path:
    """A folder that only its user may enter, removed when Snakemake ends."""
    folder = Path(tempfile.mkdtemp(prefix="edadm-"))
    if len(os.fsencode(folder)) > LONGEST:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="edadm-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def count_forks() -> bool:
    """Has Snakemake's benchmarks count a job's fork with its client, whose child it is not.

    False where this Snakemake measures otherwise than it did.
    """
    import psutil
    from snakemake import benchmark

    own: Any = getattr(benchmark, "BenchmarkTimer", None)
    if own is None or not callable(getattr(own, "_update_record", None)):
        return False

    class Tree(psutil.Process):
        def children(self, recursive: bool = False) -> list[psutil.Process]:
            found = super().children(recursive)
            return [*found, *(fork for each in found for fork in forks_of(each.pid))]

    class Timer(own):
        def __init__(self, *given: Any, **named: Any):
            super().__init__(*given, **named)
            self.main = Tree(self.pid)

    benchmark.BenchmarkTimer = Timer
    return True


def forks_of(client: int) -> list[Any]:
    """The fork of a client, and its children, if there is one."""
    import psutil

    try:
        link = Path(os.environ[SOCKET]).with_name(str(client))
        fork = psutil.Process(int(os.readlink(link)))
        return [fork, *fork.children(recursive=True)]
    except (KeyError, OSError, ValueError, psutil.Error):
        return []
