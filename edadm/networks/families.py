"""The families by name, each in the module that its row names."""

from __future__ import annotations

from importlib import import_module

from jaxtyping import Float
from torch import Tensor, nn

from edadm.errors import EdadmError
from edadm.networks.family import Family
from edadm.networks.inputs import Rows
from edadm.networks.settings.families import FAMILIES as ENTRIES

FAMILIES: dict[str, Family] = {name: import_module(entry.module).FAMILY for name, entry in ENTRIES.items()}


def family_of(network: nn.Module) -> Family:
    """The family of a network: the one that built it, or the one that takes any network of its class.

    Raises:
        EdadmError: of no family.
    """
    if isinstance(name := getattr(network, "family", None), str):
        return FAMILIES[name]
    for family in reversed(FAMILIES.values()):
        if family.takes(network):
            return family
    raise EdadmError(
        f"a {type(network).__name__} is of no family that edadm knows; take one of {', '.join(FAMILIES)}"
    )


def network_call(network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
    """The prediction of a network of any family for rows of its inputs."""
    return family_of(network).call(network, rows)
