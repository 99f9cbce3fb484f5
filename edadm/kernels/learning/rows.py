"""Calibration rows drawn from two data sets at once, and errors against rows of a third, without copies."""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from edadm.kernels.learning.drawing import drawn_below
from edadm.kernels.learning.geometry import BLOCK, memory_like
from edadm.quant.streams import Stream, threshold


@triton.jit(do_not_specialize=["key", "below"])
@no_type_check
def _mixed(a_ptr, b_ptr, rows_ptr, out_ptr, step_ptr, row_size, key, below, BLOCK: tl.constexpr):
    """Writes rows whose elements come from either data set, as a mask drawn on the way says."""
    row = tl.program_id(1).to(tl.int64)
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < row_size
    source = tl.load(rows_ptr + row) * row_size + offsets
    target = row * row_size + offsets
    first = drawn_below(target, key, tl.load(step_ptr), below)
    a = tl.load(a_ptr + source, mask=inside & first, other=0.0)
    b = tl.load(b_ptr + source, mask=inside & (first == 0), other=0.0)
    tl.store(out_ptr + target, tl.where(first, a, b), mask=inside)


def mixed_rows(
    a: Float[Tensor, " n *s"],
    b: Float[Tensor, " n *s"],
    rows: Int[Tensor, " k"],
    probability: float,
    stream: Stream,
) -> Float[Tensor, " k *s"]:
    """Rows `torch.where(mask, a[rows], b[rows])` of a random mask; both data sets lie alike in memory.

    The mask is true with `probability`, in (0, 1].
    """
    out = torch.empty_strided((len(rows), *a.shape[1:]), a.stride(), dtype=a.dtype, device=a.device)
    row_size = a[0].numel()
    _mixed[(triton.cdiv(row_size, BLOCK), len(rows))](
        a, b, rows, out, stream.step, row_size, stream.key, threshold(probability), BLOCK=BLOCK
    )
    return out


@triton.jit
@no_type_check
def _squares(output_ptr, target_ptr, rows_ptr, partial_ptr, row_size, BLOCK: tl.constexpr):
    """Writes a program's sum of squared differences to rows of the target."""
    row = tl.program_id(1).to(tl.int64)
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < row_size
    output = tl.load(output_ptr + row * row_size + offsets, mask=inside, other=0.0).to(tl.float32)
    target = tl.load(target_ptr + tl.load(rows_ptr + row) * row_size + offsets, mask=inside, other=0.0).to(
        tl.float32
    )
    difference = output - target
    tl.store(partial_ptr + row * tl.num_programs(0) + tl.program_id(0), tl.sum(difference * difference))


@triton.jit
@no_type_check
def _slopes(
    upstream_ptr, output_ptr, target_ptr, rows_ptr, gradient_ptr, row_size, factor, BLOCK: tl.constexpr
):
    """Writes the gradient of the squared error."""
    row = tl.program_id(1).to(tl.int64)
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < row_size
    output = tl.load(output_ptr + row * row_size + offsets, mask=inside, other=0.0).to(tl.float32)
    target = tl.load(target_ptr + tl.load(rows_ptr + row) * row_size + offsets, mask=inside, other=0.0).to(
        tl.float32
    )
    gradient = (output - target) * (factor * tl.load(upstream_ptr))
    tl.store(gradient_ptr + row * row_size + offsets, gradient, mask=inside)


class RowsError(torch.autograd.Function):
    """The squared error of (output, target, rows); see `edadm.kernels.learning.operations.rows_error`."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, target: Tensor, rows: Tensor) -> Float[Tensor, ""]:
        output = memory_like(output, target)
        row_size = output[0].numel()
        grid = (triton.cdiv(row_size, BLOCK), len(rows))
        partial = torch.empty(grid[1] * grid[0], device=output.device, dtype=torch.float32)
        _squares[grid](output, target, rows, partial, row_size, BLOCK=BLOCK)
        ctx.save_for_backward(output, target, rows)
        ctx.factor = output.shape[1] / output.numel()
        return partial.sum() * ctx.factor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        output, target, rows = ctx.saved_tensors
        gradient = torch.empty_like(output)
        row_size = output[0].numel()
        grid = (triton.cdiv(row_size, BLOCK), len(rows))
        _slopes[grid](gradients[0], output, target, rows, gradient, row_size, 2 * ctx.factor, BLOCK=BLOCK)
        return gradient, None, None
