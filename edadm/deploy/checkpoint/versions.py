"""What the formats of checkpoints that are read differ in.

Format 1 had a scale and a zero point under each quantizer's name, and no digest; 2 has grids together, and
tables of bits; 3 has schemes in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from edadm.config.schema import Bits
from edadm.deploy.checkpoint.header import Facts, digest
from edadm.deploy.grid_packing import expand
from edadm.networks.units.site import Site
from edadm.nn.quantizer import Quantizer
from edadm.quant.policy import policy
from edadm.quant.scheme import SiteScheme, from_table

_TRANSFORMS = (".smooth", ".down", ".up")


def schemes_in(facts: Facts, sites: Sequence[Site]) -> Mapping[str, SiteScheme]:
    """The schemes of a file's network by site; before format 3 the `bits` preset alone told them.

    Raises:
        KeyError: the facts lack them.
        EdadmError: they are none.
    """
    if facts["format_version"] < 3:
        return policy(sites, Bits.model_validate(facts["bits"]))
    return from_table(facts)


def grids_in(
    facts: Facts, tensors: Mapping[str, Tensor], quantizers: Mapping[str, Quantizer]
) -> Mapping[str, Tensor]:
    """The scales and zero points in a file's tensors, by name of the quantizer, and what `transforms` says.

    Raises as `expand` does.
    """
    if facts["format_version"] < 2:
        return tensors
    transforms = {name: tensor for name, tensor in tensors.items() if name.endswith(_TRANSFORMS)}
    return expand(tensors, quantizers) | transforms


def is_damaged(facts: Facts, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file's content has another digest than its header says; format 1 says none."""
    return facts["format_version"] > 1 and digest(tensors, facts) != facts.get("sha256")
