"""Command lines in children of this process, which has imported all they need: one that dies at a chosen moment, one with limits."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edadm import cli

CHANGES = (
    "open",
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
)  # audit events
PATIENCE = 300  # seconds
Preparation = Callable[[], object]


@dataclass
class Child:
    """A child, and where what it says comes out."""

    process: int
    said: IO[str]

    def wait(self) -> tuple[int, str]:
        """Its exit status, that of a signal as a negative number, and what it said."""
        with self.said:
            text = self.said.read()
        _, status = os.waitpid(self.process, 0)
        return os.waitstatus_to_exitcode(status), text

    def until_stopped(self) -> None:
        """Waits until it has stopped itself."""
        _, status = os.waitpid(self.process, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it ended before it stopped"


def start(
    argv: Sequence[str], folder: Path, *preparations: Preparation, modules: Path | None = None
) -> Child:
    """A child that runs a command line in a folder, after some preparations; it leaves the names of the modules it imported."""
    readable, writable = os.pipe()  # for which no limit of files counts
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        os.close(writable)
        return Child(process, open(readable, errors="replace"))
    status = 70  # of a child that ended some other way
    try:
        signal.alarm(PATIENCE)
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.default_int_handler if name == signal.SIGINT else signal.SIG_DFL)
        os.dup2(writable, 1)
        os.dup2(writable, 2)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
        os.chdir(folder)
        for preparation in preparations:
            preparation()
        sys.argv = list(argv)
        status = exit_status(cli.main)
        if modules is not None:
            modules.write_text("\n".join(sys.modules))
    finally:
        os._exit(status)


def exit_status(main: Callable[[], None]) -> int:
    """The exit status that Python would give; a traceback is printed as by Python."""
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def run(
    argv: Sequence[str], folder: Path, *preparations: Preparation, modules: Path | None = None
) -> tuple[int, str]:
    """The exit status of a command line, and what it said."""
    return start(argv, folder, *preparations, modules=modules).wait()


def at_change(number: int, act: Callable[[], object]) -> Preparation:
    """Acts just before the command changes or opens the n-th file below its folder, counted from 1."""

    def prepare() -> None:
        counted = count_changes(lambda count: act() if count == number else None)
        assert counted is not None

    return prepare


def count_changes(on_change: Callable[[int], object]) -> list[int]:
    """Tells of each change below the folder; the list holds how many there were."""
    here, seen = os.getcwd(), [0]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in CHANGES:
            return
        path = arguments[0]
        if isinstance(path, str | bytes | os.PathLike) and _below(os.fsdecode(path), here):
            seen[0] += 1
            on_change(seen[0])

    sys.addaudithook(hook)
    return seen


def _below(path: str, folder: str) -> bool:
    return not os.path.isabs(path) or path.startswith(folder + os.sep)


def die(name: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """An act: a signal to oneself."""
    return lambda: os.kill(os.getpid(), name)
