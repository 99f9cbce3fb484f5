"""From a network that simulates integers to one that computes with them."""

from __future__ import annotations

import torch

from edadm.deploy.cpu import lower_for_cpu
from edadm.errors import EdadmError
from edadm.models.unet import UNet


def lower(unet: UNet, dtype: torch.dtype) -> UNet:
    """A copy of a quantized U-Net that computes with integers on the device it is on.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`.
        dtype: of what lies between the layers; on a CPU fp32.

    Raises:
        EdadmError: no integer arithmetic for this device and dtype.
    """
    device = next(unet.parameters()).device.type
    if device != "cpu":
        raise EdadmError(f"there is no integer arithmetic for the device '{device}'; load with device 'cpu', or with backend 'simulated'")
    if dtype != torch.float32:
        raise EdadmError(f"between layers of integers there is fp32 on a CPU; load with dtype torch.float32, not {dtype}")
    return lower_for_cpu(unet)
