"""Locks that are waited for; each dies with its process."""

from __future__ import annotations

import errno
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from edadm.artifacts.failures import placing
from edadm.console import say

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PAUSE = 0.2  # seconds between two looks at a lock
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN}
_told: set[Path] = set()


@contextmanager
def locked(path: Path, what: str) -> Iterator[IO[str]]:
    """The lock file, open for reading and writing, while no other process has it.

    Whoever has it is waited for, with one line that says so. Where the file system has no locks (ENOSYS,
    ENOLCK, EOPNOTSUPP), one line says that, and the work goes on without.

    Args:
        path: of the lock file; made if absent.
        what: what the lock is for, to be named in the line.

    Raises:
        PlaceError: there can be no such file.
    """
    told = False
    while True:
        file = opened(path)
        held = attempt(file)
        if held is None and path.parent not in _told:
            _told.add(path.parent)
            say(f"{path.parent} has no file locks; do not start the same stage twice there")
        if held is not False and _is_at(file, path):
            break
        if held is False and not told:
            say(f"waiting for {file.read().strip() or 'another process'}, which is making {what}")
            told = True
        file.close()
        time.sleep(PAUSE)
    try:
        yield file
    finally:
        file.close()


def attempt(file: IO[Any]) -> bool | None:
    """Takes the lock of an open file.

    True if it was free, false if another process has it, None on a file system without locks.
    """
    if fcntl is None:
        return None
    for take, busy in ((fcntl.flock, _BUSY), (fcntl.lockf, _BUSY | {errno.EACCES})):
        try:
            take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in busy:
                return False
        else:
            return True
    return None


@contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Holds a lock that exists and that nobody has; where locks do not work it counts as taken."""
    try:
        file = open(path, "r+")  # noqa: SIM115 - closed below
    except OSError:
        yield False
        return
    with file:
        yield attempt(file) is True and _is_at(file, path)


def rewrite(file: IO[str], text: str) -> None:
    """Puts a short text into an open lock file, instead of what was there.

    It is cut to its length afterwards, so that a full disk takes nothing from it; and nothing waits in a
    buffer, which closing the file would try to write once more.
    """
    content = text.encode()
    with placing(Path(file.name)):
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        os.write(file.fileno(), content)
        os.ftruncate(file.fileno(), len(content))


def holder() -> str:
    """This process, for others who wait for it."""
    return f"process {os.getpid()} on {platform.node()} (since {time.strftime('%Y-%m-%d %H:%M')})"


def opened(path: Path) -> IO[str]:
    """A lock file, made if absent, open for reading and writing from its beginning.

    Raises:
        PlaceError: there can be no such file.
    """
    with placing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "r+", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at the path: the process before may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False
