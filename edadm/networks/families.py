"""The families by name: a file and a row each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache

from jaxtyping import Float
from torch import Tensor, nn

from edadm.errors import EdadmError
from edadm.networks.family import Family
from edadm.networks.inputs import Rows


def _ddim() -> Family:
    from edadm.networks.unet.ddim import Ddim

    return Ddim()


def _ldm() -> Family:
    from edadm.networks.unet.ldm import Ldm

    return Ldm()


def _conditional() -> Family:
    from edadm.networks.unet.conditional import Conditional

    return Conditional()


def _diffusers() -> Family:
    from edadm.networks.unet.diffusers import DiffusersUNets

    return DiffusersUNets()


_ROWS: Mapping[str, Callable[[], Family]] = {
    "ddim": _ddim,
    "ldm": _ldm,
    "transformer": _conditional,
    "diffusers": _diffusers,
}


@cache
def _family(name: str) -> Family:
    return _ROWS[name]()


class _Families(Mapping[str, Family]):
    """Imports a family when it is asked for: one that attends to a context takes seconds."""

    def __getitem__(self, name: str) -> Family:
        return _family(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_ROWS)

    def __len__(self) -> int:
        return len(_ROWS)


FAMILIES: Mapping[str, Family] = _Families()


def family_of(network: nn.Module) -> Family:
    """The family of a network: the one that built it, or the one that takes any network of its class.

    Raises:
        EdadmError: of no family.
    """
    if isinstance(name := getattr(network, "family", None), str):
        return FAMILIES[name]
    for family in map(_family, reversed(list(_ROWS))):
        if isinstance(network, family.classes):
            return family
    raise EdadmError(
        f"a {type(network).__name__} is of no family that edadm knows; take one of {', '.join(FAMILIES)}"
    )


def network_call(network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
    """The prediction of a network of any family for rows of its inputs."""
    return family_of(network).call(network, rows)
