"""A server without the imports, whose jobs are lines of Python instead of command lines, and clients of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edadm.warm import SOCKET

HERE = str(Path(__file__).parents[2])
PATIENCE = 60.0
# Stands for Snakemake: the server ends with its standard input.
SNAKEMAKE = """
import os, sys
from edadm.warm import starting
starting._SERVER = ("-c", sys.argv[1])
starting.start()
print(starting._servers[0].pid, os.environ["EDADM_WARM_SOCKET"], flush=True)
sys.stdin.read()
"""
SERVER = """
import sys, types
sys.modules["edadm.cli"] = types.ModuleType("edadm.cli")
sys.modules["edadm.cli"].main = lambda: exec(sys.argv[1], {{}})
from edadm.warm import server
server.FIRST = server.LATER = server.ON_GPUS = ()
{prelude}
server.main()
"""
CLIENT = "from edadm.warm.client import served\nif not served(): print('by itself')"


class Serving:
    """A running server."""

    def __init__(self, snakemake: subprocess.Popen[str], environment: dict[str, str], package: str):
        assert snakemake.stdout
        self.package = package
        process, self.socket = snakemake.stdout.readline().split()
        self.snakemake, self.process = snakemake, int(process)
        self.environment = environment | {SOCKET: self.socket}

    def client(
        self, code: str, environment: Mapping[str, str] | None = None, **kind: Any
    ) -> subprocess.Popen[str]:
        """A client whose job is to run this code."""
        pipes: dict[str, Any] = {
            "cwd": self.package,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        }
        command = [sys.executable, "-c", CLIENT, code]
        return subprocess.Popen(command, env=self.environment | (environment or {}), **(pipes | kind))

    def run(
        self, code: str, environment: Mapping[str, str] | None = None, **kind: Any
    ) -> tuple[int, str, str]:
        """Its exit status and what it said."""
        client = self.client(code, environment, **kind)
        said, complained = client.communicate(timeout=PATIENCE)
        return client.returncode, said, complained or ""

    def snakemake_ends(self) -> None:
        """Its pipe ends, as if it were killed."""
        assert self.snakemake.stdin
        self.snakemake.stdin.close()


@contextmanager
def serving(prelude: str = "", package: str = HERE) -> Iterator[Serving]:
    """A server of which nothing is left after the block."""
    names = ("OMP_NUM", "GOTO_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM", "NUMEXPR_NUM")
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {f"{name}_THREADS": "1" for name in names} | {"PYTHONPATH": path}
    environment.pop(SOCKET, None)
    environment.pop("EDADM_WARM", None)
    snakemake = subprocess.Popen(
        [sys.executable, "-c", SNAKEMAKE, SERVER.format(prelude=prelude)],
        cwd=package,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Serving(snakemake, environment, package)
    finally:
        snakemake.communicate(timeout=PATIENCE)


def until(happened: Callable[[], Any]) -> Any:
    """Looks every few milliseconds whether something has happened, and returns it."""
    end = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


def state(process: int) -> str:
    """R, S, T and so on, and Z for one that has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
