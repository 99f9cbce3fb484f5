"""What transformers of patches are made of: the block that is learned at once, and what its norms feed."""

from __future__ import annotations

from collections.abc import Iterator

from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from edadm.networks.family import Coupling, UnitKind
from edadm.networks.settings.unit_names import ADAPTIVE_BLOCK

KINDS = (
    UnitKind(
        "transformer",
        BasicTransformerBlock,
        registered=ADAPTIVE_BLOCK,
        executed=ADAPTIVE_BLOCK,
        channel_axis=-1,
    ),
)


def couplings_of(network: nn.Module) -> Iterator[Coupling]:
    """The norms of adaLN-zero blocks, none with a gain of its own, and the layers that each feeds."""
    for name, module in network.named_modules():
        if isinstance(module, BasicTransformerBlock):
            projections = tuple(f"{name}.attn1.{part}" for part in ("to_q", "to_k", "to_v"))
            yield Coupling(f"{name}.norm1.norm", projections, is_linear=False)
            yield Coupling(f"{name}.norm3", (f"{name}.ff.net.0.proj",), is_linear=False)
