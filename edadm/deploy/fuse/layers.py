"""Integer layers: inputs are quantized to int8, sums are exact int32, and the epilogue scales them once."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.deploy.fuse.segment import IntegerSegment
from edadm.kernels.int8.products.convolution import int8_convolution
from edadm.nn.part import Part, refuse_other_channels

STEP = 32  # int8 numbers that an instruction takes of each row


class IntegerConv2d(Part):
    """A convolution with equal strides and symmetric padding of (n, c, h, w), best with channels last.

    Args:
        segments: of the input channels.
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

    @property
    def smooth(self) -> Float[Tensor, " c"] | None:
        """The factors that a smoothed input's channels are divided by, of the first segment."""
        found: Tensor | None = self.segments[0].smooth
        return found

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o p q"]:
        return self.quantized_matmul(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def quantized_matmul(
        self, x: Float[Tensor, "n h w c"], residual: Float[Tensor, "n p q o"] | None = None
    ) -> Float[Tensor, "n p q o"]:
        """The layer's output with channels last, plus a residual laid out alike, rounded once with it."""
        refuse_other_channels(x, -1, sum(self.sizes))
        return self.matmul_of_parts(list(x.split(self.sizes, -1)), residual)

    def matmul_of_parts(
        self, parts: list[Tensor], residual: Tensor | None = None
    ) -> Float[Tensor, "n p q o"]:
        """The layer's output of an input in parts, (n, h, w, channels) of each segment, plus a residual."""
        segments = zip(self.segments, parts, strict=True)
        inputs = [segment.quantize_input(part).contiguous() for segment, part in segments]
        return self.matmul(inputs, parts[0].dtype, residual)

    def matmul(
        self, inputs: list[Tensor], dtype: torch.dtype, residual: Tensor | None = None
    ) -> Float[Tensor, "n p q o"]:
        """The layer's output of int8 inputs, (n, h, w, channels) of each segment, plus a residual."""
        total = residual
        for segment, part in zip(self.segments, inputs, strict=True):
            arguments = segment.integers(), segment.scale, segment.offset, total
            total = int8_convolution(part, *arguments, self.stride, self.padding, segment.zero, dtype)
        assert total is not None
        return total


class IntegerLinear(IntegerConv2d):
    """A linear layer of (..., features), as a 1x1 convolution over images of one pixel."""

    @property
    def in_features(self) -> int:
        """Features of the input, as `nn.Linear` names them: diffusers' pipelines read it."""
        return sum(self.sizes)

    @property
    def out_features(self) -> int:
        """Features of the output, as `nn.Linear` names them."""
        return int(self.segments[0].shape[0])

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        output = self.quantized_matmul(x.reshape(-1, 1, 1, x.shape[-1]))
        return output.reshape(*x.shape[:-1], output.shape[-1])


class IntegerGatheredConv2d(IntegerConv2d):
    """A convolution of few channels, as an image's: one product of whole windows instead of one per tap.

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
        """Whether a window has so few numbers that products of single taps would mostly be padding."""
        return weight.shape[1] > 1 and weight[0].numel() <= 2 * STEP

    @staticmethod
    def gathered_weight(weight: Int8[Tensor, "o k k c"]) -> Int8[Tensor, "o 1 1 p"]:
        """The weight in one row per output channel, padded to whole steps."""
        rows = weight.flatten(1)
        return F.pad(rows, (0, -rows.shape[1] % STEP))[:, None, None]

    def matmul(
        self, inputs: list[Tensor], dtype: torch.dtype, residual: Tensor | None = None
    ) -> Float[Tensor, "n p q o"]:
        (x,), (segment,) = inputs, self.segments
        padded = F.pad(x, (0, 0, *(self.padding,) * 4), value=segment.zero)
        windows = padded.unfold(1, self.side, self.stride).unfold(2, self.side, self.stride)
        rows = windows.permute(0, 1, 2, 4, 5, 3).flatten(3)
        gathered = F.pad(rows, (0, segment.shape[3] - rows.shape[3]))
        weights = segment.integers(), segment.scale, segment.offset
        return int8_convolution(gathered, *weights, residual, 1, 0, segment.zero, dtype)
