"""Weights with learned fractional rounding, and its gradient, in one pass over memory each."""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from edadm.kernels.learning.geometry import BLOCK, Geometry, memory_like
from edadm.quant.rounding import GAMMA, ZETA


@triton.jit
@no_type_check
def _grid(scale_ptr, zero_ptr, offsets, inside, row_size, inner, channels, split, SEGMENTS: tl.constexpr):
    """Scale and zero point of each weight: its output channel's, and its input segment's if there are two."""
    index = offsets // row_size
    if SEGMENTS == 2:
        index = index * 2 + ((offsets // inner) % channels >= split).to(tl.int64)
    return tl.load(scale_ptr + index, mask=inside, other=1.0), tl.load(
        zero_ptr + index, mask=inside, other=0.0
    )


@triton.jit
@no_type_check
def _forward(
    base_ptr, alpha_ptr, weight_ptr, scale_ptr, zero_ptr, numel, row_size, inner, channels, split,
    TOP: tl.constexpr, STRETCH: tl.constexpr, LOW: tl.constexpr, SEGMENTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the values of soft codes."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < numel
    scale, zero_point = _grid(
        scale_ptr, zero_ptr, offsets, inside, row_size, inner, channels, split, SEGMENTS
    )
    fraction = tl.sigmoid(tl.load(alpha_ptr + offsets, mask=inside, other=0.0)) * STRETCH + LOW
    code = tl.load(base_ptr + offsets, mask=inside, other=0.0) + tl.minimum(tl.maximum(fraction, 0.0), 1.0)
    code = tl.minimum(tl.maximum(code, 0.0), TOP)
    tl.store(weight_ptr + offsets, (code - zero_point) * scale, mask=inside)


@triton.jit
@no_type_check
def _backward(
    gradient_ptr, base_ptr, alpha_ptr, gradient_alpha_ptr, scale_ptr, zero_ptr,
    numel, row_size, inner, channels, split,
    TOP: tl.constexpr, STRETCH: tl.constexpr, LOW: tl.constexpr, SEGMENTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of the rounding variables."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < numel
    scale, _ = _grid(scale_ptr, zero_ptr, offsets, inside, row_size, inner, channels, split, SEGMENTS)
    base = tl.load(base_ptr + offsets, mask=inside, other=0.0)
    sigmoid = tl.sigmoid(tl.load(alpha_ptr + offsets, mask=inside, other=0.0))
    fraction = sigmoid * STRETCH + LOW
    free = (fraction >= 0.0) & (fraction <= 1.0) & (base >= 0.0) & (base < TOP)
    slope = tl.where(free, sigmoid * (1.0 - sigmoid) * STRETCH * scale, 0.0)
    tl.store(
        gradient_alpha_ptr + offsets,
        slope * tl.load(gradient_ptr + offsets, mask=inside, other=0.0),
        mask=inside,
    )


class SoftWeight(torch.autograd.Function):
    """Soft weights of (base, alpha, scale, zero_point, bits, segments).

    See `edadm.kernels.learning.operations.soft_weight`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        base: Tensor,
        alpha: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        bits: int,
        segments: tuple[int, ...],
    ) -> Float[Tensor, " rows *s"]:
        weight = torch.empty_like(alpha)
        ctx.geometry = (alpha.numel(), alpha[0].numel(), *Geometry.of(alpha, segments))
        ctx.options = {
            "TOP": 2**bits - 1,
            "STRETCH": ZETA - GAMMA,
            "LOW": GAMMA,
            "SEGMENTS": len(segments),
            "BLOCK": BLOCK,
        }
        ctx.save_for_backward(base, alpha, scale, zero_point)
        _forward[(triton.cdiv(alpha.numel(), BLOCK),)](
            base, alpha, weight, scale, zero_point, *ctx.geometry, **ctx.options
        )
        return weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        base, alpha, scale, zero_point = ctx.saved_tensors
        gradient_alpha = torch.empty_like(alpha)
        _backward[(triton.cdiv(alpha.numel(), BLOCK),)](
            memory_like(gradients[0], alpha),
            base,
            alpha,
            gradient_alpha,
            scale,
            zero_point,
            *ctx.geometry,
            **ctx.options,
        )
        return None, gradient_alpha, None, None, None, None
