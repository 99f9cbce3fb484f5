"""Whole networks of integer layers whose blocks are replaced by ones that run as a whole."""

from __future__ import annotations

from typing import Any

from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, JointAttnProcessor2_0
from torch import nn

from edadm.deploy.fuse.attention import IntegerFeedForward, IntegerSelfAttention
from edadm.deploy.fuse.layers import IntegerLinear
from edadm.deploy.fuse.transformer import IntegerTransformer, IntegerTransformerBlock
from edadm.deploy.fuse.unet import IntegerResnetBlock, IntegerUpBlock
from edadm.networks.family import Network
from edadm.nn.joint import JointAttention

_LARGER: tuple[Any, ...] = (IntegerTransformerBlock, IntegerTransformer, IntegerUpBlock)  # of the others
_FUSED: tuple[Any, ...] = (IntegerFeedForward, IntegerResnetBlock, IntegerSelfAttention, *_LARGER)


def is_fused(network: nn.Module) -> bool:
    """Whether there are blocks in a network that compute several layers at once."""
    return any(isinstance(module, _FUSED) for module in network.modules())


def fuse_attention(unet: Network) -> Network:
    """The network with PyTorch's fused attention, and without grids of its operands; changed in place."""
    for module in unet.modules():
        if isinstance(module, Attention):
            kind = JointAttnProcessor2_0 if isinstance(module.processor, JointAttention) else AttnProcessor2_0
            Attention.set_processor(module, kind())  # a quantized one would refuse
    return unet


def fuse_epilogues(unet: Network) -> Network:
    """The network with what follows a product computed in its kernel's epilogue; changed in place.

    That is GEGLU and the grid after it, where both layers are integer; group normalisation with SiLU and the
    grids after it, and the addition at the end, of residual blocks and of attention between pixels; layer
    normalisation and the grids after it, and all additions, of transformers; and skips, which are read where
    they are.
    """
    for name, module in list(unet.named_modules()):
        if isinstance(module, FeedForward) and isinstance(module.net[0], GEGLU):
            layers = [
                layer
                for layer in (module.net[0].proj, module.net[2])
                if isinstance(layer, IntegerLinear) and len(layer.segments) == 1
            ]
            if len(layers) == 2:
                unet.set_submodule(name, IntegerFeedForward(*layers))
        if IntegerResnetBlock.fits(module):
            unet.set_submodule(name, IntegerResnetBlock(module))
        if IntegerSelfAttention.fits(module):
            unet.set_submodule(name, IntegerSelfAttention(module))
    for made in _LARGER:
        for name, module in list(unet.named_modules()):
            if made.fits(module):
                unet.set_submodule(name, made(module))
    return unet
