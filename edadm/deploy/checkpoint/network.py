"""The quantized network that a header describes, and what of it a file holds as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from edadm.networks.build import build_network
from edadm.networks.family import Network
from edadm.networks.settings.architecture import Architecture
from edadm.networks.units.site import Site
from edadm.networks.units.trace import network_sites
from edadm.nn.insert import insert_quantizers, site_schemes
from edadm.nn.layers import QuantizedLayer
from edadm.quant.scheme import SchemeError, SiteScheme


def described(
    architecture: Architecture, schemes_of: Callable[[Sequence[Site]], Mapping[str, SiteScheme]]
) -> Network:
    """A quantized network without memory.

    Args:
        architecture: of the float network.
        schemes_of: from its sites to the schemes of those that are quantized, by name.

    Raises:
        EdadmError: as `insert_quantizers`; a scheme is for no site, or for one that is not quantized alone.
    """
    with torch.device("meta"):
        network = build_network(architecture)
        sites = network_sites(network)
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
