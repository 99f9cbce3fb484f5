"""Products of int8 matrices on a GPU: linear layers and 1x1 windows with stride 1, without image arithmetic.

A program computes one tile of the output after another, so that the next tile's operands are on their way
while one is stored. Operands and result move either through pointers, or in whole tiles through tensor
descriptors, which on Hopper are read by the tensor memory accelerator.
`edadm.kernels.int8.reference.convolution` says what it means.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from edadm.kernels.int8.products.launch import GROUP, Launch
from edadm.kernels.int8.products.operands import Operands


@triton.jit
@no_type_check
def block_at(index, row_blocks, column_blocks, GROUP: tl.constexpr):
    """Row and column of the index-th tile, in groups of `GROUP` row tiles."""
    group = index // (GROUP * column_blocks)
    first = group * GROUP
    members = tl.minimum(row_blocks - first, GROUP)
    inside_group = index % (GROUP * column_blocks)
    return first + inside_group % members, inside_group // members


@triton.jit
@no_type_check
def scaled(total, column, columns, scale_ptr, offset_ptr):
    """The epilogue of a tile: int32 sums in fp32, times their column's scale, plus its offset."""
    scale = tl.load(scale_ptr + column, mask=column < columns, other=0.0)
    offset = tl.load(offset_ptr + column, mask=column < columns, other=0.0)
    return total.to(tl.float32) * scale[None, :] + offset[None, :]


@triton.jit
@no_type_check
def load_residual(residual_ptr, row, column, rows, columns):
    """A tile of the residual, in fp32."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(
        residual_ptr + row.to(tl.int64)[:, None] * columns + column[None, :], mask=inside, other=0.0
    ).to(tl.float32)


@triton.jit
@no_type_check
def write_halves(
    total,
    row,
    column,
    rows,
    columns,
    scale_ptr,
    offset_ptr,
    residual_ptr,
    out,
    ADDS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Writes a tile through a descriptor, one half after the other, to need less shared memory."""
    HALF: tl.constexpr = COLUMNS // 2  # noqa: N806
    result = scaled(total, column + tl.arange(0, COLUMNS), columns, scale_ptr, offset_ptr)
    left, right = tl.split(tl.permute(tl.reshape(result, (ROWS, 2, HALF)), (0, 2, 1)))
    if ADDS:
        left += load_residual(
            residual_ptr, row + tl.arange(0, ROWS), column + tl.arange(0, HALF), rows, columns
        )
    out.store([row, column], left.to(out.dtype))
    if ADDS:
        right += load_residual(
            residual_ptr, row + tl.arange(0, ROWS), column + HALF + tl.arange(0, HALF), rows, columns
        )
    out.store([row, column + HALF], right.to(out.dtype))


@triton.jit
@no_type_check
def loaded(ptr, outer, inner, outer_size, inner_size, WHOLE: tl.constexpr):
    """A tile of a matrix, (outer, inner); 0 beyond its ends. With `WHOLE`, none reaches beyond the inner."""
    at = ptr + outer.to(tl.int64)[:, None] * inner_size + inner[None, :]
    if WHOLE:
        block = tl.load(at, mask=(outer < outer_size)[:, None], other=0)
    else:
        block = tl.load(at, mask=(outer < outer_size)[:, None] & (inner < inner_size)[None, :], other=0)
    return block


@triton.jit
@no_type_check
def gemm_kernel(
    x_ptr, weight_ptr, scale_ptr, offset_ptr, residual_ptr, out_ptr, rows, columns, channels,
    ADDS: tl.constexpr, WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Computes tiles of the output one after another, through pointers."""
    row_blocks, column_blocks = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    for index in tl.range(tl.program_id(0), row_blocks * column_blocks, tl.num_programs(0), flatten=True):
        row_block, column_block = block_at(index, row_blocks, column_blocks, GROUP)
        row, column = row_block * ROWS + tl.arange(0, ROWS), column_block * COLUMNS + tl.arange(0, COLUMNS)
        total = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
        for step in range(tl.cdiv(channels, DEPTH)):
            channel = step * DEPTH + tl.arange(0, DEPTH)
            a = loaded(x_ptr, row, channel, rows, channels, WHOLE)
            b = loaded(weight_ptr, column, channel, columns, channels, WHOLE)
            total = tl.dot(a, b.T, total, out_dtype=tl.int32)
        result = scaled(total, column, columns, scale_ptr, offset_ptr)
        if ADDS:
            result += load_residual(residual_ptr, row, column, rows, columns)
        target = row.to(tl.int64)[:, None] * columns + column[None, :]
        stored = (row < rows)[:, None] & (column < columns)[None, :]
        tl.store(out_ptr + target, result.to(out_ptr.dtype.element_ty), mask=stored)


@triton.jit
@no_type_check
def gemm_tma_kernel(
    x, weight, scale_ptr, offset_ptr, residual_ptr, out, rows, columns, channels,
    ADDS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Computes tiles of the output one after another, through tensor descriptors.

    What lies beyond a matrix's ends is read as 0 and not written.
    """
    row_blocks, column_blocks = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    for index in tl.range(tl.program_id(0), row_blocks * column_blocks, tl.num_programs(0), flatten=True):
        row_block, column_block = block_at(index, row_blocks, column_blocks, GROUP)
        row, column = row_block * ROWS, column_block * COLUMNS
        total = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
        for step in range(tl.cdiv(channels, DEPTH)):
            a, b = x.load([row, step * DEPTH]), weight.load([column, step * DEPTH])
            total = tl.dot(a, b.T, total, out_dtype=tl.int32)
        write_halves(
            total, row, column, rows, columns, scale_ptr, offset_ptr, residual_ptr, out, ADDS, ROWS, COLUMNS
        )


def described(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """The descriptor of a row-major matrix that is read or written in tiles of that size."""
    return TensorDescriptor.from_tensor(matrix, [rows, columns])


def run(operands: Operands, launch: Launch, out: Float[Tensor, "rows columns"]) -> None:
    """Fills `out` with the product of matrices, by the kernel of a launch of `gemm` or `gemm_tma`."""
    x, weight = operands.matrices
    (rows, channels), columns, tile = x.shape, len(weight), launch.tiles
    residual = operands.residual
    added = out if residual is None else residual.reshape(out.shape)
    vectors = operands.scale, operands.offset, added
    sizes = rows, columns, channels, residual is not None
    tiles = tile.rows, tile.columns, tile.depth, GROUP
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    if launch.kernel == "gemm_tma":
        inputs = described(x, tile.rows, tile.depth), described(weight, tile.columns, tile.depth)
        halves = described(out, tile.rows, tile.columns // 2)
        gemm_tma_kernel[launch.grid](*inputs, *vectors, halves, *sizes, *tiles, **options)
    else:
        whole = channels % tile.depth == 0
        gemm_kernel[launch.grid](x, weight, *vectors, out, *sizes, whole, *tiles, **options)
