"""From simulated to integer arithmetic, by the route of the device on which the network is."""

from __future__ import annotations

import torch

from edadm.deploy.backends.cuda_int8 import lower_for_cuda
from edadm.deploy.backends.onednn import lower_for_cpu
from edadm.errors import EdadmError
from edadm.networks.unet.base import UNet


def lower(unet: UNet, dtype: torch.dtype = torch.float32) -> UNet:
    """A copy of a quantized U-Net that computes with integers.

    See `edadm.deploy.backends.onednn` and `edadm.deploy.backends.cuda_int8` for which layers do.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`, on the device where it is to run.
        dtype: of what stays in floating point.

    Raises:
        EdadmError: a device, or on a CPU a type, without integer kernels.
    """
    kind = next(unet.parameters()).device.type
    if kind == "cuda":
        return lower_for_cuda(unet, dtype)
    if kind != "cpu":
        raise EdadmError(
            f"there is no integer arithmetic for the device '{kind}'; load with 'cpu' or 'cuda', or with backend 'simulated'"
        )
    if dtype != torch.float32:
        raise EdadmError(
            f"between layers of integers there is fp32 on a CPU; load with dtype torch.float32, not {dtype}"
        )
    return lower_for_cpu(unet)
