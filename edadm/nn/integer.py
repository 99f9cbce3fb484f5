"""Layers that compute with integers: their input becomes int8 numbers, their sums are exact int32, scaled once at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_blocks import AttnUpBlock2D, CrossAttnUpBlock2D, UpBlock2D
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float, Int8, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.kernels import reference
from edadm.kernels.int8_convolution import int8_convolution
from edadm.kernels.int8_geglu import int8_geglu
from edadm.kernels.int8_normalisation import int8_normalised
from edadm.kernels.packing import pack4, unpack4
from edadm.nn.resnet import ResnetParts


@dataclass(frozen=True)
class InputGrid:
    """The grid of a segment of a layer's input.

    Attributes:
        scale: fp32 scalar.
        zero_point: in [0, 255].
        bits: width, at most 8.
    """

    scale: Float[Tensor, ""]
    zero_point: int
    bits: int


class IntegerSegment(nn.Module):
    """The product of a segment of input channels.

    Buffers: `weight` (int8, OHWI), or its codes packed two per byte and their zero points; `input_scale`, and `grid`, its
    scale, ends and zero for `edadm.kernels.reference.normalised`; `scale` and `offset` per
    output channel, fp32 whatever the network is cast to. A zero point z of the input adds (128 - z) times the sum of a row's weights,
    a constant, which `offset` holds; padding holds the number that stands for 0.

    Args:
        weight: signed integers, output channels first, the window's taps, input channels last.
        row_scale: scale of each row, negative where the row is negated.
        grid: of the input.
        packed: codes and zero points of a 4-bit weight (row-major OHWI, and one per row), to be unpacked at every call; the weight is
            not kept then.
    """

    weight: Tensor
    codes: Tensor
    zero_points: Tensor
    input_scale: Tensor
    grid: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        weight: Int8[Tensor, "o k k c"],
        row_scale: Float[Tensor, " o"],
        grid: InputGrid,
        packed: tuple[UInt8[Tensor, "o k k c"], Tensor] | None = None,
    ):
        super().__init__()
        self.shape = tuple(weight.shape)
        self.zero = grid.zero_point - 128
        self.ends = float(-grid.zero_point), float(2**grid.bits - 1 - grid.zero_point)
        scale = (row_scale.double() * grid.scale.double()).float()
        self.register_buffer("input_scale", grid.scale.float().reshape(()).clone())
        self.register_buffer("grid", torch.tensor([grid.scale.item(), *self.ends, self.zero], device=scale.device))
        self.register_buffer("scale", scale)
        self.register_buffer("offset", -self.zero * weight.flatten(1).sum(1, dtype=torch.int64).float() * scale)
        self.packed = packed is not None
        if packed is None:
            self.register_buffer("weight", weight.contiguous())
        else:
            codes, zero_points = packed
            self.register_buffer("codes", pack4(codes.contiguous()))
            self.register_buffer("zero_points", zero_points.to(torch.int8))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> IntegerSegment:
        """Moves with the network, and stays fp32 when that is cast, and OHWI when that is laid out with its channels last."""
        exact = {name: tensor for name, tensor in self._buffers.items() if tensor is not None and tensor.is_floating_point()}
        super()._apply(fn, recurse)
        if not self.packed:
            self.weight = self.weight.contiguous()
        for name, tensor in exact.items():
            setattr(self, name, tensor.to(getattr(self, name).device))
        return self

    def integers(self) -> Int8[Tensor, "o k k c"]:
        """The weight."""
        if not self.packed:
            return self.weight
        return unpack4(self.codes, self.shape).to(torch.int8) - self.zero_points[:, None, None, None]

    def numbers(self, x: Float[Tensor, "*n c"]) -> Int8[Tensor, "*n c"]:
        """The input on its grid, codes less 128."""
        return reference.quantized(x, self.input_scale, *self.ends, self.zero)


class IntegerConv2d(nn.Module):
    """A convolution with equal strides and symmetric padding; the input is (n, c, h, w), best with its channels last.

    Args:
        segments: one product per segment of the input channels.
        sizes: channels of each.
        bias: per output channel.
        stride: of both directions.
        padding: on all sides.
    """

    def __init__(self, segments: list[IntegerSegment], sizes: tuple[int, ...], bias: Tensor | None, stride: int = 1, padding: int = 0):
        super().__init__()
        self.segments: Any = nn.ModuleList(segments)
        self.sizes, self.stride, self.padding = sizes, stride, padding
        if bias is not None:
            segments[0].offset = segments[0].offset + bias.float()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o p q"]:
        return self.product(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def product(self, x: Float[Tensor, "n h w c"], addend: Float[Tensor, "n p q o"] | None = None) -> Float[Tensor, "n p q o"]:
        """The same with channels last, plus an addend in its memory's order, rounded once with it."""
        return self.of_parts(list(x.split(self.sizes, -1)), addend)

    def of_parts(self, parts: list[Tensor], addend: Tensor | None = None) -> Float[Tensor, "n p q o"]:
        """The same of an input in parts, (n, h, w, channels) of each segment."""
        numbers = [segment.numbers(part).contiguous() for segment, part in zip(self.segments, parts, strict=True)]
        return self.summed(numbers, parts[0].dtype, addend)

    def summed(self, numbers: list[Tensor], dtype: torch.dtype, addend: Tensor | None = None) -> Float[Tensor, "n p q o"]:
        """The product of numbers, (n, h, w, channels) of each segment."""
        total = addend
        for segment, part in zip(self.segments, numbers, strict=True):
            arguments = segment.integers(), segment.scale, segment.offset, total
            total = int8_convolution(part, *arguments, self.stride, self.padding, segment.zero, dtype)
        assert total is not None
        return total


class IntegerLinear(IntegerConv2d):
    """A linear layer, as a 1x1 convolution over images of one pixel, which can be divided as a batch; the input is (..., features)."""

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        output = self.product(x.reshape(-1, 1, 1, x.shape[-1]))
        return output.reshape(*x.shape[:-1], output.shape[-1])


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
        self.products: Any = nn.ModuleList([attention.to_q, attention.to_k, attention.to_v])
        self.register_buffer("grids", torch.stack([product.segments[0].grid for product in self.products]))

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
        for product, part in zip(self.products, numbers, strict=True):
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
        self.resnets, self.attentions, self.upsamplers = block.resnets, getattr(block, "attentions", None), block.upsamplers

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
