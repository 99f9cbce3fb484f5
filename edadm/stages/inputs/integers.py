"""The U-Net of a quantized checkpoint that computes with integers; a module of its own, since simulation does not depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edadm.errors import EdadmError


def open_integers(weights: Path, device: Any) -> Any:
    """A quantized U-Net that computes with integers.

    Raises:
        EdadmError: the weights are not quantized, or the device is no CPU.
    """
    from edadm.deploy.backends.base import lower
    from edadm.deploy.checkpoint import is_quantized, load_quantized

    if not is_quantized(weights):
        raise EdadmError(
            f"{weights} holds floating-point weights; integers need a quantized checkpoint, made by `edadm reconstruct`"
        )
    if device.type != "cpu":  # on a GPU attention's grids are dropped: another model
        raise EdadmError(
            "backend 'integer' generates on a CPU only; use --device cpu, or backend 'simulated'"
        )
    return lower(load_quantized(weights, device))
