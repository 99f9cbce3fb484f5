"""Limits of each memory tier: how much is kept there, which tables go where, and when it is too little."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from edadm.errors import EdadmError
from edadm.offload.demand import Demand
from edadm.offload.free_memory import free_gpu_bytes, free_host_bytes, own_gpu_bytes

Tier = Literal["device", "host", "disk"]
TIERS: tuple[Tier, ...] = ("device", "host", "disk")
GIB = 2**30
UNLIMITED = sys.maxsize
MARGIN = 0.1  # share of free memory that is left alone


@dataclass(frozen=True)
class Limits:
    """Limits of the bytes that each memory tier keeps.

    Attributes:
        device: on the device, beside networks and the batch that is computed with.
        host: in host memory.
        scratch: folder for the page files that take the rest; None forbids them.
    """

    device: int = UNLIMITED
    host: int = UNLIMITED
    scratch: Path | None = None

    def of(self, tier: Tier) -> int:
        """Bytes that a tier takes; the disk says itself when it is full."""
        if tier == "disk":
            return 0 if self.scratch is None else UNLIMITED
        return self.device if tier == "device" else self.host


@dataclass(frozen=True)
class Budget:
    """The memory budget that a user grants; where it is None, free memory decides.

    Attributes:
        device: bytes on the device.
        host: bytes of host memory.
        scratch: folder for page files.
    """

    device: int | None = None
    host: int | None = None
    scratch: Path | None = None

    @classmethod
    def in_gib(cls, device: float | None, host: float | None, scratch: Path | None) -> Budget:
        """The budget of so many GiB."""
        near = None if device is None else int(device * GIB)
        far = None if host is None else int(host * GIB)
        return cls(near, far, scratch)


def resolved(budget: Budget, device: torch.device, needed: Demand, work: int) -> Limits:
    """The limits that follow from a budget; where it grants nothing, free memory less a margin and the work.

    On a CPU, device memory is host memory: an automatic limit of it takes all, and none is left for the
    other; what is granted to it is not free for the other any more.

    Args:
        budget: what the user grants.
        device: where the networks are already.
        needed: what is going to be kept.
        work: bytes that computing takes on the device beside what is kept.

    Raises:
        EdadmError: a GPU is to keep more than it has free, and there is so much to keep.
    """
    on_gpu = device.type == "cuda"
    host = budget.host
    if host is None:
        host = _spared(free_host_bytes(), 0 if on_gpu else work)
    if on_gpu:
        return Limits(_of_gpu(budget, device, needed, work), host, budget.scratch)
    if budget.device is None:
        return Limits(host, 0, budget.scratch)
    shared = budget.device if budget.host is None else 0
    return Limits(budget.device, max(0, host - shared), budget.scratch)


def _of_gpu(budget: Budget, device: torch.device, needed: Demand, work: int) -> int:
    """The limit of a GPU's device memory."""
    if budget.device is None:
        return _spared(own_gpu_bytes(device), work)
    free = free_gpu_bytes(device)
    if min(budget.device, needed.of_peak()) > free:
        raise EdadmError(
            f"memory.device asks for {budget.device / GIB:g} GiB on {device}, which has {free / GIB:.3g} GiB "
            "free; lower it, or leave it out for as much as there is room for"
        )
    return budget.device


def _spared(free: int, work: int) -> int:
    return max(0, int((1 - MARGIN) * free) - work)


def placed(sizes: Mapping[str, int], limits: Limits) -> dict[str, Tier]:
    """The memory tier of each table: largest first, the fastest tier that has room beside those before."""
    left = {tier: limits.of(tier) for tier in TIERS}
    places: dict[str, Tier] = {}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        tier: Tier = next((tier for tier in TIERS if size <= left[tier]), "disk")
        places[name] = tier
        left[tier] -= size
    return places


def on_disk(needed: Demand, limits: Limits) -> int:
    """Most bytes that page files hold at once."""
    most = 0
    for unit in needed.units:
        sizes = needed.table_sizes(unit)
        places = placed(sizes, limits)
        tables = {tier: sum(size for name, size in sizes.items() if places[name] == tier) for tier in TIERS}
        room = sum(limits.of(tier) - tables[tier] for tier in TIERS[:-1])
        most = max(most, tables["disk"] + max(0, needed.of_passes(unit) - room))
    return most


def refuse_too_little(needed: Demand, limits: Limits) -> None:
    """Limits that cannot hold the demand are refused before work starts.

    Raises:
        EdadmError: what is kept fits neither the device nor the host, and the disk has no room for the rest.
    """
    files = on_disk(needed, limits)
    if files == 0:
        return
    folder = limits.scratch
    free = 0 if folder is None else shutil.disk_usage(_existing(folder)).free
    if files > free:
        sizes = (needed.of_peak(), limits.device, limits.host, files, free)
        kept, device, host, rest, there = (f"{size / GIB:.3g} GiB" for size in sizes)
        raise EdadmError(
            f"reconstruction keeps {kept} at unit '{needed.peak().name}', of which {device} may stay on the "
            f"device and {host} in host memory; the disk would have to take {rest}, and "
            f"{folder or 'no folder'} has {there} free; make room there, raise memory.device or memory.host, "
            "or lower the calibration's size"
        )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
