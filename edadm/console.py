"""What a running stage tells the person watching it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SECONDS_BETWEEN_LINES = 10.0

_SIZES = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_TIMES = (("d", 86400), ("h", 3600), ("min", 60))
Advance = Callable[[int], None]


def say(sentence: str) -> None:
    """One line on standard error; work goes on where nobody is left to read it, or the log's disk is full."""
    try:
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()
    except OSError:
        with suppress(OSError):  # what waits to be written would fail again, and the process with it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


@contextmanager
def progress_bar(label: str, total: int, unit: str) -> Iterator[Advance]:
    """A bar with the time left on a terminal; in a log file, a line now and then. Yields `advance(steps)`."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total)
            yield lambda steps: bar.update(task, advance=steps)
        return
    lines = _Lines(label, total, unit)
    yield lines.advance
    lines.end()


class _Lines:
    """Progress as plain lines."""

    def __init__(self, label: str, total: int, unit: str):
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.begin = self.last = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_LINES:
            left = (now - self.begin) * (self.total - self.done) / self.done
            say(f"{self.label}: {self.done}/{self.total} {self.unit}, about {left:.0f} s left")
            self.last = now

    def end(self) -> None:
        say(f"{self.label}: {self.done}/{self.total} {self.unit} in {time.monotonic() - self.begin:.1f} s")


def gib(count: int) -> str:
    """Memory in binary units, e.g. 1.5 GiB; nothing for none."""
    return f"{count / 2**30:.1f} GiB" if count else ""


def size(count: int | float) -> str:
    """Bytes in decimal units, e.g. 18.1 MB."""
    unit, factor = next(((unit, factor) for unit, factor in _SIZES if count >= factor), ("B", 1))
    return f"{count / factor:.3g} {unit}" if count < 1000 * factor else f"{count / factor:,.0f} {unit}"


def duration(count: int | float) -> str:
    """Seconds in the unit that suits them, e.g. 2.4 h."""
    unit, factor = next(((unit, factor) for unit, factor in _TIMES if count >= factor), ("s", 1))
    return f"{count / factor:.3g} {unit}"
