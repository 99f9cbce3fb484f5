"""The grids of a quantized network: the copy that has them, and scales and zero points as tensors by name."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.networks.families import family_of
from edadm.networks.site import sites_of
from edadm.networks.weights import CheckpointError
from edadm.nn.insert import quantize_network
from edadm.nn.quantizer import Quantizer
from edadm.nn.sound import grid_flaws


def quantized_copy(unet: nn.Module, bits: Bits) -> nn.Module:
    """A quantizing copy of a float U-Net that shares its parameters until codes are folded into them."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in unet.parameters()}
    copied = copy.deepcopy(unet, shared)
    quantize_network(copied, bits, sites_of(copied, family_of(copied).concatenations(copied)))
    return copied


def quantizers(unet: nn.Module) -> dict[str, Quantizer]:
    """All quantizers of a network by name."""
    return {name: module for name, module in unet.named_modules() if isinstance(module, Quantizer)}


def grids(unet: nn.Module) -> dict[str, Tensor]:
    """Scales (fp32) and zero points (uint8) of all quantizers by name.

    Raises:
        EdadmError: a grid is none.
    """
    refuse(
        grid_flaws(unet),
        "nothing was written; look for numbers that are not finite in the weights and the calibration rows",
    )
    tensors = {}
    for name, quantizer in quantizers(unet).items():
        tensors[f"{name}.scale"] = quantizer.scale.float().contiguous()
        tensors[f"{name}.zero_point"] = quantizer.zero_point.to(torch.uint8).contiguous()
    return tensors


def set_grids(unet: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts the grids of a file into a quantized U-Net.

    Raises:
        CheckpointError: a grid is missing, of another shape, or none.
    """
    for name, quantizer in quantizers(unet).items():
        try:
            quantizer.set_grid(tensors[f"{name}.scale"], tensors[f"{name}.zero_point"].float())
        except KeyError as error:
            raise CheckpointError(
                f"the file lacks the grid {error}; it was made for other bits or another network"
            ) from None
        except ValueError as error:
            raise CheckpointError(
                f"the grid of {name} does not fit ({error}); it was made for other bits or another network"
            ) from None
    refuse(grid_flaws(unet), "make the file again")


def refuse(flaws: Iterable[str], fix: str) -> None:
    """Refuses a network of which there is a flaw to tell.

    Raises:
        CheckpointError: names the first flaw, and the fix.
    """
    if flaw := next(iter(flaws), None):
        raise CheckpointError(f"{flaw}; {fix}")
