"""Fake quantization of activations in one pass over memory, forward and backward, with QDrop's mask."""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from edadm.kernels.learning.drawing import drawn_below
from edadm.kernels.learning.geometry import BLOCK, Geometry, memory_like
from edadm.quant.streams import Stream, threshold


@triton.jit
@no_type_check
def rounded(ratio, low, high):
    """The ratio rounded half to even and clamped.

    Adding 1.5 * 2^23 leaves no room for a fraction, and the first clamp keeps the sum exact.
    """
    magic: tl.constexpr = 12582912.0
    near = tl.minimum(tl.maximum(ratio, low - 1), high + 1)
    return tl.minimum(tl.maximum((near + magic) - magic, low), high)


@triton.jit
@no_type_check
def _grid(scale_ptr, zero_ptr, second, TOP: tl.constexpr, SEGMENTS: tl.constexpr):
    """Scale, smallest and largest integer of the grid; the second channel segment has its own."""
    scale, low = tl.load(scale_ptr), -tl.load(zero_ptr)
    if SEGMENTS == 2:
        scale = tl.where(second, tl.load(scale_ptr + 1), scale)
        low = tl.where(second, -tl.load(zero_ptr + 1), low)
    return scale, low, low + TOP


@triton.jit(do_not_specialize=["key", "below"])
@no_type_check
def _forward(
    x_ptr, y_ptr, scale_ptr, zero_ptr, step_ptr, numel, inner, channels, split, key, below,
    TOP: tl.constexpr, SEGMENTS: tl.constexpr, DROP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes fake-quantized activations, or the activations themselves where QDrop spares them."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < numel
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    scale, low, high = _grid(scale_ptr, zero_ptr, (offsets // inner) % channels >= split, TOP, SEGMENTS)
    y = rounded(tl.div_rn(x, tl.zeros_like(x) + scale), low, high) * scale
    if DROP:
        y = tl.where(drawn_below(offsets, key, tl.load(step_ptr), below), x, y)
    tl.store(y_ptr + offsets, y, mask=inside)


@triton.jit(do_not_specialize=["key", "below"])
@no_type_check
def _backward(
    gradient_ptr, x_ptr, gradient_x_ptr, partial_ptr, scale_ptr, zero_ptr, step_ptr,
    numel, inner, channels, split, key, below,
    TOP: tl.constexpr, SEGMENTS: tl.constexpr, DROP: tl.constexpr, NEEDS_X: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the activations' gradient, and a program's part of the scales' gradients."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < numel
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    gradient = tl.load(gradient_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    second = (offsets // inner) % channels >= split
    scale, low, high = _grid(scale_ptr, zero_ptr, second, TOP, SEGMENTS)
    ratio = tl.div_rn(x, tl.zeros_like(x) + scale)
    beyond = rounded(ratio, low - 1, high + 1)
    code = tl.minimum(tl.maximum(beyond, low), high)
    within = beyond == code
    slope = gradient * tl.where(within, code - ratio, code)
    gradient_x = tl.where(within, gradient, 0.0)
    if DROP:
        spared = drawn_below(offsets, key, tl.load(step_ptr), below)
        slope = tl.where(spared, 0.0, slope)
        gradient_x = tl.where(spared, gradient, gradient_x)
    if NEEDS_X:
        tl.store(gradient_x_ptr + offsets, gradient_x, mask=inside)
    tl.store(
        partial_ptr + tl.program_id(0) * SEGMENTS,
        tl.sum(tl.where(second, 0.0, slope) if SEGMENTS == 2 else slope),
    )
    if SEGMENTS == 2:
        tl.store(partial_ptr + tl.program_id(0) * SEGMENTS + 1, tl.sum(tl.where(second, slope, 0.0)))


class FakeQuantize(torch.autograd.Function):
    """Fake quantization of (x, scale, zero_point, bits, segments, drop, stream).

    See `edadm.kernels.learning.operations.fake_quantize`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        bits: int,
        segments: tuple[int, ...],
        drop: float,
        stream: Stream | None,
    ) -> Float[Tensor, "*s"]:
        x = memory_like(x)
        y = torch.empty_like(
            x
        )  # an operation on `x` before the kernel: `offload.paused` sees it and brings `x` back
        geometry = Geometry.of(x, segments)
        draw = (stream.key, threshold(drop)) if stream is not None and drop > 0 else (0, 0)
        shared = (scale, zero_point, scale if stream is None else stream.step, x.numel(), *geometry, *draw)
        options = {"TOP": 2**bits - 1, "SEGMENTS": len(segments), "DROP": draw != (0, 0), "BLOCK": BLOCK}
        _forward[(triton.cdiv(x.numel(), BLOCK),)](x, y, *shared, **options)
        ctx.save_for_backward(x, scale, zero_point)
        ctx.geometry, ctx.draw, ctx.stream, ctx.options = geometry, draw, stream, options
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, zero_point = ctx.saved_tensors
        gradient = memory_like(gradients[0], x)
        programs, segments = triton.cdiv(x.numel(), BLOCK), ctx.options["SEGMENTS"]
        partial = torch.empty(programs, segments, device=x.device, dtype=torch.float32)
        needs_x = ctx.needs_input_grad[0]
        gradient_x = torch.empty_like(x) if needs_x else partial
        step = scale if ctx.stream is None else ctx.stream.step
        _backward[(programs,)](
            gradient,
            x,
            gradient_x,
            partial,
            scale,
            zero_point,
            step,
            x.numel(),
            *ctx.geometry,
            *ctx.draw,
            NEEDS_X=needs_x,
            **ctx.options,
        )
        gradient_scale = partial.sum(0) if ctx.needs_input_grad[1] else None
        return gradient_x if needs_x else None, gradient_scale, None, None, None, None, None
