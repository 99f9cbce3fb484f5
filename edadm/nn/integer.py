"""Layers that compute with integers: their input becomes int8 numbers, their sums are exact int32, scaled once at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
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

    Buffers: `weight` (int8, OHWI), or its codes packed two per byte and their zero points; `input_scale`; `scale` and `offset` per
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
        parts = zip(self.segments, x.split(self.sizes, -1), strict=True)
        return self.summed([segment.numbers(part).contiguous() for segment, part in parts], x.dtype, addend)

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
    x: Float[Tensor, "n h w c"],
    added: Float[Tensor, "n c"] | None = None,
    scale_and_shift: tuple[Float[Tensor, "n c"], Float[Tensor, "n c"]] | None = None,
    addend: Float[Tensor, "n h w o"] | None = None,
) -> Float[Tensor, "n h w o"]:
    """A group normalisation, SiLU and a convolution of one segment, in inference; channels are last.

    Args:
        norm: with weight and bias.
        convolution: of its result.
        x: what is normalised.
        added: to all pixels before that.
        scale_and_shift: of the normalised image, the scale less 1 (FiLM).
        addend: to the result.
    """
    (segment,) = convolution.segments
    weight, bias = norm.weight[None].float(), norm.bias[None].float()
    if scale_and_shift is not None:
        scale, shift = scale_and_shift
        weight, bias = weight * (1 + scale.float()), bias * (1 + scale.float()) + shift.float()
    grid = segment.input_scale, *segment.ends, segment.zero
    numbers = int8_normalised(x, added, weight, bias, norm.num_groups, norm.eps, True, *grid)
    return convolution.summed([numbers], x.dtype, addend)


class IntegerResnetBlock(ResnetParts):
    """The block between whose layers only int8 numbers pass; its second convolution adds what goes around both as it ends."""

    @staticmethod
    def fits(block: nn.Module) -> bool:
        """Whether it is one of those with two convolutions of integers, each of one segment."""
        if not ResnetParts.fits(block):
            return False
        return all(isinstance(layer, IntegerConv2d) and len(layer.segments) == 1 for layer in (block.conv1, block.conv2))

    def forward(self, input_tensor: Float[Tensor, "n c h w"], temb: Float[Tensor, "n e"]) -> Float[Tensor, "n o h w"]:
        embedded = self.time_emb_proj(F.silu(temb))
        scale_and_shift = embedded.chunk(2, 1) if self.scales else None
        around = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        around = around.permute(0, 2, 3, 1).contiguous()
        hidden = normalised_convolution(self.norm1, self.conv1, input_tensor.permute(0, 2, 3, 1).contiguous())
        added = None if self.scales else embedded
        return normalised_convolution(self.norm2, self.conv2, hidden, added, scale_and_shift, around).permute(0, 3, 1, 2)
