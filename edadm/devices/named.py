"""Where tensors can be on this machine."""

from __future__ import annotations

import torch

from edadm.errors import EdadmError


def device_named(name: torch.device | str) -> torch.device:
    """A device by name; a GPU with a number becomes the current one.

    Triton's kernels and captured graphs run on that.

    Args:
        name: cpu, cuda, cuda:1, ...; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        EdadmError: this machine has no such device, or it is there and takes no work, or it is one of Apple's
            GPUs.
    """
    if str(name).partition(":")[0] == "mps":
        raise EdadmError(
            "grids and distances take 64-bit numbers, which Apple's GPUs ('mps') do not have; use the device "
            "'cpu'"
        )
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device).item()  # `meta` has no numbers, a GPU that is taken says so here
    except (RuntimeError, AssertionError, ImportError) as error:  # torch says each in its own way
        there = _there()
        if str(wanted) in {*there, *(known.partition(":")[0] for known in there)}:
            raise EdadmError(
                f"the device '{wanted}' cannot be used: {str(error).strip().partition(chr(10))[0]}"
            ) from error
        raise EdadmError(f"this machine has no device '{name}'; it has {', '.join(there)}") from None
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def kind_of_device(device: torch.device) -> str:
    """What artifacts say of where they were computed: `cpu`, or the kind of GPU; not which one."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def _there() -> list[str]:
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
