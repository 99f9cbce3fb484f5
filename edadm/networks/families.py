"""The families by name: a file and a row each."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from edadm.errors import EdadmError
from edadm.networks.family import Family
from edadm.networks.inputs import Rows
from edadm.networks.unet.conditional import Conditional
from edadm.networks.unet.ddim import Ddim
from edadm.networks.unet.diffusers import DiffusersUNets
from edadm.networks.unet.ldm import Ldm
from edadm.networks.unet.sdxl import Sdxl

_FAMILIES: tuple[Family, ...] = (Ddim(), Ldm(), Conditional(), DiffusersUNets(), Sdxl())
FAMILIES = {family.name: family for family in _FAMILIES}


def family_of(network: nn.Module) -> Family:
    """The family of a network: the one that built it, or the one that takes any network of its class.

    Raises:
        EdadmError: of no family.
    """
    if isinstance(name := getattr(network, "family", None), str):
        return FAMILIES[name]
    for family in reversed(_FAMILIES):
        if family.takes(network):
            return family
    raise EdadmError(
        f"a {type(network).__name__} is of no family that edadm knows; take one of {', '.join(FAMILIES)}"
    )


def network_call(network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
    """The prediction of a network of any family for rows of its inputs."""
    return family_of(network).call(network, rows)
