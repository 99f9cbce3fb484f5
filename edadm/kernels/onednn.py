"""Convolutions of integers on a CPU, by either of two routes.

`PackedConvolution` multiplies uint8 codes with int8 weights in int32, by oneDNN with AMX or VNNI where the
processor has it; PyTorch carries these operations for its compiler's int8 path (`torch.ops.onednn`).
`FloatConvolution` multiplies the same integers as floating-point numbers, in parts so small that no sum can
reach 2^24, and so every one is exact. Both turn the sum into fp32, multiply by the row's scale and add the
bias, each with one rounding. Where the sum of all parts cannot reach 2^24 either, both therefore give the
same bits, on every processor; where it can, oneDNN may round sum and zero point apart.

Without VNNI or AMX pairs of products are added by saturating int16 instructions, which only weights up to 64
survive; larger ones take the other route there.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.nn import functional as F

from edadm.errors import EdadmError

_onednn: Any = torch.ops.onednn

CODES = 256
SAFE_WEIGHT = 64  # 2 * 255 * 64 < 2^15
_X86 = ("x86_64", "AMD64")
_ROUNDS = 3  # of each route when they are timed
_EXACT = 2**24  # integers up to here are floating-point numbers


Route = Callable[[Tensor, Tensor | None], Tensor]


class Geometry(NamedTuple):
    """How a convolution moves over its input."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


class Problem(NamedTuple):
    """A convolution of integers: `conv((codes - zero_point) * scale, weight * weight_scale)`; padding is with value 0.

    Args:
        weight: signed integers.
        weight_scale: of each row; may be negative.
        scale: of the input grid.
        zero_point: of the input grid.
        geometry: stride and so on.
    """

    weight: Int8[Tensor, "rows c kh kw"]
    weight_scale: Float[Tensor, " rows"]
    scale: float
    zero_point: int
    geometry: Geometry = Geometry()


class PackedConvolution:
    """A convolution whose weight lies as oneDNN wants it; a plain object, since packed tensors are neither saved nor moved."""

    def __init__(self, problem: Problem):
        weight, weight_scale, scale, self.zero_point, geometry = problem
        self.geometry = (
            list(geometry.stride),
            list(geometry.padding),
            list(geometry.dilation),
            geometry.groups,
        )
        scales = (
            weight_scale * scale
        )  # oneDNN's kernels multiply by two scales in different orders, and one of the two is 1
        packed = _onednn.qconv_prepack(weight, scales, 1.0, self.zero_point, *self.geometry, None)
        zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.grids = (1.0, self.zero_point, packed, scales, zeros)

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedConvolution:
        """Itself: nobody changes it, and packed tensors cannot be copied."""
        return self

    def codes(self, integers: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Codes of a channels-last tensor of codes minus zero point, which is spoiled."""
        if self.zero_point != 128:
            integers.add_(self.zero_point - 128)
        return (
            integers.to(torch.int8).view(torch.uint8).add_(128)
        )  # wraps; conversion from float is three times faster to int8

    def __call__(
        self, integers: Float[Tensor, "n c h w"], bias: Float[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "n rows p q"]:
        """The problem's result plus the bias; spoils the integers, which are codes minus zero point."""
        codes = self.codes(integers)
        return _onednn.qconv2d_pointwise(
            codes, *self.grids, bias, *self.geometry, 1.0, 0, torch.float32, "none", [], ""
        )


class FloatConvolution:
    """The same with floating-point instructions, on any processor; weights take four bytes.

    The input channels are cut into as few parts as the weights allow whose sums stay below 2^24, in whatever
    order they are added.
    """

    def __init__(self, problem: Problem):
        weight, weight_scale, scale, zero_point, self.geometry = problem
        ends = exact_parts(weight, zero_point)
        self.slices = [slice(*part) for part in pairwise(ends)]
        wide = weight.float()
        self.weights = [wide[:, part].contiguous(memory_format=torch.channels_last) for part in self.slices]
        self.scale = (weight_scale * scale)[:, None, None]
        self.of_points = weight.shape[2:] == (1, 1) and self.geometry == Geometry()

    def __call__(
        self, integers: Float[Tensor, "n c h w"], bias: Float[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "n rows p q"]:
        """The problem's result plus the bias; `integers` are codes minus zero point."""
        output = self._sums(integers).mul_(self.scale)
        return output if bias is None else output.add_(bias.view(-1, 1, 1))

    def _sums(self, integers: Float[Tensor, "n c h w"]) -> Float[Tensor, "n rows p q"]:
        with (
            nullcontext() if _has_onednn() else torch.backends.nnpack.flags(enabled=False)
        ):  # NNPACK's transforms round
            return self._added(integers)

    def _added(self, integers: Float[Tensor, "n c h w"]) -> Float[Tensor, "n rows p q"]:
        if len(self.slices) == 1:
            return self._product(integers, self.weights[0])
        groups = integers.unflatten(1, (self.geometry.groups, -1))
        total: Any = 0.0
        for part, weight in zip(self.slices, self.weights, strict=True):
            total = self._product(groups[:, :, part].flatten(1, 2), weight).double() + total
        return total.float()

    def _product(
        self, integers: Float[Tensor, "n c h w"], weight: Float[Tensor, "rows k kh kw"]
    ) -> Float[Tensor, "n rows p q"]:
        if self.of_points:  # a convolution of one column would not return channels last
            return F.linear(integers.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)
        return F.conv2d(integers, weight, None, *self.geometry)


def exact_parts(weight: Int8[Tensor, "rows c kh kw"], zero_point: int) -> list[int]:
    """Where to cut the channels of a weight (axis 1) so that no sum within a part reaches 2^24 for any codes; with both ends.

    Raises:
        EdadmError: one channel alone reaches it, which takes a kernel of more than 512 positions.
    """
    wide = weight.flatten(2).long()
    above, below = wide.clamp(min=0).sum(2), wide.clamp(max=0).neg().sum(2)
    low, high = zero_point, CODES - 1 - zero_point
    sums = torch.cat(
        [above * high + below * low, above * low + below * high]
    )  # of positive products, and of negative ones
    if sums.max() >= _EXACT:
        raise EdadmError(
            f"a kernel of {weight[0, 0].numel()} positions is too large for exact sums; use backend 'simulated'"
        )
    sums, ends = sums.cumsum(1), [0]
    while ends[-1] < weight.shape[1]:
        before = sums[:, ends[-1] - 1 : ends[-1]] if ends[-1] else 0
        fits = (sums[:, ends[-1] :] - before < _EXACT).all(0)
        ends.append(ends[-1] + int(fits.sum()))
    return ends


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def packed_is_exact(weight: Int8[Tensor, "rows c kh kw"]) -> bool:
    """Whether this processor and this build of PyTorch compute the convolution exactly by `PackedConvolution`."""
    return (
        _has_onednn()
        and platform.machine() in _X86
        and (int(weight.short().abs().amax()) <= SAFE_WEIGHT or sums_are_exact())
    )


@cache
def sums_are_exact() -> bool:
    """Whether oneDNN's sums of integers are exact on this processor for any weights, tried out with the largest numbers."""
    weight = torch.tensor([127, -128], dtype=torch.int8).reshape(2, 1, 1, 1).repeat(16, 64, 1, 1)
    integers = torch.full((1, 64, 4, 4), 255.0).contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(integers, weight.float())
    return torch.equal(PackedConvolution(Problem(weight, torch.ones(32), 1.0, 0))(integers), expected)


class ExactConvolution:
    """A problem by a route that is exact here; by the faster one where both are and give the same bits.

    That is timed at the first input of each shape. While `torch.compile` looks, there is no clock, and
    integers are the route.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.packed = PackedConvolution(problem) if packed_is_exact(problem.weight) else None
        self.floating = None if self.packed else FloatConvolution(problem)
        self.interchangeable = (
            len(exact_parts(problem.weight, 0)) == 2
        )  # no zero point has larger sums than 0
        self.fastest: dict[torch.Size, Route] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> ExactConvolution:
        """Itself, as `PackedConvolution`."""
        return self

    def __call__(
        self, integers: Float[Tensor, "n c h w"], bias: Float[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "n rows p q"]:
        """The problem's result plus the bias; spoils the integers, which are codes minus zero point, channels last."""
        return self._route(integers, bias)(integers, bias)

    def _route(self, integers: Tensor, bias: Tensor | None) -> Route:
        if self.packed is None:
            assert self.floating is not None
            return self.floating
        if not self.interchangeable or torch.compiler.is_compiling():
            return self.packed
        if integers.shape not in self.fastest:
            self.floating = self.floating or FloatConvolution(self.problem)
            routes: tuple[Route, ...] = (self.packed, self.floating)
            self.fastest[integers.shape] = min(routes, key=lambda route: _seconds(route, integers, bias))
            if self.floating not in self.fastest.values():
                self.floating = None  # four bytes a weight
        return self.fastest[integers.shape]


def _seconds(route: Route, integers: Tensor, bias: Tensor | None) -> float:
    """The least time of some rounds, after one that does not count."""
    times = []
    for _ in range(_ROUNDS + 1):
        spoiled = integers.clone()
        begin = time.perf_counter()
        route(spoiled, bias)
        times.append(time.perf_counter() - begin)
    return min(times[1:])
