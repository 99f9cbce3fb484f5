"""Layers that compute with integers: their input becomes int8 numbers, their sums are exact int32, scaled once at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.deploy.fuse.exact import Exact
from edadm.kernels.int8 import reference
from edadm.kernels.int8.products.convolution import int8_convolution
from edadm.kernels.packing import pack4, unpack4

STEP = 32  # numbers that an instruction takes of each row


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


class IntegerSegment(Exact):
    """The product of a segment of input channels.

    Buffers: `weight` (int8, OHWI), or its codes packed two per byte and their zero points; `input_scale`, and
    `grid`, its
    scale, ends and zero for `edadm.kernels.int8.reference.normalised`; `scale` and `offset` per output channel,
    fp32 whatever the network is cast to. A zero point z of the input adds (128 - z) times the sum of a row's
    weights, a constant, which `offset` holds; padding holds the number that stands for 0.

    Args:
        weight: signed integers, output channels first, the window's taps, input channels last.
        row_scale: scale of each row, negative where the row is negated.
        grid: of the input.
        packed: codes and zero points of a 4-bit weight (row-major OHWI, and one per row), to be unpacked at
            every call; the weight is not kept then.
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
        self.register_buffer(
            "grid", torch.tensor([grid.scale.item(), *self.ends, self.zero], device=scale.device)
        )
        self.register_buffer("scale", scale)
        self.register_buffer(
            "offset", -self.zero * weight.flatten(1).sum(1, dtype=torch.int64).float() * scale
        )
        self.packed = packed is not None
        if packed is None:
            self.register_buffer("weight", weight.contiguous())
        else:
            codes, zero_points = packed
            self.register_buffer("codes", pack4(codes.contiguous()))
            self.register_buffer("zero_points", zero_points.to(torch.int8))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> IntegerSegment:
        """Stays OHWI when the network is laid out with its channels last."""
        super()._apply(fn, recurse)
        if not self.packed:
            self.weight = self.weight.contiguous()
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

    def __init__(
        self,
        segments: list[IntegerSegment],
        sizes: tuple[int, ...],
        bias: Tensor | None,
        stride: int = 1,
        padding: int = 0,
    ):
        super().__init__()
        self.segments: Any = nn.ModuleList(segments)
        self.sizes, self.stride, self.padding = sizes, stride, padding
        if bias is not None:
            segments[0].offset = segments[0].offset + bias.float()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o p q"]:
        return self.product(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def product(
        self, x: Float[Tensor, "n h w c"], addend: Float[Tensor, "n p q o"] | None = None
    ) -> Float[Tensor, "n p q o"]:
        """The same with channels last, plus an addend in its memory's order, rounded once with it."""
        return self.of_parts(list(x.split(self.sizes, -1)), addend)

    def of_parts(self, parts: list[Tensor], addend: Tensor | None = None) -> Float[Tensor, "n p q o"]:
        """The same of an input in parts, (n, h, w, channels) of each segment."""
        numbers = [
            segment.numbers(part).contiguous() for segment, part in zip(self.segments, parts, strict=True)
        ]
        return self.summed(numbers, parts[0].dtype, addend)

    def summed(
        self, numbers: list[Tensor], dtype: torch.dtype, addend: Tensor | None = None
    ) -> Float[Tensor, "n p q o"]:
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


class IntegerGatheredConv2d(IntegerConv2d):
    """A convolution of few channels, such as an image's: the numbers of a window lie side by side, in one product instead of one per tap.

    Args:
        segment: its weight is (o, 1, 1, channels' numbers of all taps, then zeros), see `gathered_weight`.
        channels: of the input.
        bias: per output channel.
        side: of the window.
        stride: of both directions.
        padding: on all sides.
    """

    def __init__(
        self,
        segment: IntegerSegment,
        channels: int,
        bias: Tensor | None,
        side: int,
        stride: int,
        padding: int,
    ):
        super().__init__([segment], (channels,), bias, stride, padding)
        self.side = side

    @staticmethod
    def fits(weight: Int8[Tensor, "o k k c"]) -> bool:
        """Whether a window's numbers are so few that products of single taps are mostly of nothing."""
        return weight.shape[1] > 1 and weight[0].numel() <= 2 * STEP

    @staticmethod
    def gathered_weight(weight: Int8[Tensor, "o k k c"]) -> Int8[Tensor, "o 1 1 p"]:
        """The same numbers in one row per output channel, padded to whole steps."""
        rows = weight.flatten(1)
        return F.pad(rows, (0, -rows.shape[1] % STEP))[:, None, None]

    def summed(
        self, numbers: list[Tensor], dtype: torch.dtype, addend: Tensor | None = None
    ) -> Float[Tensor, "n p q o"]:
        (x,), (segment,) = numbers, self.segments
        around = F.pad(x, (0, 0, *(self.padding,) * 4), value=segment.zero)
        windows = (
            around.unfold(1, self.side, self.stride)
            .unfold(2, self.side, self.stride)
            .permute(0, 1, 2, 4, 5, 3)
            .flatten(3)
        )
        gathered = F.pad(windows, (0, segment.shape[3] - windows.shape[3]))
        return int8_convolution(
            gathered, segment.integers(), segment.scale, segment.offset, addend, 1, 0, segment.zero, dtype
        )
