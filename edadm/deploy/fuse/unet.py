"""Residual blocks of integer layers, in inference: what lies between two products is fused into kernels."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import AttnUpBlock2D, CrossAttnUpBlock2D, UpBlock2D
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.deploy.fuse.exact import Affine, Grids
from edadm.deploy.fuse.layers import IntegerConv2d
from edadm.deploy.fuse.resnet import ResnetParts
from edadm.errors import EdadmError
from edadm.kernels.int8.norms.group_norm import int8_normalised


class IntegerResnetBlock(ResnetParts):
    """A residual block between whose layers only int8 passes; the last epilogue adds the residual.

    Args:
        block: one that `fits`.
    """

    def __init__(self, block: ResnetBlock2D):
        super().__init__(block)
        self.affine1, self.affine2, shortcut = Affine(self.norm1), Affine(self.norm2), self.conv_shortcut
        del self.norm1, self.norm2
        self.shortcut_grids = Grids(shortcut.segments) if isinstance(shortcut, IntegerConv2d) else None

    @staticmethod
    def fits(block: nn.Module) -> bool:
        """Whether a module is a residual block with two integer convolutions, each of one segment."""
        if not ResnetParts.fits(block):
            return False
        return all(
            isinstance(layer, IntegerConv2d) and len(layer.segments) == 1
            for layer in (block.conv1, block.conv2)
        )

    def forward(
        self,
        input_tensor: Float[Tensor, "n b h w"],
        temb: Float[Tensor, "n e"],
        skip: Float[Tensor, "n s h w"] | None = None,
    ) -> Float[Tensor, "n o h w"]:
        """The block's output, its residual included.

        Args:
            input_tensor: of the block.
            temb: the time embedding.
            skip: further channels of the input, which stay where they are.
        """
        parts = [part.permute(0, 2, 3, 1).contiguous() for part in (input_tensor, skip) if part is not None]
        dtype, embedded, shortcut = input_tensor.dtype, self.time_emb_proj(F.silu(temb)), self.conv_shortcut
        sizes = tuple(part.shape[-1] for part in parts)
        fused = self.shortcut_grids is not None and shortcut.sizes == sizes
        grids, values = self.shortcut_grids if fused else None, self.affine1.values
        hidden, *shortcut_inputs = self._normalise(self.affine1, self.conv1, parts, None, values, grids)
        hidden = self.conv1.matmul([hidden], dtype)
        (weight, bias), added = self.affine2.values, embedded
        if self.scales:
            scale, shift = embedded.float().chunk(2, 1)
            weight, bias, added = weight * (1 + scale), bias * (1 + scale) + shift, None
        hidden, *_ = self._normalise(self.affine2, self.conv2, [hidden], added, (weight, bias), None)
        if fused:
            residual = shortcut.matmul(shortcut_inputs[: len(parts)], dtype)
        else:
            residual = torch.cat(parts, -1)
            if shortcut is not None:
                residual = shortcut(residual.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
        return self.conv2.matmul([hidden], dtype, residual).permute(0, 3, 1, 2)

    @staticmethod
    def _normalise(
        norm: Affine,
        convolution: IntegerConv2d,
        parts: list[Tensor],
        added: Tensor | None,
        values: tuple[Tensor, Tensor],
        shortcut_grids: Grids | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The int8 input of a convolution, normalised, and those of the shortcut if it has grids.

        SiLU stands between norm and convolution, so that smoothing does not move into the norm; it divides
        where the result is quantized.
        """
        x, skip = (*parts, None)[:2]
        others, smooth_others = None, None
        if shortcut_grids is not None:
            others, smooth_others = shortcut_grids.values, shortcut_grids.smooth
        grids = convolution.segments[0].grid[None], others
        settings = norm.groups, norm.eps, True, *grids, convolution.smooth, smooth_others
        hidden, itself, other = int8_normalised(x, skip, added, *values, *settings)
        return hidden[0], itself, other


class IntegerUpBlock(nn.Module):
    """A block of the network's second half whose residual blocks read a skip where it is, without a copy.

    Args:
        block: one that `fits`, of diffusers.

    Raises:
        EdadmError: when it is called, if diffusers' FreeU was switched on, which changes skips.
    """

    def __init__(self, block: UpBlock2D | AttnUpBlock2D | CrossAttnUpBlock2D):
        super().__init__()
        self.has_cross_attention = isinstance(block, CrossAttnUpBlock2D)
        self.resnets, self.upsamplers = block.resnets, block.upsamplers
        if (
            attentions := getattr(block, "attentions", None)
        ) is not None:  # as packages ask of diffusers' blocks
            self.attentions = attentions

    @staticmethod
    def fits(block: nn.Module) -> bool:
        """Whether a block's residual blocks can all read skips where they are."""
        if not isinstance(block, UpBlock2D | AttnUpBlock2D | CrossAttnUpBlock2D):
            return False
        plain = all(isinstance(upsampler, Upsample2D) for upsampler in block.upsamplers or ())
        return plain and all(isinstance(resnet, IntegerResnetBlock) for resnet in block.resnets)

    def forward(
        self,
        hidden_states: Float[Tensor, "n c h w"],
        res_hidden_states_tuple: tuple[Tensor, ...],
        temb: Float[Tensor, "n e"],
        upsample_size: tuple[int, ...] | None = None,
        encoder_hidden_states: Float[Tensor, "n tokens d"] | None = None,
        **others: Any,
    ) -> Float[Tensor, "n o p q"]:
        """The block's output, called as by diffusers; the last skip comes first.

        `others` go to attention over a context.
        """
        if getattr(self, "s1", None) is not None:
            raise EdadmError(
                "FreeU changes skips, which this network reads where they are; disable it, "
                "or load with backend 'simulated'"
            )
        for index, resnet in enumerate(self.resnets):
            hidden_states = resnet(hidden_states, temb, res_hidden_states_tuple[-1 - index])
            if self.has_cross_attention:
                attention = self.attentions[index]
                hidden_states = attention(
                    hidden_states, encoder_hidden_states=encoder_hidden_states, return_dict=False, **others
                )[0]
            elif hasattr(self, "attentions"):
                hidden_states = self.attentions[index](hidden_states)
        for upsampler in self.upsamplers or ():
            hidden_states = upsampler(hidden_states, upsample_size)
        return hidden_states
