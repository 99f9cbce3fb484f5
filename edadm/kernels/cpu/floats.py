"""Convolutions of integers by floating-point instructions, in parts so small that every sum is exact."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int8
from torch import Tensor
from torch.nn import functional as F

from edadm.errors import EdadmError
from edadm.kernels.cpu.geometry import Geometry, Problem
from edadm.kernels.cpu.onednn import has_onednn

CODES = 256
_EXACT = 2**24  # integers up to here are floating-point numbers


class FloatConvolution:
    """The convolution of a problem with floating-point instructions; its weights take four bytes.

    The input channels are cut into as few parts as the weights allow whose sums stay below 2^24, in whatever
    order they are added.
    """

    def __init__(self, problem: Problem):
        weight, weight_scale, scale, zero_point, self.geometry = problem
        self.slices = [slice(*part) for part in pairwise(exact_parts(weight, zero_point))]
        wide = weight.float()
        self.weights = [wide[:, part].contiguous(memory_format=torch.channels_last) for part in self.slices]
        self.scale = (weight_scale * scale)[:, None, None]
        self.of_points = weight.shape[2:] == (1, 1) and self.geometry == Geometry()

    def __call__(
        self, integers: Float[Tensor, "n c h w"], bias: Float[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "n rows p q"]:
        """The convolution plus the bias; `integers` are codes minus zero point."""
        output = self._sums(integers).mul_(self.scale)
        return output if bias is None else output.add_(bias.view(-1, 1, 1))

    def _sums(self, integers: Float[Tensor, "n c h w"]) -> Float[Tensor, "n rows p q"]:
        """The exact sums of all parts, rounded once to fp32."""
        exact = nullcontext() if has_onednn() else torch.backends.nnpack.flags(enabled=False)
        with exact:  # NNPACK's transforms round
            return self._added(integers)

    def _added(self, integers: Float[Tensor, "n c h w"]) -> Float[Tensor, "n rows p q"]:
        """The sum of the convolutions of all parts, in fp64 where there are several."""
        if len(self.slices) == 1:
            return self._convolve(integers, self.weights[0])
        groups = integers.unflatten(1, (self.geometry.groups, -1))
        total: Any = 0.0
        for part, weight in zip(self.slices, self.weights, strict=True):
            total = self._convolve(groups[:, :, part].flatten(1, 2), weight).double() + total
        return total.float()

    def _convolve(
        self, integers: Float[Tensor, "n c h w"], weight: Float[Tensor, "rows k kh kw"]
    ) -> Float[Tensor, "n rows p q"]:
        """The convolution of one part."""
        if self.of_points:  # a convolution of one column would not return channels last
            return F.linear(integers.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)
        return F.conv2d(integers, weight, None, *self.geometry)


def exact_parts(weight: Int8[Tensor, "rows c kh kw"], zero_point: int) -> list[int]:
    """The channels (axis 1) at which to cut a weight so that no sum within a part reaches 2^24 for any codes.

    The first and the last channel's end are among them.

    Raises:
        EdadmError: one channel alone reaches it, which takes a kernel of more than 512 positions.
    """
    wide = weight.flatten(2).long()
    above, below = wide.clamp(min=0).sum(2), wide.clamp(max=0).neg().sum(2)
    low, high = zero_point, CODES - 1 - zero_point
    # of positive products, and of negative ones
    sums = torch.cat([above * high + below * low, above * low + below * high])
    if sums.max() >= _EXACT:
        positions = weight[0, 0].numel()
        raise EdadmError(
            f"a kernel of {positions} positions is too large for exact sums; use backend 'simulated'"
        )
    sums = sums.cumsum(1)
    cuts = [0]
    while cuts[-1] < weight.shape[1]:
        before = sums[:, cuts[-1] - 1 : cuts[-1]] if cuts[-1] else 0
        fits = (sums[:, cuts[-1] :] - before < _EXACT).all(0)
        cuts.append(cuts[-1] + int(fits.sum()))
    return cuts
