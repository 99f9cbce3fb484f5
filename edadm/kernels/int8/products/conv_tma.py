"""Convolutions of int8 images on a GPU, stride 1 and output as large as the input, by tensor descriptors.

A block of the output is a box of pixels; each tap of the window needs the same box of the input, moved by a
pixel, and what of it lies beyond the image is read as 0. So no address is computed per pixel, but the padding
must hold the number 0, as it does where activations have a symmetric grid.
`edadm.kernels.int8.reference.convolution` says what it means.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from edadm.kernels.int8.products.gemm import block_at, described, scaled
from edadm.kernels.int8.products.launch import GROUP, Launch
from edadm.kernels.int8.products.operands import Operands


@triton.jit
@no_type_check
def conv_tma_kernel(
    x, weight, scale_ptr, offset_ptr, residual, out, rows, height, width, columns, channels,
    SIDE: tl.constexpr, ADDS: tl.constexpr, IMAGES: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Computes one tile of the output; what is written lies where operands have lain in shared memory.

    The weight is the first operand: only as the second is a box of several lines a matrix in shared memory
    for the compiler, as the first it goes through registers.
    """
    ROWS: tl.constexpr = IMAGES * HEIGHT * WIDTH  # noqa: N806
    depth_blocks = tl.cdiv(channels, DEPTH)
    row_block, column_block = block_at(
        tl.program_id(0), tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS), GROUP
    )
    row, column = row_block * ROWS, column_block * COLUMNS
    image, top, left = (
        row // (height * width),
        row % (height * width) // width - SIDE // 2,
        row % width - SIDE // 2,
    )
    total = tl.zeros((COLUMNS, ROWS), dtype=tl.int32)
    for step in range(SIDE * SIDE * depth_blocks):
        tap, channel = step // depth_blocks, step % depth_blocks * DEPTH
        pixels = tl.reshape(x.load([image, top + tap // SIDE, left + tap % SIDE, channel]), (ROWS, DEPTH))
        taps = weight.load(
            [column, tap * channels + channel]
        )  # the next tap's, where there are no channels more: times 0
        total = tl.dot(taps, pixels.T, total, out_dtype=tl.int32)
    result = scaled(total.T, column + tl.arange(0, COLUMNS), columns, scale_ptr, offset_ptr)
    if ADDS:
        result += residual.load([row, column]).to(tl.float32)
    out.store([row, column], result.to(out.dtype))


def run(operands: Operands, launch: Launch, out: Float[Tensor, "rows columns"]) -> None:
    """Fills `out` with a convolution whose result is as large as its input, a row per pixel."""
    x, tile, pixels = operands.x, launch.tiles, launch.box
    assert pixels is not None
    (_, height, width, channels), (columns, side) = x.shape, operands.weight.shape[:2]
    residual = operands.residual
    # a tensor of a single image may have any stride between images
    strides = [height * width * channels, width * channels, channels, 1]
    image = TensorDescriptor(x, list(x.shape), strides, [*pixels, tile.depth])
    weight = described(operands.matrices[1], tile.columns, tile.depth)
    added = out if residual is None else residual.reshape(out.shape)
    block = tile.rows, tile.columns
    vectors = operands.scale, operands.offset
    tensors = image, weight, *vectors, described(added, *block), described(out, *block)
    sizes = len(out), height, width, columns, channels, side, residual is not None
    tiles = *pixels, tile.columns, tile.depth, GROUP
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    conv_tma_kernel[launch.grid](*tensors, *sizes, *tiles, **options)
