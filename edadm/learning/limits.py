"""How much memory reconstruction may keep, and whether that is enough, before any work starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import nn

from edadm.config.schema import Memory as MemorySettings
from edadm.config.schema import Reconstruction
from edadm.errors import EdadmError
from edadm.learning.demand import Demand
from edadm.nn.insert import quantized_layers
from edadm.offload.cache import placed
from edadm.offload.storage import GIB, TIERS, UNLIMITED, Limits

MARGIN = 0.1  # share of free memory that is left alone
FOLDED_BYTES = 5  # of a weight whose rounding is decided: its value beside the float one, and its code


def free_host_bytes(root: Path = Path("/")) -> int:
    """Host memory that can be taken now: what the system can spare, and no more than the control groups of this process allow.

    Args:
        root: where `proc` and `sys` are.
    """
    proc = root / "proc"
    if not (proc / "meminfo").is_file():  # no Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    free = _number(proc / "meminfo", "MemAvailable:") * 1024
    own = proc / "self/cgroup"
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controller, path = line.split(":", 2)
        if files := _GROUP_FILES.get(controller):
            mount = root / "sys/fs/cgroup" / controller
            group = mount / path.lstrip("/")
            free = min(
                free,
                *(
                    _allowed(folder, *files)
                    for folder in (group, *group.parents)
                    if folder.is_relative_to(mount)
                ),
            )
    return free


# By controller, of control groups version 2 and 1: limit, use, and the part of the use that the system takes
# back when it must.
_GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def _allowed(group: Path, limit: str, use: str, spare: str) -> int:
    """Bytes that a control group may still take."""
    if not all((group / name).is_file() for name in (limit, use, "memory.stat")):
        return UNLIMITED
    allowed = (group / limit).read_text().strip()
    taken = int((group / use).read_text()) - _number(group / "memory.stat", spare)
    return max(0, int(allowed) - taken) if allowed.isdigit() else UNLIMITED


def _number(file: Path, name: str) -> int:
    """The number behind a name in a file with a line per name."""
    return next(int(words[1]) for line in file.read_text().splitlines() if (words := line.split())[0] == name)


def resolved(
    wanted: MemorySettings,
    device: torch.device,
    needed: Demand,
    unet: nn.Module,
    settings: Reconstruction,
    scratch: Path | None,
) -> Limits:
    """Limits in bytes. Where none is wanted, it is the memory that is free now, less a margin and what the work itself needs.

    On a CPU, device memory is host memory: an automatic limit of it takes all, and none is left for the
    other; what is wanted for it is
    not free for the other any more.

    Args:
        wanted: from the configuration.
        device: where the networks are already.
        needed: by this reconstruction.
        unet: the quantized network, its weights still shared with the float one.
        settings: decide how much one batch or step takes.
        scratch: folder for files.

    Raises:
        EdadmError: a GPU is to keep more than it has free, and there is so much to keep.
    """
    weights = sum(layer.weight.numel() for layer in quantized_layers(unet).values())
    work, on_gpu = FOLDED_BYTES * weights + needed.of_work(settings), device.type == "cuda"
    host = (
        _spared(free_host_bytes(), 0 if on_gpu else work) if wanted.host is None else int(wanted.host * GIB)
    )
    free = _free_gpu_bytes(device) if on_gpu else 0
    if wanted.device is not None:
        near = int(wanted.device * GIB)
        if on_gpu and min(near, needed.of_peak()) > free:
            raise EdadmError(
                f"memory.device asks for {wanted.device:g} GiB on {device}, which has {free / GIB:.3g} GiB free; lower it, or leave it out "
                "for as much as there is room for"
            )
        shared = 0 if on_gpu or wanted.host is not None else near
        return Limits(near, max(0, host - shared), scratch)
    if not on_gpu:
        return Limits(host, 0, scratch)
    return Limits(_spared(free, work), host, scratch)


def _free_gpu_bytes(device: torch.device) -> int:
    """What a GPU has left, and what this process holds there without using it."""
    return (
        torch.cuda.mem_get_info(device)[0]
        + torch.cuda.memory_reserved(device)
        - torch.cuda.memory_allocated(device)
    )


def _spared(free: int, work: int) -> int:
    return max(0, int((1 - MARGIN) * free) - work)


def on_disk(needed: Demand, limits: Limits) -> int:
    """Most bytes that are in files at once."""
    most = 0
    for unit in needed.units:
        sizes = {name: size * needed.rows for name, size in unit.tables(needed.networks).items()}
        places = placed(sizes, limits)
        tables = {tier: sum(size for name, size in sizes.items() if places[name] == tier) for tier in TIERS}
        room = sum(limits.of(tier) - tables[tier] for tier in TIERS[:-1])
        most = max(most, tables["disk"] + max(0, needed.of_passes(unit) - room))
    return most


def refuse_too_little(needed: Demand, limits: Limits) -> None:
    """Before work starts.

    Raises:
        EdadmError: what is kept fits neither the device nor the host, and the disk has no room for the rest.
    """
    files = on_disk(needed, limits)
    if files == 0:
        return
    folder = limits.scratch
    free = 0 if folder is None else shutil.disk_usage(_existing(folder)).free
    if files > free:
        kept, device, host, rest, there = (
            f"{size / GIB:.3g} GiB" for size in (needed.of_peak(), limits.device, limits.host, files, free)
        )
        raise EdadmError(
            f"reconstruction keeps {kept} at unit '{needed.peak().unit.name}', of which {device} may stay on the device and {host} in "
            f"host memory; the disk would have to take {rest}, and {folder or 'no folder'} has {there} free; make room there, raise "
            "memory.device or memory.host, or lower the calibration's size"
        )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
