"""Quantized networks that share a float network's parameters, or have no memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from edadm.config.schema import Bits
from edadm.networks.families import family_of
from edadm.networks.settings.architecture import UNetArchitecture
from edadm.networks.site import Site, sites_of
from edadm.networks.unet.base import UNet
from edadm.networks.unet.build import build_unet
from edadm.nn.insert import insert_quantizers, quantize_network, site_schemes
from edadm.nn.layers import QuantizedLayer
from edadm.nn.quantizer import Quantizer
from edadm.quant.scheme import SchemeError, SiteScheme


def quantized_copy(unet: nn.Module, bits: Bits) -> nn.Module:
    """A quantizing copy of a float U-Net that shares its parameters until codes are folded into them."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in unet.parameters()}
    copied = copy.deepcopy(unet, shared)
    quantize_network(copied, bits, sites_in(copied))
    return copied


def sites_in(network: nn.Module) -> Sequence[Site]:
    """The sites of a float network; no forward pass is needed for them."""
    return sites_of(network, family_of(network).concatenations(network))


def quantizers_of(unet: nn.Module) -> dict[str, Quantizer]:
    """All quantizers of a network by name."""
    return {name: module for name, module in unet.named_modules() if isinstance(module, Quantizer)}


def described(
    architecture: UNetArchitecture, schemes_of: Callable[[Sequence[Site]], Mapping[str, SiteScheme]]
) -> UNet:
    """A quantized network without memory.

    Args:
        architecture: of the float network.
        schemes_of: from its sites to the schemes of those that are quantized, by name.

    Raises:
        EdadmError: as `insert_quantizers`; a scheme is for no site, or for one that is not quantized alone.
    """
    with torch.device("meta"):
        network = build_unet(architecture)
        sites = sites_in(network)
        schemes = schemes_of(sites)
        insert_quantizers(network, sites, schemes)
    found = site_schemes(network)
    if other := sorted(name for name in {*found, *schemes} if found.get(name) != schemes.get(name)):
        raise SchemeError(f"{other[0]}: the network has no such site, or not with this scheme")
    return network


def unquantized_parameters(unet: nn.Module, layers: Mapping[str, QuantizedLayer]) -> dict[str, nn.Parameter]:
    """The parameters that a file holds as they are: biases, norms, layers left in floating point."""
    quantized = {f"{name}.weight" for name in layers}
    return {name: parameter for name, parameter in unet.named_parameters() if name not in quantized}
