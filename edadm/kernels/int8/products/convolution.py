"""Convolutions and linear layers of int8 numbers on a GPU: an implicit GEMM with int32 sums, scaled once at its end.

A row of the GEMM is a pixel of the output, a column an output channel; the inner dimension runs over the
window's taps and, within each, over blocks of input channels. `edadm.kernels.int8.reference.convolution` says what
it means.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.kernels.int8 import reference
from edadm.kernels.int8.products.conv_tma import triton_image
from edadm.kernels.int8.products.conv_wgmma import triton_pipelined
from edadm.kernels.int8.products.gemm import GROUP, block_at, scaled, shared_bytes, triton_matrix
from edadm.kernels.int8.products.split_k import finish
from edadm.kernels.int8.tiles import Problem, Tiles, tiles, within

MOST_ELEMENTS = 2**31 - 1


@triton.jit
@no_type_check
def _convolved(
    x_ptr, weight_ptr, scale_ptr, offset_ptr, addend_ptr, out_ptr, rows, height, width, out_height, out_width, columns,
    CHANNELS: tl.constexpr, SIDE: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, ZERO: tl.constexpr, ADDS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
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
        if PADDING > 0:  # noqa: SIM108 - decided while the kernel is compiled
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
            result += tl.load(addend_ptr + target, mask=stored, other=0.0).to(tl.float32)
        tl.store(out_ptr + target, result.to(out_ptr.dtype.element_ty), mask=stored)


def triton_convolution(
    x: Int8[Tensor, "n h w c"],
    weight: Int8[Tensor, "o k k c"],
    scale: Float[Tensor, " o"],
    offset: Float[Tensor, " o"],
    addend: Float[Tensor, "n p q o"] | None,
    stride: int,
    padding: int,
    zero: int,
    dtype: torch.dtype,
    chosen: Tiles | None = None,
) -> Float[Tensor, "n p q o"]:
    """The kernel's result; see `edadm.kernels.int8.reference.convolution` for its arguments.

    Args:
        chosen: block sizes; those of `tiles` if None.
    """
    x, weight = (
        x.contiguous(),
        weight.contiguous(),
    )  # the kernels know no strides; `.to(memory_format=...)` changes those of a weight
    (count, height, width, channels), (columns, side) = x.shape, weight.shape[:2]
    out_height, out_width = ((size + 2 * padding - side) // stride + 1 for size in (height, width))
    rows = count * out_height * out_width
    problem = Problem(rows, columns, channels, side, stride)
    block = chosen or tiles(problem)
    addend = None if addend is None else addend.contiguous()
    keeps_size = stride == 1 and 2 * padding + 1 == side and (zero == 0 or padding == 0)
    if block.kind == "pipelined" and keeps_size:
        found = triton_pipelined(x, weight, scale, offset, addend, dtype, block)
        if found is not None:
            return found
    if block.kind in ("matrix", "descriptor") and problem.is_matrix and not padding:
        matrices = x.reshape(rows, channels), weight.reshape(columns, channels)
        added = None if addend is None else addend.reshape(rows, columns)
        return triton_matrix(*matrices, scale, offset, added, dtype, block).reshape(
            count, out_height, out_width, columns
        )
    if block.kind == "descriptor" and keeps_size:
        found = triton_image(x, weight, scale, offset, addend, dtype, block)
        if found is not None:
            return found
    out, block = (
        torch.empty((count, out_height, out_width, columns), dtype=dtype, device=x.device),
        within(block, shared_bytes(x.device)),
    )
    grid = (triton.cdiv(rows, block.rows) * triton.cdiv(columns, block.columns), block.splits)
    sums = out if block.splits == 1 else torch.zeros(out.shape, dtype=torch.int32, device=x.device)
    added = out if addend is None else addend
    _convolved[grid](
        x, weight, scale, offset, added, sums, rows, height, width, out_height, out_width, columns,
        channels, side, stride, padding, zero if padding else 0, addend is not None, block.rows, block.columns, block.depth, GROUP,
        block.splits, num_warps=block.warps, num_stages=block.stages,
    )  # fmt: skip
    if block.splits > 1:
        finish(sums, scale, offset, addend, out)
    return out


# said, not inferred: names in annotations are out of reach where jaxtyping's import hook checks them
_SCHEMA = (
    "(Tensor x, Tensor weight, Tensor scale, Tensor offset, Tensor? addend, SymInt stride, SymInt padding, SymInt zero, ScalarType dtype)"
    " -> Tensor"
)


@torch.library.custom_op("edadm::int8_convolution", mutates_args=(), schema=_SCHEMA)
def int8_convolution(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    offset: Tensor,
    addend: Tensor | None,
    stride: int,
    padding: int,
    zero: int,
    dtype: torch.dtype,
) -> Tensor:
    """`edadm.kernels.int8.reference.convolution`, by the kernel on a GPU and by its plain meaning elsewhere."""
    if not x.is_cuda:
        return reference.convolution(x, weight, scale, offset, addend, stride, padding, zero, dtype)
    batch = max(1, MOST_ELEMENTS // x[0].numel())  # the kernel's input offsets are 32-bit integers
    if len(x) <= batch:
        return triton_convolution(x, weight, scale, offset, addend, stride, padding, zero, dtype)
    parts = zip(x.split(batch), [None] * len(x) if addend is None else addend.split(batch), strict=False)
    return torch.cat(
        [triton_convolution(a, weight, scale, offset, b, stride, padding, zero, dtype) for a, b in parts]
    )


@int8_convolution.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    offset: Tensor,
    addend: Tensor | None,
    stride: int,
    padding: int,
    zero: int,
    dtype: torch.dtype,
) -> Tensor:
    """Shape and type of the result, for the compiler."""
    out = [(size + 2 * padding - weight.shape[1]) // stride + 1 for size in x.shape[1:3]]
    return x.new_empty((x.shape[0], *out, weight.shape[0]), dtype=dtype)
