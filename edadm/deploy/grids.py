"""The grids of a quantized network: the copy that has them, and scales and zero points as tensors by name."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Int8
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.networks.units.trace import network_sites
from edadm.networks.weights import CheckpointError
from edadm.nn.insert import quantize_network, quantized_layers, transformed_layers
from edadm.nn.quantizer import Quantizer
from edadm.nn.sound import float_flaws, grid_flaws
from edadm.quant.transforms import LARGEST_EXPONENT


def quantized_copy(unet: nn.Module, bits: Bits) -> nn.Module:
    """A quantizing copy of a float U-Net that shares its parameters until codes are folded into them."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in unet.parameters()}
    copied = copy.deepcopy(unet, shared)
    quantize_network(copied, bits, network_sites(copied))
    return copied


def quantizers(unet: nn.Module) -> dict[str, Quantizer]:
    """All quantizers of a network by name."""
    return {name: module for name, module in unet.named_modules() if isinstance(module, Quantizer)}


def smoothing(unet: nn.Module) -> dict[str, Int8[Tensor, " channels"]]:
    """The exponents of the factors of all smoothed layers, as `NAME.smooth`."""
    found = {f"{name}.smooth": layer.smoothing for name, layer in quantized_layers(unet).items()}
    return {name: exponents for name, exponents in found.items() if exponents is not None}


def _set_smoothing(unet: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts the factors of a file into the smoothed layers of a network.

    Raises:
        CheckpointError: they are missing, of another shape or type, or too large.
    """
    for name, layer in quantized_layers(unet).items():
        if layer.smooth is None:
            continue
        exponents = tensors.get(f"{name}.smooth")
        if exponents is None or exponents.shape != layer.smooth.shape or exponents.dtype != torch.int8:
            raise CheckpointError(
                f"the file lacks '{name}.smooth', {len(layer.smooth)} exponents in int8; "
                "it was made for other bits or another network"
            )
        if not bool((exponents.int().abs() <= LARGEST_EXPONENT).all()):
            raise CheckpointError(
                f"'{name}.smooth' has exponents beyond {LARGEST_EXPONENT}; make the file again"
            )
        layer.set_smoothing(exponents)


def transforms(unet: nn.Module) -> dict[str, Tensor]:
    """What `smoothing` says, and the branches of all layers that have one, as `NAME.down` and `NAME.up`."""
    found: dict[str, Tensor] = dict(smoothing(unet))
    for name, layer in transformed_layers(unet).items():
        if layer.down is not None and layer.up is not None:
            found |= {f"{name}.down": layer.down, f"{name}.up": layer.up}
    return found


def _set_transforms(unet: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Smooths and rotates the layers of a network, and gives them their branches, as a file says.

    Raises:
        CheckpointError: factors or a branch are missing, or fit no layer.
    """
    _set_smoothing(unet, tensors)
    for name, layer in transformed_layers(unet).items():
        layer.rotate()
        if not layer.has_branch:
            continue
        try:
            layer.set_branch(tensors[f"{name}.down"], tensors[f"{name}.up"])
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"the file has no branch that fits {name} ({error}); it was made for other bits or "
                "another network"
            ) from None
        factors = ((f"{name}.{factor}", tensors[f"{name}.{factor}"]) for factor in ("down", "up"))
        refuse(float_flaws(factors), "make the file again")


def grids(unet: nn.Module) -> dict[str, Tensor]:
    """Scales (fp32) and zero points (uint8) of all quantizers by name, and what `transforms` says.

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
    return tensors | transforms(unet)


def set_grids(unet: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts the grids of a file, and what `transforms` says, into a quantized U-Net that has no codes yet.

    Raises:
        CheckpointError: a grid is missing, of another shape, or none; likewise factors of a smoothed layer,
        and
            branches.
    """
    _set_transforms(unet, tensors)
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
