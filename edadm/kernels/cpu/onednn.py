"""Convolutions of integers by oneDNN: uint8 codes times int8 weights in int32, by AMX or VNNI if there.

PyTorch carries these operations for its compiler's int8 path (`torch.ops.onednn`). The sum becomes fp32, is
multiplied by the row's scale and the bias is added, each with one rounding. Without VNNI or AMX pairs of
products are added by saturating int16 instructions, which only weights up to 64 survive.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.nn import functional as F

from edadm.kernels.cpu.geometry import Problem

_onednn: Any = torch.ops.onednn

SAFE_WEIGHT = 64  # 2 * 255 * 64 < 2^15
_X86 = ("x86_64", "AMD64")


class PackedConvolution:
    """A convolution whose weight lies as oneDNN wants it; no module, since packed tensors cannot be saved."""

    def __init__(self, problem: Problem):
        weight, weight_scale, scale, self.zero_point, geometry = problem
        self.geometry = [*map(list, geometry[:3]), geometry.groups]
        # oneDNN's kernels multiply by two scales in different orders, and one of the two is 1
        scales = weight_scale * scale
        packed = _onednn.qconv_prepack(weight, scales, 1.0, self.zero_point, *self.geometry, None)
        zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.grids = (1.0, self.zero_point, packed, scales, zeros)

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedConvolution:
        """Itself: nobody changes it, and packed tensors cannot be copied."""
        return self

    def codes(self, integers: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """The codes of a channels-last tensor of codes minus zero point, which is spoiled."""
        if self.zero_point != 128:
            integers.add_(self.zero_point - 128)
        # wraps; conversion from float is three times faster to int8
        return integers.to(torch.int8).view(torch.uint8).add_(128)

    def __call__(
        self, integers: Float[Tensor, "n c h w"], bias: Float[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "n rows p q"]:
        """The convolution plus the bias; spoils the integers, which are codes minus zero point."""
        codes = self.codes(integers)
        output = 1.0, 0, torch.float32  # its scale, zero point and type
        return _onednn.qconv2d_pointwise(codes, *self.grids, bias, *self.geometry, *output, "none", [], "")


def has_onednn() -> bool:
    """Whether this build of PyTorch has oneDNN, and it is switched on."""
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def packed_is_exact(weight: Int8[Tensor, "rows c kh kw"]) -> bool:
    """Whether `PackedConvolution` computes a weight's convolution exactly on this processor and build."""
    small = int(weight.short().abs().amax()) <= SAFE_WEIGHT
    return has_onednn() and platform.machine() in _X86 and (small or sums_are_exact())


@cache
def sums_are_exact() -> bool:
    """Whether oneDNN's sums are exact on this processor for any weights, tried out with the largest."""
    weight = torch.tensor([127, -128], dtype=torch.int8).reshape(2, 1, 1, 1).repeat(16, 64, 1, 1)
    integers = torch.full((1, 64, 4, 4), 255.0).contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(integers, weight.float())
    return torch.equal(PackedConvolution(Problem(weight, torch.ones(32), 1.0, 0))(integers), expected)
