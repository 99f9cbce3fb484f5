"""Free memory of this machine: what a process can still take of host memory and of a GPU's."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from edadm.devices.lease import sharers

# Files of a control group by its controller, of version 2 and of version 1: limit, use, and the part of the
# use that the system takes back when it must.
_GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_host_bytes(root: Path = Path("/")) -> int:
    """Host memory that the system can spare, within the limits of this process' control groups.

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
            for folder in (group, *group.parents):
                if folder.is_relative_to(mount):
                    free = _at_most(free, folder, *files)
    return free


def free_gpu_bytes(device: torch.device) -> int:
    """Device memory that a GPU has left, unused bytes of this process' caching allocator included."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def own_gpu_bytes(device: torch.device) -> int:
    """Device memory that this process may still take where it leaves others theirs.

    What is free; of a GPU that several may share an equal part, whether the others are there yet or not.
    """
    free, count = free_gpu_bytes(device), sharers()
    if count == 1:
        return free
    part = torch.cuda.mem_get_info(device)[1] // count
    return max(0, min(free, part - torch.cuda.memory_allocated(device)))


def _at_most(free: int, group: Path, limit: str, use: str, spare: str) -> int:
    """Of free bytes those that a control group lets its processes take."""
    if not all((group / name).is_file() for name in (limit, use, "memory.stat")):
        return free
    allowed = (group / limit).read_text().strip()
    if not allowed.isdigit():
        return free
    taken = int((group / use).read_text()) - _number(group / "memory.stat", spare)
    return min(free, max(0, int(allowed) - taken))


def _number(file: Path, name: str) -> int:
    """The number that stands behind a name in a file with one name on each line."""
    words = (line.split() for line in file.read_text().splitlines())
    return next(int(number) for first, number, *_ in words if first == name)
