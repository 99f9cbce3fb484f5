"""A float network whose blocks compute what lies between convolutions by kernels, where a GPU has them.

Convolutions stay those of cuDNN, by the same rules; numbers differ from the plain network's in their last
bits. Where there are no kernels, in half precision, and while `torch.compile` looks, blocks are as before.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.deploy.fuse.resnet import ResnetParts
from edadm.kernels.dispatch import has_kernels
from edadm.networks.family import Network


def fused(network: Network) -> Network:
    """The network with group normalisations and residual blocks by kernels; changed in place.

    It is for inference alone: names of its modules are no longer those of files.
    """
    for name, module in list(network.named_modules()):
        if ResnetParts.fits(module):
            network.set_submodule(name, FloatResnetBlock(module))
    if isinstance(getattr(network, "conv_act", None), nn.SiLU):
        network.set_submodule("conv_norm_out", FloatGroupNorm(network.conv_norm_out, silu=True))
        network.set_submodule("conv_act", nn.Identity())
    inner = tuple(
        f"{name}." for name, module in network.named_modules() if isinstance(module, FloatResnetBlock)
    )
    for name, module in list(network.named_modules()):
        own = name.startswith(inner) or name.endswith(".norm_of_torch")
        if isinstance(module, nn.GroupNorm) and not own:
            network.set_submodule(name, FloatGroupNorm(module))
    return network


def _computes(x: Tensor) -> bool:
    """Whether kernels compute what follows from `x`."""
    return x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type) and has_kernels(x)


class FloatGroupNorm(nn.Module):
    """A group normalisation, with SiLU after it where that is asked for.

    Args:
        norm: the plain one.
        silu: whether SiLU follows.
    """

    def __init__(self, norm: nn.GroupNorm, silu: bool = False):
        super().__init__()
        self.norm_of_torch, self.silu = norm, silu

    def forward(self, x: Float[Tensor, "n c *s"]) -> Float[Tensor, "n c *s"]:
        if _computes(x):
            return _normalised(x, self.norm_of_torch, self.silu)
        y: Tensor = self.norm_of_torch(x)
        return F.silu(y) if self.silu else y


class FloatResnetBlock(nn.Module):
    """A residual block; biases of its convolutions are added by the kernels that follow them.

    Args:
        block: diffusers' block, one that `ResnetParts.fits`.
    """

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block: Any = block

    def forward(self, x: Float[Tensor, "n c h w"], temb: Float[Tensor, "n t"]) -> Float[Tensor, "n d h w"]:
        block = self.block
        if not _computes(x):
            plain: Tensor = block(x, temb)
            return plain
        from edadm.kernels.floats.residual import triton_add_

        time: Tensor = block.time_emb_proj(F.silu(temb))
        hidden = _convolved(_normalised(x, block.norm1, silu=True), block.conv1)
        if block.time_embedding_norm == "scale_shift":
            hidden = _normalised(hidden, block.norm2, True, block.conv1.bias[None], time)
        else:
            hidden = _normalised(hidden, block.norm2, True, block.conv1.bias + time)
        hidden, bias = _convolved(hidden, block.conv2), block.conv2.bias
        if block.conv_shortcut is not None:
            x = _convolved(x, block.conv_shortcut)
            bias = bias if block.conv_shortcut.bias is None else bias + block.conv_shortcut.bias
        return triton_add_(hidden, x, bias)


def _convolved(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """The convolution without its bias, which would be another pass over its output."""
    given = convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    return F.conv2d(x, convolution.weight, None, *given)  # type: ignore[arg-type]


def _normalised(
    x: Tensor, norm: nn.GroupNorm, silu: bool, added: Tensor | None = None, film: Tensor | None = None
) -> Tensor:
    """The kernel's normalisation, scaled and shifted by the halves of `film`, if there is one."""
    from edadm.kernels.floats.group_norm import triton_group_norm

    weight, bias = norm.weight[None], norm.bias[None]
    if film is not None:
        scale, shift = film.chunk(2, dim=1)
        weight, bias = weight * (1 + scale), bias * (1 + scale) + shift
    return triton_group_norm(x, norm.num_groups, weight, bias, norm.eps, silu, added)
