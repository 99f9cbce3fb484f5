"""Which norms feed which layers of a U-Net."""

from __future__ import annotations

from collections.abc import Iterator

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from edadm.networks.family import Coupling

_PROJECTIONS = ("to_q", "to_k", "to_v")


def couplings_of(unet: nn.Module) -> list[Coupling]:
    """The norms of a U-Net with the layers that they feed, in registration order.

    Between a norm and a convolution stands an activation.
    """
    found = [coupling for name, module in unet.named_modules() for coupling in _of(name, module)]
    return [*found, Coupling("conv_norm_out", ("conv_out",), is_linear=False)]


def _of(name: str, module: nn.Module) -> Iterator[Coupling]:
    if isinstance(module, ResnetBlock2D):
        yield Coupling(f"{name}.norm1", (f"{name}.conv1",), is_linear=False)
        yield Coupling(f"{name}.norm2", (f"{name}.conv2",), is_linear=False)
    elif isinstance(module, Attention) and module.group_norm is not None:
        yield Coupling(f"{name}.group_norm", tuple(f"{name}.{part}" for part in _PROJECTIONS))
    elif isinstance(module, Transformer2DModel):
        yield Coupling(f"{name}.norm", (f"{name}.proj_in",))
    elif isinstance(module, BasicTransformerBlock):
        yield from _of_transformer(name, module)


def _of_transformer(name: str, block: BasicTransformerBlock) -> Iterator[Coupling]:
    """Keys and values of an attention over a context come from there, past the norm."""
    own = ("to_q",) if block.only_cross_attention else _PROJECTIONS
    yield Coupling(f"{name}.norm1", tuple(f"{name}.attn1.{part}" for part in own))
    if block.attn2 is not None:
        across = _PROJECTIONS if block.double_self_attention else ("to_q",)
        yield Coupling(f"{name}.norm2", tuple(f"{name}.attn2.{part}" for part in across))
    yield Coupling(f"{name}.norm3", (f"{name}.ff.net.0.proj",))
