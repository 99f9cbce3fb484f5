"""Work in progress that survives a kill."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edadm.artifacts.errors import BusyError
from edadm.artifacts.whole import writing


@contextmanager
def holding(folder: Path) -> Iterator[Path]:
    """The folder where a stage keeps finished pieces, held by one process at a time.

    It outlives a killed process, so that the next one finds the pieces and goes on; the lock dies with its process.
    Snakemake deletes declared outputs before it reruns a job, so the folder must not be one. Call `finished` when the
    artifact is complete.

    Raises:
        BusyError: a living process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusyError(f"another process is still writing {folder}; wait for it to end, or kill it, and start again") from None
        yield folder


def finished(folder: Path) -> None:
    """Removes the pieces of a stage whose artifact is complete."""
    shutil.rmtree(folder, ignore_errors=True)


def same_work(folder: Path, description: str) -> None:
    """Empties a progress folder whose pieces were made under another description (settings, inputs, code)."""
    note = folder / "description.txt"
    if note.exists() and note.read_text() == description:
        return
    for entry in folder.iterdir():
        if entry.name != ".lock":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    with writing(note) as partial:
        partial.write_text(description)
