"""The segment of an integer layer: int8 weight, grid of the input, scale and offset of the epilogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

from edadm.deploy.fuse.exact import Exact
from edadm.kernels.dispatch import refuse_scattered
from edadm.kernels.int8 import reference
from edadm.kernels.packing import pack4, unpack4


@dataclass(frozen=True)
class InputGrid:
    """The quantization grid of a segment of a layer's input.

    Attributes:
        scale: fp32 scalar.
        zero_point: in [0, 255].
        bits: width, at most 8.
        smooth: powers of two that the channels are divided by first, where they are smoothed.
    """

    scale: Float[Tensor, ""]
    zero_point: int
    bits: int
    smooth: Float[Tensor, " c"] | None = None


class IntegerSegment(Exact):
    """The int8 weight that a segment of input channels is multiplied with, and its scales.

    Buffers: `weight` (int8, OHWI), or its codes packed two per byte and their zero points; `input_scale`, and
    `grid`, that scale with the smallest and largest integer and the shift, for
    `edadm.kernels.int8.reference.normalised`; `smooth`, the factors of a smoothed input's channels, and
    `divisor`, what its channels are divided by, or neither; `scale` and `offset` per output channel, fp32
    whatever the network is cast to. A zero point z of the input adds (128 - z) times the sum of a row's
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
    smooth: Tensor | None
    divisor: Tensor | None
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
        self.qmin_qmax = float(-grid.zero_point), float(2**grid.bits - 1 - grid.zero_point)
        scale = (row_scale.double() * grid.scale.double()).float()
        self.register_buffer("input_scale", grid.scale.float().reshape(()).clone())
        self.register_buffer(
            "grid", torch.tensor([grid.scale.item(), *self.qmin_qmax, self.zero], device=scale.device)
        )
        smooth = None if grid.smooth is None else grid.smooth.float().clone()
        self.register_buffer("smooth", smooth)
        self.register_buffer("divisor", None if smooth is None else self.input_scale * smooth)
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
        """Keeps the weight OHWI when the network is laid out with its channels last."""
        super()._apply(fn, recurse)
        if not self.packed:
            self.weight = self.weight.contiguous()
        return self

    def integers(self) -> Int8[Tensor, "o k k c"]:
        """The integer weight, unpacked."""
        if not self.packed:
            return self.weight
        return unpack4(self.codes, self.shape).to(torch.int8) - self.zero_points[:, None, None, None]

    def quantize_input(self, x: Float[Tensor, "*n c"]) -> Int8[Tensor, "*n c"]:
        """The int8 numbers of an input on its grid, codes less 128.

        Raises:
            EdadmError: the grid lies on another device, as where off-loading took it along.
        """
        divisor = self.input_scale if self.divisor is None else self.divisor
        refuse_scattered(x, divisor)
        return reference.quantize(x, divisor, *self.qmin_qmax, self.zero)

    def divide_rows(self, factors: Float[Tensor, " o"]) -> None:
        """Divides the output channels by powers of two, in the epilogue, which rounds as before."""
        self.scale, self.offset = self.scale / factors, self.offset / factors
