"""The implicit GEMM that computes any convolution or linear layer of int8 numbers on a GPU, with int32 sums.

A row of the GEMM is a pixel of the output, a column an output channel; the inner dimension runs over the
window's taps and, within each, over steps of input channels. `edadm.kernels.int8.reference.convolution` says
what it means.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from edadm.kernels.int8.products.gemm import block_at, scaled
from edadm.kernels.int8.products.launch import GROUP, Launch
from edadm.kernels.int8.products.operands import Operands
from edadm.kernels.int8.products.split_k import finish


@triton.jit
@no_type_check
def implicit_gemm_kernel(
    x_ptr, weight_ptr, scale_ptr, offset_ptr, residual_ptr, out_ptr, rows, height, width,
    out_height, out_width, columns,
    CHANNELS: tl.constexpr, SIDE: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
    ZERO: tl.constexpr, ADDS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Computes one tile of the output; with splits, adds a part of its sums to those of other programs."""
    row_blocks, column_blocks = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    row_block, column_block = block_at(tl.program_id(0), row_blocks, column_blocks, GROUP)
    row, column, depth = (
        row_block * ROWS + tl.arange(0, ROWS),
        column_block * COLUMNS + tl.arange(0, COLUMNS),
        tl.arange(0, DEPTH),
    )
    image, pixel = row // (out_height * out_width), row % (out_height * out_width)
    top, left = pixel // out_width * STRIDE - PADDING, pixel % out_width * STRIDE - PADDING
    weight_row = weight_ptr + column * (SIDE * SIDE * CHANNELS)
    BLOCKS: tl.constexpr = (CHANNELS + DEPTH - 1) // DEPTH  # noqa: N806
    STEPS: tl.constexpr = (SIDE * SIDE * BLOCKS + SPLITS - 1) // SPLITS  # noqa: N806
    begin = tl.program_id(1) * STEPS
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
    for index in range(begin, tl.minimum(begin + STEPS, SIDE * SIDE * BLOCKS)):
        tap, channel = index // BLOCKS, index % BLOCKS * DEPTH + depth
        y, x = top + tap // SIDE, left + tap % SIDE
        source = ((image * height + y) * width + x) * CHANNELS
        if PADDING > 0:  # decided while the kernel is compiled
            within = (row < rows) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        else:
            within = row < rows
        if CHANNELS % DEPTH == 0:
            a = tl.load(x_ptr + source[:, None] + channel[None, :], mask=within[:, None], other=ZERO)
            b = tl.load(
                weight_row[None, :] + tap * CHANNELS + channel[:, None],
                mask=(column < columns)[None, :],
                other=0,
            )
        else:  # whatever stands in channels beyond the last is multiplied by 0
            a = tl.load(
                x_ptr + source[:, None] + channel[None, :],
                mask=within[:, None] & (channel < CHANNELS)[None, :],
                other=ZERO,
            )
            known = (column < columns)[None, :] & (channel < CHANNELS)[:, None]
            b = tl.load(weight_row[None, :] + tap * CHANNELS + channel[:, None], mask=known, other=0)
        total = tl.dot(a, b, total, out_dtype=tl.int32)
    target = row.to(tl.int64)[:, None] * columns + column[None, :]
    stored = (row < rows)[:, None] & (column < columns)[None, :]
    if SPLITS > 1:
        tl.atomic_add(out_ptr + target, total, mask=stored, sem="relaxed")
    else:
        result = scaled(total, column, columns, scale_ptr, offset_ptr)
        if ADDS:
            result += tl.load(residual_ptr + target, mask=stored, other=0.0).to(tl.float32)
        tl.store(out_ptr + target, result.to(out_ptr.dtype.element_ty), mask=stored)


def run(operands: Operands, launch: Launch, out: Float[Tensor, "n p q o"]) -> None:
    """Fills `out` with the convolution."""
    x, weight, tile = operands.x, operands.weight, launch.tiles
    problem, residual = operands.problem, operands.residual
    sums = out if tile.splits == 1 else torch.zeros(out.shape, dtype=torch.int32, device=x.device)
    vectors = operands.scale, operands.offset, out if residual is None else residual
    sizes = problem.rows, *x.shape[1:3], *out.shape[1:3], problem.columns
    zero = operands.zero if operands.padding else 0
    window = problem.channels, problem.side, operands.stride, operands.padding, zero, residual is not None
    tiles = tile.rows, tile.columns, tile.depth, GROUP, tile.splits
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    implicit_gemm_kernel[launch.grid](x, weight, *vectors, sums, *sizes, *window, *tiles, **options)
    if tile.splits > 1:
        finish(sums, operands.scale, operands.offset, residual, out)
