"""Affine fake quantization on an unsigned grid, and its gradients.

A grid of `bits` has levels 0 .. 2^bits - 1. With scale s > 0 and integer zero point z, `code = clamp(round(x
/ s) + z, 0, 2^bits - 1)` and the value of a code is `(code - z) * s`; round is half to even.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

SMALLEST_SCALE = 1e-8
CACHED = 2**16  # elements that a processor's own cache holds while all steps pass over them

Bound = float | Tensor


def scale_and_zero_point(
    low: Float[Tensor, "*s"], high: Float[Tensor, "*s"], bits: int
) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"]]:
    """The grid that covers [low, high], widened to contain 0.

    Symmetric ranges (low = -high) get zero point 2^(bits-1), that is signed two's complement; in the official
    code the half-integer -low/s leaves it to float rounding whether it is that or one less (quirk Q14). For
    weights at 4 bits that is not the same: see `edadm.quant.ranges.best_off_centre_range`.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    top = 2**bits - 1
    scale = ((high - low) / top).clamp(min=SMALLEST_SCALE)
    zero_point = (-torch.round(low / scale)).clamp(0, top)
    return scale, torch.where(low == -high, torch.full_like(zero_point, 2 ** (bits - 1)), zero_point)


def quantize(
    x: Float[Tensor, "*s"], scale: Float[Tensor, "..."], zero_point: Float[Tensor, "..."], bits: int
) -> Float[Tensor, "*s"]:
    """The integer codes of values, in [0, 2^bits - 1], as floats; the grid broadcasts against `x`."""
    return (torch.round(x / scale) + zero_point).clamp_(0, 2**bits - 1)


def dequantize(
    codes: Shaped[Tensor, "*s"], scale: Float[Tensor, "..."], zero_point: Float[Tensor, "..."]
) -> Float[Tensor, "*s"]:
    """The values of integer codes."""
    return (codes.to(scale.dtype) - zero_point) * scale


def _in_pieces(x: Tensor, *grid: Bound) -> bool:
    """Whether a CPU takes a tensor piece by piece: it is large, and all rows (axis 0) have one grid."""
    if x.device.type != "cpu" or x.numel() <= CACHED or torch.compiler.is_compiling():
        return False
    tensors = [bound for bound in grid if isinstance(bound, Tensor)]
    return all(bound.dtype == x.dtype and (bound.dim() < x.dim() or len(bound) == 1) for bound in tensors)


class _FakeQuantize(torch.autograd.Function):
    """Fake quantization with a straight-through round (LSQ, arXiv 1902.08153, without its gradient scale).

    d/dx is 1 inside the grid and 0 outside; d/ds is `round(x/s) - x/s` inside and the clipped integer
    outside.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Any, high: Any) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.low, ctx.high = low, high
        if not _in_pieces(x, scale, low, high):
            return x.div(scale).round_().clamp_(low, high).mul_(scale)
        values, rows = torch.empty_like(x), max(1, CACHED * len(x) // x.numel())
        for part, target in zip(x.split(rows), values.split(rows), strict=True):
            torch.div(part, scale, out=target).round_().clamp_(low, high).mul_(scale)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, scale = ctx.saved_tensors
        ratio = x / scale
        rounded = torch.round(ratio)
        clipped = rounded.clamp(ctx.low, ctx.high)
        inside = rounded == clipped
        gradient_x = gradient * inside if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return gradient_x, None, None, None
        slope = clipped.addcmul_(ratio, inside.to(ratio.dtype), value=-1)
        return gradient_x, (gradient * slope).sum_to_size(scale.shape), None, None


def qmin_qmax(zero_point: Float[Tensor, "..."], bits: int) -> tuple[Bound, Bound]:
    """The smallest and the largest signed integer of a grid, as numbers where all zero points are equal.

    Clamping is then faster.
    """
    low = -zero_point
    if zero_point.numel() and bool((zero_point == zero_point.flatten()[0]).all()):
        smallest = low.flatten()[0].item()
        return smallest, smallest + 2**bits - 1
    return low, low + 2**bits - 1


def fake_quantize(
    x: Float[Tensor, "*s"], scale: Float[Tensor, "..."], low: Bound, high: Bound
) -> Float[Tensor, "*s"]:
    """Fake quantization, differentiable in `x` and `scale` (method, 3.1 and 3.7).

    Args:
        x: what is quantized.
        scale: broadcasts against `x`.
        low: from `qmin_qmax`, broadcasting against `x` if a tensor.
        high: likewise.
    """
    return _FakeQuantize.apply(x, scale, low, high)
