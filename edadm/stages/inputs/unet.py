"""The U-Net that a file holds, of full precision or quantized."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_unet(architecture: Any, weights: Path, device: Any) -> Any:
    """A float or a quantized U-Net, whichever the file holds; a quantized one is simulated."""
    from edadm.deploy.checkpoint import is_quantized, load_quantized
    from edadm.networks.load import load_unet

    if is_quantized(weights):
        return load_quantized(weights, device)
    return load_unet(architecture, weights, device)
