"""What transformers of patches have in common: how they are built, and their middle; and DiT's block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn

from edadm.networks.family import Coupling, UnitKind
from edadm.networks.settings.unit_names import ADAPTIVE_BLOCK

Built = TypeVar("Built", bound=nn.Module)

KINDS = (
    UnitKind(
        "transformer",
        BasicTransformerBlock,
        registered=ADAPTIVE_BLOCK,
        executed=ADAPTIVE_BLOCK,
        channel_axis=-1,
    ),
)


def as_built_here(network: Built, family: str) -> Built:
    """A transformer of diffusers whose positions are a parameter, so that files hold them.

    Attentions multiply explicitly, as in the quantized network, not in a fused kernel.
    """
    network.family = family  # type: ignore[assignment]
    patches: Any = network.pos_embed
    positions = patches.pos_embed
    del patches.pos_embed
    patches.pos_embed = nn.Parameter(positions, requires_grad=False)
    for module in network.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    return network


def middle_of(network: nn.Module) -> nn.Module:
    """The first block of the second half, whose input is what the first half makes of an image."""
    blocks: Any = network.transformer_blocks
    found: nn.Module = blocks[len(blocks) // 2]
    return found


def couplings_of(network: nn.Module) -> Iterator[Coupling]:
    """The norms of adaLN-zero blocks, none with a gain of its own, and the layers that each feeds."""
    for name, module in network.named_modules():
        if isinstance(module, BasicTransformerBlock):
            projections = tuple(f"{name}.attn1.{part}" for part in ("to_q", "to_k", "to_v"))
            yield Coupling(f"{name}.norm1.norm", projections, is_linear=False)
            yield Coupling(f"{name}.norm3", (f"{name}.ff.net.0.proj",), is_linear=False)
