"""The convolutions of `conv_tma`, and linear layers, in Gluon, Triton's lower level: products that overlap.

Triton waits for each product of integers before it starts the next one. Here the tensor cores have a product
to work on while the next one is started: after each start a program waits for the product before, whose
operands then make room for those of a later step. `edadm.kernels.int8.reference.convolution` says what it
means. Nothing interprets Gluon: on a CPU the kernel can be compiled, and not run.
"""

from __future__ import annotations

from functools import cache
from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from edadm.kernels.int8.products.launch import GROUP, Launch
from edadm.kernels.int8.products.operands import Operands
from edadm.kernels.int8.products.split_k import finish

WIDEST = 128  # columns of one instruction


@gluon.jit
@no_type_check
def _fetch(
    step, steps, begin, x, weight, xs, weights, arrived, image, top, left, column, channels,
    SIDE: gl.constexpr, DEPTH: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Orders the operands of a step, if there is one, of those that begin at `begin`."""
    depth_blocks, slot, wanted = gl.cdiv(channels, DEPTH), step % STAGES, step < steps
    tap, channel = (begin + step) // depth_blocks, (begin + step) % depth_blocks * DEPTH
    mbarrier.expect(arrived.index(slot), x.block_type.nbytes + weight.block_type.nbytes, pred=wanted)
    pixel = [image, top + tap // SIDE, left + tap % SIDE, channel]
    tma.async_copy_global_to_shared(x, pixel, arrived.index(slot), xs.index(slot), pred=wanted)
    # beyond a tap's last channel stand the next tap's: times 0
    tma.async_copy_global_to_shared(
        weight, [column, tap * channels + channel], arrived.index(slot), weights.index(slot), pred=wanted
    )


@gluon.jit
@no_type_check
def conv_wgmma_kernel(
    x, weight, scale_ptr, offset_ptr, residual_ptr, out, sums_ptr, rows, height, width, columns, channels,
    SIDE: gl.constexpr, ADDS: gl.constexpr, IMAGES: gl.constexpr, HEIGHT: gl.constexpr, WIDTH: gl.constexpr,
    COLUMNS: gl.constexpr, DEPTH: gl.constexpr, GROUP: gl.constexpr, STAGES: gl.constexpr,
    WIDE: gl.constexpr, SPLITS: gl.constexpr,
    num_warps: gl.constexpr,
):  # fmt: skip
    """Computes one tile of the output; with splits, adds a part of its sums to those of other programs."""
    # In one piece: what its parts would hand on, layouts, pointers and held memory, is longer than they are.
    ROWS: gl.constexpr = IMAGES * HEIGHT * WIDTH  # noqa: N806
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[num_warps, 1], instr_shape=[16, WIDE, 32]
    )
    row_blocks, column_blocks = gl.cdiv(rows, ROWS), gl.cdiv(columns, COLUMNS)
    group, inside = gl.program_id(0) // (GROUP * column_blocks), gl.program_id(0) % (GROUP * column_blocks)
    members = gl.minimum(row_blocks - group * GROUP, GROUP)
    row, column = (group * GROUP + inside % members) * ROWS, (inside // members) * COLUMNS
    image, top, left = (
        row // (height * width),
        row % (height * width) // width - SIDE // 2,
        row % width - SIDE // 2,
    )

    xs = gl.allocate_shared_memory(gl.int8, [STAGES, IMAGES, HEIGHT, WIDTH, DEPTH], x.layout)
    weights = gl.allocate_shared_memory(gl.int8, [STAGES, COLUMNS, DEPTH], weight.layout)
    arrived = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(arrived.index(stage), count=1)
    all_steps = SIDE * SIDE * gl.cdiv(channels, DEPTH)
    begin = gl.program_id(1) * gl.cdiv(all_steps, SPLITS)
    steps = gl.minimum(gl.cdiv(all_steps, SPLITS), all_steps - begin)
    for step in gl.static_range(STAGES - 1):
        _fetch(
            step, steps, begin, x, weight, xs, weights, arrived, image, top, left, column, channels,
            SIDE, DEPTH, STAGES,
        )  # fmt: skip
    total = gl.zeros([ROWS, COLUMNS], gl.int32, layout)
    for step in range(steps):
        slot = step % STAGES
        mbarrier.wait(arrived.index(slot), (step // STAGES) & 1)
        pixels, taps = xs.index(slot).reshape([ROWS, DEPTH]), weights.index(slot).permute([1, 0])
        total = warpgroup_mma(pixels, taps, total, is_async=True)
        total = warpgroup_mma_wait(
            num_outstanding=1, deps=[total]
        )  # of all but this product, so that the slot before is free
        _fetch(
            step + STAGES - 1, steps, begin, x, weight, xs, weights, arrived, image, top, left, column,
            channels,
            SIDE, DEPTH, STAGES,
        )  # fmt: skip
    total = warpgroup_mma_wait(num_outstanding=0, deps=[total])
    for stage in gl.static_range(STAGES):
        mbarrier.invalidate(arrived.index(stage))

    at, line = (
        column + gl.arange(0, COLUMNS, gl.SliceLayout(0, layout)),
        row + gl.arange(0, ROWS, gl.SliceLayout(1, layout)),
    )
    inner = (line < rows)[:, None] & (at < columns)[None, :]
    place = line.to(gl.int64)[:, None] * columns + at[None, :]
    if SPLITS > 1:
        gl.atomic_add(sums_ptr + place, total, mask=inner, sem="relaxed")
    else:
        scale, offset = (
            gl.load(scale_ptr + at, mask=at < columns, other=0.0),
            gl.load(offset_ptr + at, mask=at < columns, other=0.0),
        )
        result = total.to(gl.float32) * scale[None, :] + offset[None, :]
        if ADDS:
            result += gl.load(residual_ptr + place, mask=inner, other=0.0).to(gl.float32)
        written = gl.allocate_shared_memory(out.dtype, [ROWS, COLUMNS], out.layout)
        written.store(result.to(out.dtype))
        fence_async_shared()
        tma.async_copy_shared_to_global(out, [row, column], written)
        tma.store_wait(0)


_TYPES = {
    torch.int8: gl.int8,
    torch.float32: gl.float32,
    torch.bfloat16: gl.bfloat16,
    torch.float16: gl.float16,
}


@cache
def layout_of(shape: tuple[int, ...], dtype: torch.dtype) -> gl.NVMMASharedLayout:
    """How a block lies in shared memory."""
    return gl.NVMMASharedLayout.get_default_for(list(shape), _TYPES[dtype])


def _described(tensor: Tensor, shape: list[int], strides: list[int], block: list[int]) -> TensorDescriptor:
    """A descriptor whose blocks lie in shared memory as tensor cores want them."""
    return TensorDescriptor(tensor, shape, strides, block, layout_of(tuple(block), tensor.dtype))


def run(operands: Operands, launch: Launch, out: Float[Tensor, "rows columns"]) -> None:
    """Fills `out`, a row per pixel; a linear layer is a window of one over images of one pixel."""
    x, tile, pixels = operands.x, launch.tiles, launch.box
    assert pixels is not None
    (_, height, width, channels), (columns, side) = x.shape, operands.weight.shape[:2]
    weight, residual = operands.matrices[1], operands.residual
    strides = [height * width * channels, width * channels, channels, 1]
    image = _described(x, list(x.shape), strides, [*pixels, tile.depth])
    taps = _described(weight, list(weight.shape), [weight.shape[1], 1], [tile.columns, tile.depth])
    result = _described(out, list(out.shape), [columns, 1], [tile.rows, tile.columns])
    sums = out if tile.splits == 1 else torch.zeros(out.shape, dtype=torch.int32, device=x.device)
    vectors = operands.scale, operands.offset, out if residual is None else residual
    sizes = len(out), height, width, columns, channels, side, residual is not None
    widest = min(WIDEST, tile.columns)
    tiles = *pixels, tile.columns, tile.depth, GROUP, tile.stages, widest, tile.splits
    conv_wgmma_kernel[launch.grid](image, taps, *vectors, result, sums, *sizes, *tiles, num_warps=tile.warps)
    if tile.splits > 1:
        finish(sums, operands.scale, operands.offset, residual, out)
