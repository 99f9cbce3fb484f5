"""A job's own process: it has a fork of the server do the work, and lives and ends with it.

Imports nothing but small modules of the standard library, since its start is what is to be short.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from typing import Any

from edadm.warm import SOCKET
from edadm.warm.alike import likeness

STARTED, REFUSED, ENDED = b"s", b"r", b"e"
LENGTH, STATUS = struct.Struct("!I"), struct.Struct("!i")
PEER = struct.Struct("3i")  # process, user, group
PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def served() -> bool:
    """Has the server run this command line, and ends as it ended; False where there is no server to do it.

    There is none that does where the server is gone, is another user's, imported code that has changed since,
    or was started in other surroundings (`likeness`). What it began and did not end, because it was killed,
    is begun again: its forks end with it.
    """
    handlers = {number: signal.getsignal(number) for number in (*PASSED_ON, signal.SIGTSTP)}
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.environ[SOCKET])
            if peer(connection)[1] != os.geteuid():
                return False
            _ask(connection)
            _pass_signals_on(connection, handlers)
            status = _outcome(connection)
    except OSError:
        return False
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if status is None:
        return False
    _end(status)
    return True


def peer(connection: socket.socket) -> tuple[int, ...]:
    """Process, user and group on the other side of a connection."""
    return PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))


def _ask(connection: socket.socket) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    request = {
        "likeness": likeness(),
        "argv": sys.argv,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
    }
    body = json.dumps(request).encode()
    socket.send_fds(connection, [LENGTH.pack(len(body))], [0, 1, 2])
    connection.sendall(body)


def _pass_signals_on(connection: socket.socket, handlers: dict[signal.Signals, Any]) -> None:
    def pass_on(number: int, frame: object) -> None:
        try:
            connection.sendall(bytes([number]))
        except OSError:  # the server is gone, and this process about to start by itself
            signal.signal(number, handlers[signal.Signals(number)])
            os.kill(os.getpid(), number)

    def stop(number: int, frame: object) -> None:
        connection.sendall(bytes([signal.SIGSTOP]))
        os.kill(os.getpid(), signal.SIGSTOP)
        connection.sendall(bytes([signal.SIGCONT]))

    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:  # as of a command behind `nohup`
            signal.signal(number, stop if number == signal.SIGTSTP else pass_on)


def _outcome(connection: socket.socket) -> int | None:
    """The exit status of the fork, a signal's as a negative number; None without one."""
    if connection.recv(1) != STARTED or connection.recv(1) != ENDED:
        return None
    return STATUS.unpack(connection.recv(STATUS.size, socket.MSG_WAITALL))[0]


def _end(status: int) -> None:
    """Ends this process as the fork ended."""
    if status < 0:
        import resource

        with_core = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, with_core[1]))  # the fork has left one
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status if status >= 0 else 128 - status)  # nothing waits to be written
