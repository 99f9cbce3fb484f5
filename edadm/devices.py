"""Where tensors can be on this machine."""

from __future__ import annotations

import torch

from edadm.errors import EdadmError


def device_named(name: torch.device | str) -> torch.device:
    """A device by name.

    Args:
        name: cpu, cuda, cuda:1, ...; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        EdadmError: this machine has no such device.
    """
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # torch says each in its own way
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise EdadmError(f"this machine has no device '{name}'; it has {', '.join(there)}") from None
    return device
