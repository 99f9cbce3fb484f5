"""Blocks of integer layers, in inference: what lies between two products is computed as one of them ends, or as its numbers are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_blocks import AttnUpBlock2D, CrossAttnUpBlock2D, UpBlock2D
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.kernels.int8_geglu import int8_geglu
from edadm.kernels.int8_normalisation import int8_normalised
from edadm.nn.integer import IntegerConv2d, IntegerLinear
from edadm.nn.resnet import ResnetParts


class IntegerFeedForward(nn.Module):
    """diffusers' `FeedForward` with GEGLU, in inference: the first layer writes the numbers that the second multiplies.

    Args:
        first: to values and gates.
        second: back to the network's channels.
    """

    def __init__(self, first: IntegerLinear, second: IntegerLinear):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        (one,), (two,) = self.first.segments, self.second.segments
        rows = one.numbers(x.reshape(-1, x.shape[-1])).contiguous()
        numbers = int8_geglu(rows, one.integers().flatten(1), one.scale, one.offset, two.input_scale, *two.ends, two.zero)
        return self.second.summed([numbers[:, None, None]], x.dtype).reshape(*x.shape[:-1], -1)


def normalised_convolution(
    norm: nn.GroupNorm,
    convolution: IntegerConv2d,
    x: Float[Tensor, "n h w b"],
    skip: Float[Tensor, "n h w s"] | None = None,
    added: Float[Tensor, "n c"] | None = None,
    scale_and_shift: tuple[Float[Tensor, "n c"], Float[Tensor, "n c"]] | None = None,
    addend: Float[Tensor, "n h w o"] | None = None,
) -> Float[Tensor, "n h w o"]:
    """A group normalisation, SiLU and a convolution of one segment, in inference; channels are last.

    Args:
        norm: with weight and bias.
        convolution: of its result.
        x: what is normalised.
        skip: further channels of it.
        added: to all pixels before that.
        scale_and_shift: of the normalised image, the scale less 1 (FiLM).
        addend: to the result.
    """
    (segment,) = convolution.segments
    weight, bias = norm.weight[None].float(), norm.bias[None].float()
    if scale_and_shift is not None:
        scale, shift = scale_and_shift
        weight, bias = weight * (1 + scale.float()), bias * (1 + scale.float()) + shift.float()
    numbers = int8_normalised(x, skip, added, weight, bias, norm.num_groups, norm.eps, True, segment.grid[None])
    return convolution.summed([numbers[0]], x.dtype, addend)


class IntegerResnetBlock(ResnetParts):
    """The block between whose layers only int8 numbers pass; its second convolution adds what goes around both as it ends."""

    @staticmethod
    def fits(block: nn.Module) -> bool:
        """Whether it is one of those with two convolutions of integers, each of one segment."""
        if not ResnetParts.fits(block):
            return False
        return all(isinstance(layer, IntegerConv2d) and len(layer.segments) == 1 for layer in (block.conv1, block.conv2))

    def forward(
        self, input_tensor: Float[Tensor, "n b h w"], temb: Float[Tensor, "n e"], skip: Float[Tensor, "n s h w"] | None = None
    ) -> Float[Tensor, "n o h w"]:
        """The block's result.

        Args:
            input_tensor: of the block.
            temb: the time embedding.
            skip: further channels of the input, which stay where they are.
        """
        parts = [part.permute(0, 2, 3, 1).contiguous() for part in (input_tensor, skip) if part is not None]
        embedded = self.time_emb_proj(F.silu(temb))
        scale_and_shift, added = (embedded.chunk(2, 1), None) if self.scales else (None, embedded)
        hidden = normalised_convolution(self.norm1, self.conv1, parts[0], parts[1] if len(parts) > 1 else None)
        return normalised_convolution(self.norm2, self.conv2, hidden, None, added, scale_and_shift, self._around(parts)).permute(0, 3, 1, 2)

    def _around(self, parts: list[Tensor]) -> Float[Tensor, "n h w o"]:
        """What goes around both convolutions."""
        shortcut = self.conv_shortcut
        if isinstance(shortcut, IntegerConv2d) and shortcut.sizes == tuple(part.shape[-1] for part in parts):
            return shortcut.of_parts(parts)
        whole = torch.cat(parts, -1)
        return whole if shortcut is None else shortcut(whole.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


class IntegerSelfAttention(nn.Module):
    """diffusers' attention between the pixels of an image, in inference: its normalisation writes the numbers that queries, keys and values
    are products of, and its last product adds what goes around all.

    Args:
        attention: one that `fits`.
    """

    grids: Tensor

    def __init__(self, attention: Attention):
        super().__init__()
        self.norm, self.heads, (self.out, _) = attention.group_norm, attention.heads, attention.to_out
        products: list[Any] = [attention.to_q, attention.to_k, attention.to_v]
        self.products = nn.ModuleList(products)
        self.register_buffer("grids", torch.stack([product.segments[0].grid for product in products]))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> IntegerSelfAttention:
        """Grids stay fp32."""
        exact = self.grids
        super()._apply(fn, recurse)
        self.grids = exact.to(self.grids.device)
        return self

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether it is one with a group normalisation, over nothing but the image, all of whose layers are integer ones of one segment."""
        if not isinstance(module, Attention) or module.group_norm is None or not module.residual_connection:
            return False
        layers = [module.to_q, module.to_k, module.to_v, module.to_out[0]]
        unusual = module.is_cross_attention or module.spatial_norm or module.norm_q or module.norm_k or module.added_kv_proj_dim
        integer = all(isinstance(layer, IntegerLinear) and len(layer.segments) == 1 for layer in layers)
        return integer and not unusual and module.rescale_output_factor == 1

    def forward(self, hidden_states: Float[Tensor, "n c h w"], **unused: Any) -> Float[Tensor, "n c h w"]:
        """`unused`: what diffusers passes to all attentions, such as the time embedding."""
        x = hidden_states.permute(0, 2, 3, 1).contiguous()
        weight, bias = self.norm.weight[None].float(), self.norm.bias[None].float()
        numbers = int8_normalised(x, None, None, weight, bias, self.norm.num_groups, self.norm.eps, False, self.grids)
        images, rows = len(x), x.reshape(-1, 1, 1, x.shape[-1])
        heads = []
        products: Any = self.products
        for product, part in zip(products, numbers, strict=True):
            made = product.summed([part.reshape(rows.shape)], x.dtype)
            heads.append(made.reshape(images, -1, self.heads, made.shape[-1] // self.heads).transpose(1, 2))
        found = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(len(rows), 1, 1, -1)
        return self.out.product(found, rows).reshape(x.shape).permute(0, 3, 1, 2)


class IntegerUpBlock(nn.Module):
    """A block of the network's second half whose residual blocks read a skip where it is, instead of a copy behind their input.

    FreeU is not for it.

    Args:
        block: one that `fits`, of diffusers.
    """

    def __init__(self, block: UpBlock2D | AttnUpBlock2D | CrossAttnUpBlock2D):
        super().__init__()
        self.has_cross_attention = isinstance(block, CrossAttnUpBlock2D)
        attentions: Any = getattr(block, "attentions", None)
        self.resnets, self.attentions, self.upsamplers = block.resnets, attentions, block.upsamplers

    @staticmethod
    def fits(block: nn.Module) -> bool:
        """Whether all residual blocks can do that."""
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
        """As diffusers calls it; the last skip comes first. `others` go to attention over a context."""
        for index, resnet in enumerate(self.resnets):
            hidden_states = resnet(hidden_states, temb, res_hidden_states_tuple[-1 - index])
            if self.has_cross_attention:
                attention = self.attentions[index]
                hidden_states = attention(hidden_states, encoder_hidden_states=encoder_hidden_states, return_dict=False, **others)[0]
            elif self.attentions is not None:
                hidden_states = self.attentions[index](hidden_states)
        for upsampler in self.upsamplers or ():
            hidden_states = upsampler(hidden_states, upsample_size)
        return hidden_states
