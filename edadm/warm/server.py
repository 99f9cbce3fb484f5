"""The server: a process that imports what jobs need, computes nothing, and forks for each of them.

It is started by the workflow with a socket that listens already, and a pipe as its standard input, which ends
with Snakemake. Then no more jobs come, and the server ends with the last fork. A fork is ended when its
client is gone, whatever ended that, and when the server is. The server touches no CUDA and starts no thread
before it forks; should that have happened all the same, it refuses.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edadm.warm.alike import likeness
from edadm.warm.client import ENDED, LENGTH, PASSED_ON, REFUSED, STARTED, STATUS, peer
from edadm.warm.fork import Job, take_place

# What is imported before the first job, and then while nobody asks for one. A job imports itself what is not
# here, or cannot be imported.
FIRST = (
    "edadm.commands.calibration",
    "edadm.commands.images",
    "edadm.commands.quantization",
    "edadm.devices.named",
    "edadm.networks.convert",
    "edadm.config.load",
    "edadm.sampling.collect",
    "edadm.sampling.trajectory",
)
LATER = (
    "edadm.calibration.select",
    "edadm.calibration.conditions",
    "edadm.deploy.checkpoint",
    "edadm.learning.task",
    "edadm.passes.methods",
    "edadm.passes.prepare",
    "edadm.sampling.generate",
    "edadm.deploy.backends.simulated",
    "edadm.deploy.backends.onednn",
    "edadm.metrics.evaluate",
    "edadm.metrics.scores.paired",
    "scipy.linalg",
    "edadm.commands.timing",
    "edadm.benchmark.cpu",
    "edadm.commands.files",
    "edadm.report.page",
)
ON_GPUS = ("triton",)
DRIVER = "/dev/nvidiactl"  # where there are GPUs
OF_JOBS = (*PASSED_ON, signal.SIGTSTP)  # the server does not heed these
PATIENCE = 10.0  # seconds in which a client says what it wants


class Server:
    """A server of one run of the workflow.

    Args:
        listener: a socket that listens.
        folder: private; holds the socket, and for each client a link from its process to its fork.
    """

    def __init__(self, listener: socket.socket, folder: Path):
        self.own = likeness()
        self.process = os.getpid()
        self.listener, self.folder = listener, folder
        self.clients: dict[int, socket.socket] = {}  # by fork
        self.handlers: dict[int, Any] = {
            number: signal.getsignal(number) for number in (*OF_JOBS, signal.SIGCHLD)
        }
        self.selector = selectors.DefaultSelector()
        self.waker, self.woken = socket.socketpair()
        self.job: Job | None = None  # in a fork

    def serve(self) -> Job | None:
        """Forks until Snakemake is gone and all forks have ended; a fork returns with its job."""
        self._mind_signals()
        import_module("edadm.deferred").defer()
        import_module("edadm.devices.freed").use_huge_pages()
        with asking_no_gpu():
            for name in FIRST:
                _import(name)
        gc.collect()
        gc.freeze()  # of which forks would otherwise have copies
        waiting = [*LATER, *(ON_GPUS if os.path.exists(DRIVER) else ())]
        self._listen(0, self._end_of_run)
        self._listen(self.listener, self._accept)
        self._listen(self.woken, self._reap)
        while self.listener.fileno() >= 0 or self.clients:
            ready = self.selector.select(0 if waiting else None)
            if not ready and waiting:
                with asking_no_gpu():
                    _import(waiting.pop(0))
            for key, _ in ready:
                key.data()
                if self.job:
                    return self.job
        return None

    def _listen(self, file: Any, act: Callable[[], None]) -> None:
        self.selector.register(file, selectors.EVENT_READ, act)

    def _mind_signals(self) -> None:
        """Those of a terminal are for jobs; a fork that ends wakes the server."""
        for number in OF_JOBS:
            signal.signal(number, signal.SIG_IGN)
        self.waker.setblocking(False)
        signal.set_wakeup_fd(self.waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _end_of_run(self) -> None:
        """Nobody writes to the pipe, so what can be read is its end."""
        for file in (0, self.listener):
            self.selector.unregister(file)
        self.listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:  # it is closed, or who asked is gone
            return
        connection.settimeout(PATIENCE)
        streams: list[int] = []
        try:
            if peer(connection)[1] == os.geteuid():
                head, streams, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
                request = json.loads(_received(connection, LENGTH.unpack(head)[0]))
                if request.pop("likeness") == self.own and len(streams) == 3 and _is_fit():
                    self._fork(connection, Job(**request, streams=streams))
                    return
            connection.sendall(REFUSED)
            connection.close()
        except (OSError, ValueError, LookupError, TypeError, struct.error):  # it ended, or is no client
            connection.close()
        finally:
            if self.job is None:
                for stream in streams:
                    os.close(stream)

    def _fork(self, connection: socket.socket, job: Job) -> None:
        client = peer(connection)[0]
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, self.handlers)  # until a fork can have them
        try:
            process = os.fork()
            if process == 0:
                self.job = job
                own = (self.listener, self.selector, self.waker, self.woken, *self.clients.values())
                take_place(job, self.process, self.handlers, (*own, connection))
                return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        self.clients[process] = connection
        self._listen(connection, partial(self._hear, process, connection))
        with suppress(OSError):
            (self.folder / str(client)).symlink_to(str(process))
            connection.sendall(STARTED)

    def _hear(self, process: int, connection: socket.socket) -> None:
        """A client passes a signal on, or is gone."""
        if process not in self.clients:
            return  # and so is the fork
        try:
            heard = connection.recv(64)
        except OSError:
            heard = b""
        for number in heard or bytes([signal.SIGKILL]):
            os.kill(process, number)  # which has not been waited for
        if not heard:
            self.selector.unregister(connection)

    def _reap(self) -> None:
        self.woken.recv(4096)
        for process, connection in list(self.clients.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended:
                continue
            del self.clients[process]
            with suppress(OSError):
                (self.folder / str(peer(connection)[0])).unlink()
                connection.sendall(ENDED + STATUS.pack(os.waitstatus_to_exitcode(status)))
            with suppress(KeyError):
                self.selector.unregister(connection)
            connection.close()


def _received(connection: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionError
        parts += part
    return parts


def _is_fit() -> bool:
    """Whether a fork can compute: there is one thread, and nothing that was imported has asked for GPUs."""
    if len(os.listdir("/proc/self/task")) > 1:
        return False
    torch = sys.modules.get("torch")
    if torch is None or not os.path.exists(DRIVER):
        return True
    probe = os.fork()
    if probe == 0:
        os._exit(torch.cuda._is_in_bad_fork())
    return os.waitpid(probe, 0)[1] == 0


@contextmanager
def asking_no_gpu() -> Iterator[None]:
    """Where there are GPUs, torch says so without asking the driver, which would start a thread for it.

    diffusers asks when it is imported (0.42, `utils/torch_utils.py`).
    """
    from torch import cuda

    asked = cuda.is_available
    cuda.is_available = lambda: cuda._is_compiled() and os.path.exists(DRIVER)
    try:
        yield
    finally:
        cuda.is_available = asked


def _import(name: str) -> None:
    with suppress(Exception):  # of which a job has words
        import_module(name)


def main() -> None:
    """Serves, and does in a fork what `python -m edadm` does."""
    folder = Path(sys.argv[2])
    job = Server(socket.socket(fileno=int(sys.argv[1])), folder).serve()
    if job is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    spec = find_spec("edadm.__main__")
    vars(sys.modules["__main__"]).update(__package__="edadm", __spec__=spec, __file__=sys.argv[0])
    import_module("edadm.cli").main()


if __name__ == "__main__":
    main()
