"""Products of int8 matrices on a GPU: linear layers and 1x1 windows with stride 1, without an image's arithmetic.

A program computes one block of the output after another, so that the next block's operands are on their way
while one is stored. Operands and result move either through pointers, or in whole blocks through tensor
descriptors, which on Hopper are read by the tensor memory accelerator. `edadm.kernels.int8.reference.convolution`
says what it means.
"""

from __future__ import annotations

from functools import cache
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from edadm.kernels.int8.tiles import Tiles, within

GROUP = 8  # row blocks that share their weights in the cache
ALIGNMENT = (
    16  # bytes: where a descriptor's memory and each of its rows begin; for rows, elements of any type
)
HOPPER = 9
REGISTERS, SHARED_BYTES = 65_536, 227 * 1024  # of a processor of an H100


@triton.jit
@no_type_check
def block_at(index, row_blocks, column_blocks, GROUP: tl.constexpr):
    """Row and column block of the index-th block, in groups of `GROUP` row blocks."""
    group = index // (GROUP * column_blocks)
    first = group * GROUP
    members = tl.minimum(row_blocks - first, GROUP)
    inside_group = index % (GROUP * column_blocks)
    return first + inside_group % members, inside_group // members


@triton.jit
@no_type_check
def scaled(total, column, columns, scale_ptr, offset_ptr):
    """Sums, in fp32, times their column's scale, plus its offset."""
    scale = tl.load(scale_ptr + column, mask=column < columns, other=0.0)
    offset = tl.load(offset_ptr + column, mask=column < columns, other=0.0)
    return total.to(tl.float32) * scale[None, :] + offset[None, :]


@triton.jit
@no_type_check
def added(addend_ptr, row, column, rows, columns):
    """A block of the addend, in fp32."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(
        addend_ptr + row.to(tl.int64)[:, None] * columns + column[None, :], mask=inside, other=0.0
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
    addend_ptr,
    out,
    ADDS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The end of a block that is written through a descriptor: its left and right halves one after the other, to need less memory."""
    HALF: tl.constexpr = COLUMNS // 2  # noqa: N806
    result = scaled(total, column + tl.arange(0, COLUMNS), columns, scale_ptr, offset_ptr)
    left, right = tl.split(tl.permute(tl.reshape(result, (ROWS, 2, HALF)), (0, 2, 1)))
    if ADDS:
        left += added(addend_ptr, row + tl.arange(0, ROWS), column + tl.arange(0, HALF), rows, columns)
    out.store([row, column], left.to(out.dtype))
    if ADDS:
        right += added(
            addend_ptr, row + tl.arange(0, ROWS), column + HALF + tl.arange(0, HALF), rows, columns
        )
    out.store([row, column + HALF], right.to(out.dtype))


@triton.jit
@no_type_check
def loaded(ptr, outer, inner, outer_size, inner_size, WHOLE: tl.constexpr):
    """A block of a matrix, (outer, inner); 0 beyond its ends. With `WHOLE`, no block reaches beyond the inner one."""
    at = ptr + outer.to(tl.int64)[:, None] * inner_size + inner[None, :]
    if WHOLE:
        block = tl.load(at, mask=(outer < outer_size)[:, None], other=0)
    else:
        block = tl.load(at, mask=(outer < outer_size)[:, None] & (inner < inner_size)[None, :], other=0)
    return block


@triton.jit
@no_type_check
def _by_pointers(
    x_ptr, weight_ptr, scale_ptr, offset_ptr, addend_ptr, out_ptr, rows, columns, channels,
    ADDS: tl.constexpr, WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
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
            result += added(addend_ptr, row, column, rows, columns)
        target = row.to(tl.int64)[:, None] * columns + column[None, :]
        stored = (row < rows)[:, None] & (column < columns)[None, :]
        tl.store(out_ptr + target, result.to(out_ptr.dtype.element_ty), mask=stored)


@triton.jit
@no_type_check
def _by_descriptors(
    x, weight, scale_ptr, offset_ptr, addend_ptr, out, rows, columns, channels,
    ADDS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """What lies beyond a matrix's ends is read as 0 and not written."""
    row_blocks, column_blocks = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    for index in tl.range(tl.program_id(0), row_blocks * column_blocks, tl.num_programs(0), flatten=True):
        row_block, column_block = block_at(index, row_blocks, column_blocks, GROUP)
        row, column = row_block * ROWS, column_block * COLUMNS
        total = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
        for step in range(tl.cdiv(channels, DEPTH)):
            a, b = x.load([row, step * DEPTH]), weight.load([column, step * DEPTH])
            total = tl.dot(a, b.T, total, out_dtype=tl.int32)
        write_halves(
            total, row, column, rows, columns, scale_ptr, offset_ptr, addend_ptr, out, ADDS, ROWS, COLUMNS
        )


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 3


@cache
def _reads_blocks(device: torch.device) -> bool:
    """Whether the device has a tensor memory accelerator; the interpreter on a CPU does as if."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] >= HOPPER


@cache
def shared_bytes(device: torch.device) -> int:
    """Memory that a program may have."""
    known = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return getattr(
        known, "shared_memory_per_block_optin", SHARED_BYTES
    )  # torch does not say so in its types, nor on all platforms


def programs(block: Tiles, blocks: int, device: torch.device) -> int:
    """How many programs share the blocks of the output: as many as the GPU holds at once, by registers and by memory."""
    by_registers = REGISTERS // (2 * block.rows * block.columns)  # as many again for everything else
    by_memory = SHARED_BYTES // (
        block.stages * (block.rows + block.columns) * block.depth + block.rows * block.columns
    )
    return min(blocks, _processors(device) * max(1, min(by_registers, by_memory)))


def stages_beside(block: Tiles, dtype: torch.dtype) -> int:
    """`block.stages`, or as many as fit into a processor's memory beside a result of that type."""
    room = (
        SHARED_BYTES - 1024 - block.rows * block.columns * dtype.itemsize
    )  # or half of it to write, and half of an addend
    return max(1, min(block.stages, room // ((block.rows + block.columns) * block.depth)))


def describable(*matrices: Tensor) -> bool:
    """Whether all of these row-major matrices can be read and written in blocks: by their device, and by where their rows begin."""
    return all(
        _reads_blocks(matrix.device)
        and matrix.data_ptr() % ALIGNMENT == 0
        and matrix.stride(0) % ALIGNMENT == 0
        for matrix in matrices
    )


def described(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A row-major matrix as the kernel reads it, in blocks of that size."""
    return TensorDescriptor.from_tensor(matrix, [rows, columns])


def triton_matrix(
    x: Int8[Tensor, "rows channels"],
    weight: Int8[Tensor, "columns channels"],
    scale: Float[Tensor, " columns"],
    offset: Float[Tensor, " columns"],
    addend: Float[Tensor, "rows columns"] | None,
    dtype: torch.dtype,
    block: Tiles,
) -> Float[Tensor, "rows columns"]:
    """`x @ weight.T * scale + offset + addend` in fp32, rounded once, to `dtype`.

    Args:
        block: of kind `descriptor` or `matrix`; the first is taken as the second where `describable` says no.
    """
    x, weight = x.contiguous(), weight.contiguous()
    (rows, channels), columns = x.shape, len(weight)
    out = torch.empty((rows, columns), dtype=dtype, device=x.device)
    others, block = (
        (scale, offset, out if addend is None else addend.contiguous()),
        within(block, shared_bytes(x.device)),
    )
    grid = (programs(block, triton.cdiv(rows, block.rows) * triton.cdiv(columns, block.columns), x.device),)
    sizes, run = (
        (block.rows, block.columns, block.depth, GROUP),
        {"num_warps": block.warps, "num_stages": stages_beside(block, dtype)},
    )
    if block.kind == "descriptor" and describable(x, weight, out):
        operands = described(x, block.rows, block.depth), described(weight, block.columns, block.depth)
        halves = described(out, block.rows, block.columns // 2)
        _by_descriptors[grid](
            *operands, *others, halves, rows, columns, channels, addend is not None, *sizes, **run
        )
    else:
        whole = channels % block.depth == 0
        _by_pointers[grid](
            x, weight, *others, out, rows, columns, channels, addend is not None, whole, *sizes, **run
        )
    return out
