"""Files that are whole or absent, and work in progress that survives a kill."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edadm.errors import EdadmError


class BusyError(EdadmError):
    """Another process works on the same artifact."""


class DamagedError(EdadmError):
    """An artifact that cannot be read, or is another one than it should be."""


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` when the block ends well and removed when it does not.

    The file gets the permissions of any new one, whoever writes it: safetensors lets nobody else read what it writes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch()
    mode = partial.stat().st_mode
    try:
        yield partial
        partial.chmod(mode)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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


def writing_json(path: Path, content: Any) -> None:
    """Writes JSON, indented, keys in the order given."""
    with writing(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


def read_tensors(path: Path, stage: str, needed: Sequence[str] = (), device: Any = "cpu") -> dict[str, Any]:
    """The tensors of a safetensors artifact by name.

    Args:
        path: of the artifact.
        stage: the command that makes it, for whoever must make it again.
        needed: names that it must hold.
        device: where to put the tensors.

    Raises:
        DamagedError: damaged, absent, or without one of the needed tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Any] = load_file(path, device=str(device))
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path} cannot be read ({error}); remove it, and make it again with `edadm {stage}`") from None
    if missing := [name for name in needed if name not in tensors]:
        raise DamagedError(f"{path} has no tensor '{missing[0]}', so it is not from `edadm {stage}`; name the file that is")
    return tensors
