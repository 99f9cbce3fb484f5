"""The families by name, each in the module that its row names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module

from jaxtyping import Float
from torch import Tensor, nn

from edadm.errors import EdadmError
from edadm.networks.family import Family
from edadm.networks.inputs import Rows
from edadm.networks.settings.families import FAMILIES as ENTRIES


@cache
def _family(name: str) -> Family:
    found: Family = import_module(ENTRIES[name].module).FAMILY
    return found


class _Families(Mapping[str, Family]):
    """Imports a family when it is asked for: one that attends to a context takes seconds."""

    def __getitem__(self, name: str) -> Family:
        return _family(name)

    def __iter__(self) -> Iterator[str]:
        return iter(ENTRIES)

    def __len__(self) -> int:
        return len(ENTRIES)


FAMILIES: Mapping[str, Family] = _Families()


def family_of(network: nn.Module) -> Family:
    """The family of a network: the one that built it, or the one that takes any network of its class.

    Raises:
        EdadmError: of no family.
    """
    if isinstance(name := getattr(network, "family", None), str):
        return FAMILIES[name]
    for family in map(_family, reversed(ENTRIES)):
        if family.takes(network):
            return family
    raise EdadmError(
        f"a {type(network).__name__} is of no family that edadm knows; take one of {', '.join(FAMILIES)}"
    )


def network_call(network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
    """The prediction of a network of any family for rows of its inputs."""
    return family_of(network).call(network, rows)
