"""What this machine found out about networks, and keeps for the next process: graphs and measurements.

It lies in a folder of the user, or where `EDADM_CACHE` says; all of it may be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edadm.nn.insert import quantized_layers
from edadm.version import __version__

PLACE = "EDADM_CACHE"
MOST_FOLDERS = 8  # of a kind; the one that was used longest ago goes first


def place() -> Path:
    """The folder in which things are kept, which need not be there."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(PLACE) or Path(home) / "edadm")


def digest_of(network: nn.Module, others: Iterable[Any]) -> str:
    """A digest of all that a quantized network computes with, and of other things by what they print."""
    folded = {f"{name}.weight" for name in quantized_layers(network)}  # the values of codes
    found = hashlib.sha256(repr([__version__, torch.__version__, *others]).encode())
    found.update(repr(sorted(getattr(network, "config", {}).items())).encode())
    found.update(repr(network).encode())  # bits of grids, geometry of layers
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if name not in folded:
            found.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]


def digest_of_text(text: str) -> str:
    """A digest of text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def folder_for(kind: str, digest: str, fill: Callable[[Path], None]) -> Path | None:
    """The kept folder of a digest, which `fill` fills if it is not there; None where nothing can be kept."""
    folder = place() / kind / digest
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():
            _make(folder, fill)
        os.utime(folder)
        _forget_old(folder.parent)
    except OSError:
        return None
    return folder


def _make(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fills a folder of another name and renames it; if another process was faster, its one stays."""
    partial = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        fill(partial)
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _forget_old(parent: Path) -> None:
    kept = [entry for entry in parent.iterdir() if not entry.name.startswith(".")]
    for old in sorted(kept, key=lambda entry: entry.stat().st_mtime)[:-MOST_FOLDERS]:
        shutil.rmtree(old, ignore_errors=True)


def remembered(kind: str, digest: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was found out before under a digest, else what `find` finds out now.

    Of two processes that do so at once, both are told what the first one found. A damaged note is replaced.
    """
    file = place() / kind / f"{digest}.json"
    if (known := _read(file)) is not None:
        return known
    found = find()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", prefix=".", dir=file.parent) as partial:
            partial.write(json.dumps(found, indent=1))
            partial.flush()
            try:
                os.link(partial.name, file)
            except FileExistsError:
                if (known := _read(file)) is not None:
                    return known
                file.unlink(missing_ok=True)
                os.link(partial.name, file)
    except OSError:
        pass  # it is found out again
    return found


def _read(file: Path) -> dict[str, Any] | None:
    """What a note says; None where there is none, or one that was cut or is of something else."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
