"""The first half of a feed-forward layer on a GPU: a linear layer, GEGLU, and the next layer's grid.

Unfused, the linear layer writes eight numbers of two bytes for each of its input's channels, to be read
again; here half as many bytes. A program computes a value and its gate side by side.
`edadm.kernels.int8.reference.geglu` says what it means.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.kernels.dispatch import has_kernels, refuse_other_types
from edadm.kernels.int8 import reference
from edadm.kernels.int8.device import Device
from edadm.kernels.int8.elementwise import MAGIC, gelu, quantize
from edadm.kernels.int8.products.gemm import block_at, described, loaded, scaled
from edadm.kernels.int8.products.launch import GROUP, choose_geglu
from edadm.kernels.int8.products.operands import is_aligned
from edadm.kernels.int8.tiles import Tiles


@triton.jit
@no_type_check
def _gated(value, gate, column, columns, scale_ptr, offset_ptr, grid_ptr, low, high, shift):
    """The epilogue of a tile: int8 numbers of value * gelu(gate), from the int32 sums of both."""
    value = scaled(value, column, columns, scale_ptr, offset_ptr)
    gate = scaled(gate, column, columns, scale_ptr + columns, offset_ptr + columns)
    return quantize(value * gelu(gate), 1.0 / tl.load(grid_ptr), low + MAGIC, high + MAGIC, shift)


@triton.jit
@no_type_check
def geglu_kernel(
    x_ptr, weight_ptr, scale_ptr, offset_ptr, grid_ptr, out_ptr, rows, columns, channels, low, high, shift,
    WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Computes tiles of values and their gates one after another, through pointers."""
    row_blocks, column_blocks = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    gates_ptr = weight_ptr + columns.to(tl.int64) * channels
    for index in tl.range(tl.program_id(0), row_blocks * column_blocks, tl.num_programs(0), flatten=True):
        row_block, column_block = block_at(index, row_blocks, column_blocks, GROUP)
        row, column = row_block * ROWS + tl.arange(0, ROWS), column_block * COLUMNS + tl.arange(0, COLUMNS)
        value, gate = tl.zeros((ROWS, COLUMNS), dtype=tl.int32), tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
        for step in range(tl.cdiv(channels, DEPTH)):
            channel = step * DEPTH + tl.arange(0, DEPTH)
            a = loaded(x_ptr, row, channel, rows, channels, WHOLE)
            value = tl.dot(
                a, loaded(weight_ptr, column, channel, columns, channels, WHOLE).T, value, out_dtype=tl.int32
            )
            gate = tl.dot(
                a, loaded(gates_ptr, column, channel, columns, channels, WHOLE).T, gate, out_dtype=tl.int32
            )
        codes = _gated(value, gate, column, columns, scale_ptr, offset_ptr, grid_ptr, low, high, shift)
        stored = (row < rows)[:, None] & (column < columns)[None, :]
        tl.store(out_ptr + row.to(tl.int64)[:, None] * columns + column[None, :], codes, mask=stored)


@triton.jit
@no_type_check
def geglu_tma_kernel(
    x, weight, scale_ptr, offset_ptr, grid_ptr, out, rows, columns, channels, low, high, shift,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Computes tiles of values and their gates one after another, through tensor descriptors."""
    row_blocks, column_blocks = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    for index in tl.range(tl.program_id(0), row_blocks * column_blocks, tl.num_programs(0), flatten=True):
        row_block, column_block = block_at(index, row_blocks, column_blocks, GROUP)
        row, column = row_block * ROWS, column_block * COLUMNS
        value, gate = tl.zeros((ROWS, COLUMNS), dtype=tl.int32), tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
        for step in range(tl.cdiv(channels, DEPTH)):
            a = x.load([row, step * DEPTH])
            value = tl.dot(a, weight.load([column, step * DEPTH]).T, value, out_dtype=tl.int32)
            gate = tl.dot(a, weight.load([columns + column, step * DEPTH]).T, gate, out_dtype=tl.int32)
        where = column + tl.arange(0, COLUMNS)
        out.store(
            [row, column],
            _gated(value, gate, where, columns, scale_ptr, offset_ptr, grid_ptr, low, high, shift),
        )


def triton_geglu(
    x: Int8[Tensor, "rows channels"],
    weight: Int8[Tensor, "both channels"],
    scale: Float[Tensor, " both"],
    offset: Float[Tensor, " both"],
    grid: Float[Tensor, ""],
    low: float,
    high: float,
    shift: int,
    wanted: Tiles | None = None,
) -> Int8[Tensor, "rows half"]:
    """The gated int8 numbers by the kernel that is chosen for them; see `reference.geglu` for its arguments.

    Args:
        wanted: see `edadm.kernels.int8.products.launch.choose_geglu`.
    """
    x, weight = x.contiguous(), weight.contiguous()
    (rows, channels), columns = x.shape, len(weight) // 2
    out = torch.empty((rows, columns), dtype=torch.int8, device=x.device)
    aligned = is_aligned(x) and is_aligned(weight)
    launch = choose_geglu(rows, columns, aligned, Device.of(x.device), wanted)
    tile, vectors = launch.tiles, (scale, offset, grid)
    sizes, ends = (rows, columns, channels), (low, high, shift)
    tiles = tile.rows, tile.columns, tile.depth, GROUP
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    if launch.kernel == "geglu_tma":
        inputs = described(x, tile.rows, tile.depth), described(weight, tile.columns, tile.depth)
        target = described(out, tile.rows, tile.columns)
        geglu_tma_kernel[launch.grid](*inputs, *vectors, target, *sizes, *ends, *tiles, **options)
    else:
        whole = channels % tile.depth == 0
        geglu_kernel[launch.grid](x, weight, *vectors, out, *sizes, *ends, whole, *tiles, **options)
    return out


_SCHEMA = (
    "(Tensor x, Tensor weight, Tensor scale, Tensor offset, Tensor grid, float low, float high, "
    "SymInt shift) -> Tensor"
)


@torch.library.custom_op("edadm::int8_geglu", mutates_args=(), schema=_SCHEMA)
def int8_geglu(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    offset: Tensor,
    grid: Tensor,
    low: float,
    high: float,
    shift: int,
) -> Tensor:
    """`edadm.kernels.int8.reference.geglu`, by the kernel on a GPU and by its plain meaning elsewhere."""
    refuse_other_types(torch.int8, x, weight)
    refuse_other_types(torch.float32, scale, offset, grid)
    return (triton_geglu if has_kernels(x, weight, scale, offset, grid) else reference.geglu)(
        x, weight, scale, offset, grid, low, high, shift
    )


@int8_geglu.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    offset: Tensor,
    grid: Tensor,
    low: float,
    high: float,
    shift: int,
) -> Tensor:
    """Shape and type of the result, for the compiler."""
    return x.new_empty((x.shape[0], weight.shape[0] // 2))
