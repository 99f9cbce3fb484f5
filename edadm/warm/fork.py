"""A fork of the server becomes what its client would have been."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
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


def take_place(job: Job, server: int, handlers: Mapping[int, Any], files: Sequence[Any]) -> None:
    """Takes the place of a job's own process, or ends.

    Args:
        job: which.
        server: the process with which this one ends.
        handlers: of signals, as they were when the server began.
        files: the server's, which are closed.
    """
    try:
        failed = _libc.prctl(_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)
        if failed or os.getppid() != server:
            os._exit(1)
        os.setpgid(0, 0)  # it gets the signals of a terminal from its client
        for file in files:
            file.close()
        _settle(job)
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _settle(job: Job) -> None:
    """Streams, folder, environment and arguments are the job's."""
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


def _draw_anew() -> None:
    """NumPy's generator, which it seeds when it is imported, is no copy; Python sees to its own."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
