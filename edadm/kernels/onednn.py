"""Convolutions of integers on a CPU: uint8 inputs, int8 weights, int32 sums, by oneDNN with AMX or VNNI where the processor has it.

PyTorch carries the operations for its compiler's int8 path (`torch.ops.onednn`). Without VNNI or AMX pairs of products are added by
saturating int16 instructions; there, codes are divided into two parts, neither of which can reach the ends of int16.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.nn import functional as F

_onednn: Any = torch.ops.onednn

LARGEST_LOW = 127  # 2 * 127 * -128 and 2 * (255 - 127) * -128 are the least sums of pairs, and within int16
_SAFE_WEIGHT = 64  # 2 * 255 * 64 < 2^15


class Geometry(NamedTuple):
    """How a convolution moves over its input."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


class PackedConvolution:
    """A convolution whose weight lies as oneDNN wants it; a plain object, since packed tensors are neither saved nor moved.

    Args:
        weight: signed integers.
        weight_scale: of each row; may be negative.
        scale: of the input grid.
        zero_point: of the input grid.
        geometry: stride and so on.
    """

    def __init__(
        self,
        weight: Int8[Tensor, "rows c kh kw"],
        weight_scale: Float[Tensor, " rows"],
        scale: float,
        zero_point: int,
        geometry: Geometry = Geometry(),  # noqa: B008 - a tuple of numbers
    ):
        self.geometry = (list(geometry.stride), list(geometry.padding), list(geometry.dilation), geometry.groups)
        packed = _onednn.qconv_prepack(weight, weight_scale, scale, zero_point, *self.geometry, None)
        zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.grids = (scale, zero_point, packed, weight_scale, zeros)

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedConvolution:
        """Itself: nobody changes it, and packed tensors cannot be copied."""
        return self

    def __call__(self, codes: UInt8[Tensor, "n c h w"], bias: Float[Tensor, " rows"] | None = None) -> Float[Tensor, "n rows p q"]:
        """`conv((codes - zero_point) * scale, weight * weight_scale) + bias`, the sums of integers exact; padding is with value 0."""
        return _onednn.qconv2d_pointwise(codes, *self.grids, bias, *self.geometry, 1.0, 0, torch.float32, "none", [], "")


class DividedConvolution:
    """The same as two convolutions, for processors that add products in int16.

    Args:
        low: of codes up to `LARGEST_LOW`.
        high: of what is above, with zero point 0.
    """

    def __init__(self, low: PackedConvolution, high: PackedConvolution):
        self.low, self.high = low, high

    def __call__(self, codes: UInt8[Tensor, "n c h w"], bias: Float[Tensor, " rows"] | None = None) -> Float[Tensor, "n rows p q"]:
        """See `PackedConvolution`; the two sums are rounded to fp32 before they are added."""
        low = codes.clamp(max=LARGEST_LOW)
        return self.low(low, bias).add_(self.high(codes - low))


def exact_convolution(
    weight: Int8[Tensor, "rows c kh kw"],
    weight_scale: Float[Tensor, " rows"],
    scale: float,
    zero_point: int,
    geometry: Geometry = Geometry(),  # noqa: B008 - a tuple of numbers
) -> PackedConvolution | DividedConvolution:
    """A convolution whose sums this processor computes exactly; see `PackedConvolution` for the arguments."""
    whole = PackedConvolution(weight, weight_scale, scale, zero_point, geometry)
    if int(weight.short().abs().amax()) <= _SAFE_WEIGHT or sums_are_exact():
        return whole
    return DividedConvolution(whole, PackedConvolution(weight, weight_scale, scale, 0, geometry))


@cache
def sums_are_exact() -> bool:
    """Whether the sums of undivided codes are exact on this processor for any weights, tried out with the largest numbers."""
    weight = torch.tensor([127, -128], dtype=torch.int8).reshape(2, 1, 1, 1).repeat(16, 64, 1, 1)
    codes = torch.full((1, 64, 4, 4), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    return torch.equal(PackedConvolution(weight, torch.ones(32), 1.0, 0)(codes), F.conv2d(codes.float(), weight.float()))
