"""A fork of the server becomes what its client would have been."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_libc = ctypes.CDLL(None)


@dataclass
class Job:
    """What a fork does: a command line, where, and the descriptors of its standard streams."""

    argv: list[str]
    folder: str
    environment: dict[str, str]
    streams: list[int]


def close_all(*files: Any) -> None:
    """Closes what is the server's."""
    for file in files:
        file.close()


def take_place(job: Job, server: int, handlers: Mapping[int, Any]) -> None:
    """Takes the place of a job's own process: its streams, folder, environment and signals.

    It is in a group of its own, since it gets the signals of a terminal from its client.

    Args:
        job: which.
        server: the process with which this one ends.
        handlers: of signals, as they were when the server began.
    """
    failed = _libc.prctl(_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)
    if failed or os.getppid() != server:
        os._exit(1)
    os.setpgid(0, 0)
    for number, stream in enumerate(job.streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    tempfile.tempdir = None  # as TMPDIR says
    sys.argv = job.argv
    _draw_anew()
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _draw_anew() -> None:
    """NumPy's generator, which it seeds when it is imported, is no copy; Python sees to its own."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
