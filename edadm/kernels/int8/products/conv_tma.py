"""Convolutions of int8 images on a GPU, with stride 1 and an output of the input's size, through tensor descriptors.

A block of the output is a box of pixels; each tap of the window needs the same box of the input, moved by a
pixel, and what of it lies beyond the image is read as 0. So no address is computed per pixel, but the padding
must hold the number 0, as it does where activations have a symmetric grid.
`edadm.kernels.int8.reference.convolution` says what it means.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from edadm.kernels.int8.products.gemm import GROUP, block_at, describable, described, scaled
from edadm.kernels.int8.tiles import Tiles

LONGEST_SIDE = 256  # of a box in memory


@triton.jit
@no_type_check
def _convolved(
    x, weight, scale_ptr, offset_ptr, addend, out, rows, height, width, columns, channels,
    SIDE: tl.constexpr, ADDS: tl.constexpr, IMAGES: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """The weight is the first operand: only as the second is a box of several lines a matrix in shared memory for the compiler, as the
    first it goes through registers. A program computes one block, so that what is written lies where operands
    have lain.
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
        result += addend.load([row, column]).to(tl.float32)
    out.store([row, column], result.to(out.dtype))


def box(rows: int, height: int, width: int) -> tuple[int, int, int] | None:
    """Images, height and width of boxes of that many pixels, row after row of an image; None where no boxes fill images of this size."""
    wide = min(rows, width)
    high = min(rows // wide, height)
    if width % wide or height % high or rows % (wide * high) or wide > LONGEST_SIDE:
        return None
    return rows // (wide * high), high, wide


class Blocks(NamedTuple):
    """A convolution that can be read and written in blocks.

    Attributes:
        pixels: of a box: images, height and width.
        strides: of the image; a tensor may have another first one where it has a single image.
        matrix: the weight, a row per output channel.
        out: room for the result, a row per pixel.
        blocks: how many the result has.
    """

    pixels: tuple[int, int, int]
    strides: list[int]
    matrix: Int8[Tensor, "o kkc"]
    out: Float[Tensor, "nhw o"]
    blocks: int


def blocks_of(
    x: Int8[Tensor, "n h w c"], weight: Int8[Tensor, "o k k c"], dtype: torch.dtype, block: Tiles
) -> Blocks | None:
    """How a convolution with a result as large as the image is cut; None where such images have no boxes, or memory no descriptors."""
    (count, height, width, channels), columns = x.shape, len(weight)
    pixels, rows, matrix = box(block.rows, height, width), count * height * width, weight.reshape(columns, -1)
    out = torch.empty((rows, columns), dtype=dtype, device=x.device)
    if pixels is None or not describable(x.reshape(rows, channels), matrix, out):
        return None
    strides = [height * width * channels, width * channels, channels, 1]
    return Blocks(
        pixels, strides, matrix, out, triton.cdiv(rows, block.rows) * triton.cdiv(columns, block.columns)
    )


def triton_image(
    x: Int8[Tensor, "n h w c"],
    weight: Int8[Tensor, "o k k c"],
    scale: Float[Tensor, " o"],
    offset: Float[Tensor, " o"],
    addend: Float[Tensor, "n h w o"] | None,
    dtype: torch.dtype,
    block: Tiles,
) -> Float[Tensor, "n h w o"] | None:
    """A convolution with an odd window, its result, as large as the input, padded with the number 0; all contiguous.

    Args:
        block: `rows` are the pixels of a box.

    Returns:
        None where images of this size have no boxes, or the operands' memory no descriptors.
    """
    cut = blocks_of(x, weight, dtype, block)
    if cut is None:
        return None
    added = cut.out if addend is None else addend.reshape(cut.out.shape)
    if not describable(added):
        return None
    image = TensorDescriptor(x, list(x.shape), cut.strides, [*cut.pixels, block.depth])
    others = (
        described(cut.matrix, block.columns, block.depth),
        scale,
        offset,
        described(added, block.rows, block.columns),
    )
    _convolved[(cut.blocks,)](
        image, *others, described(cut.out, block.rows, block.columns), len(cut.out), *x.shape[1:3], len(weight), x.shape[3],
        weight.shape[1], addend is not None, *cut.pixels, block.columns, block.depth, GROUP, num_warps=block.warps, num_stages=block.stages,
    )  # fmt: skip
    return cut.out.reshape(*x.shape[:3], len(weight))
