"""Group normalisation to int8 numbers on a GPU, of images of which some groups fit a processor's memory, in Gluon, Triton's lower level.

A program has some groups of one image. It orders all of them at once, sums what has arrived while the rest is
on its way, and reads them a second time from where they lie. `edadm.kernels.int8.norms.group_norm` does the same
without, in two kernels that read an image twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, no_type_check

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from edadm.kernels.int8 import elementwise
from edadm.kernels.int8.norms import statistics
from edadm.kernels.int8.norms.statistics import divided

MEMORY = 1 << 16  # bytes of a program: three on a processor of an H100
CHUNKS = 16  # at most, that are waited for one by one
VECTOR = 8  # channels of 16 bytes
NARROWEST = (
    32  # channels, whose numbers fill what memory writes at once; less takes longer than reading twice
)
places, affine = gluon.jit(statistics.places.fn), gluon.jit(statistics.affine.fn)
grid, numbers, silu = (gluon.jit(getattr(elementwise, name).fn) for name in ("grid", "numbers", "silu"))


@gluon.jit
@no_type_check
def _held(
    x_ptr, skip_ptr, added_ptr, weight_ptr, bias_ptr, grids_ptr, around_ptr, out_ptr, x_out_ptr, skip_out_ptr,
    channels, before, affine_stride, eps, numel,
    SIZE: gl.constexpr, GROUPS: gl.constexpr, GROUP_BLOCK: gl.constexpr, CHANNELS: gl.constexpr, PIXELS: gl.constexpr, CHUNKS: gl.constexpr,
    SKIPS: gl.constexpr, ADDS: gl.constexpr, SILU: gl.constexpr, GRIDS: gl.constexpr, AROUND: gl.constexpr, VECTOR: gl.constexpr,
    num_warps: gl.constexpr,
):  # fmt: skip
    across: gl.constexpr = CHANNELS // VECTOR
    layout: gl.constexpr = gl.BlockedLayout([1, VECTOR], [32 // across, across], [num_warps, 1], [1, 0])
    of_rows: gl.constexpr = gl.SliceLayout(1, layout)
    pixels: gl.constexpr = PIXELS * CHUNKS
    blocks = gl.cdiv(channels, SIZE * GROUPS)
    image, local = gl.program_id(0) // blocks, gl.arange(0, CHANNELS, gl.SliceLayout(0, layout))
    channel = gl.program_id(0) % blocks * (SIZE * GROUPS) + local
    known = (local < SIZE * GROUPS) & (channel < channels)
    first_pixel = image.to(gl.int64) * pixels
    x_ptr, skip_ptr = x_ptr + first_pixel * before, skip_ptr + first_pixel * (channels - before)
    x_out_ptr, skip_out_ptr = (
        x_out_ptr + first_pixel * before,
        skip_out_ptr + first_pixel * (channels - before),
    )
    out_ptr += first_pixel * channels

    held = gl.allocate_shared_memory(
        x_ptr.dtype.element_ty, [CHUNKS, PIXELS, CHANNELS], gl.SwizzledSharedLayout(VECTOR, 1, 1, [1, 0])
    )
    row = gl.arange(0, PIXELS, of_rows)
    for chunk in gl.static_range(CHUNKS):
        source = places(x_ptr, skip_ptr, chunk * PIXELS + row, channel, channels, before, SKIPS)
        async_copy.async_copy_global_to_shared(held.index(chunk), source, mask=known[None, :])
        async_copy.commit_group()
    head = x_ptr + channel
    if SKIPS:
        head = gl.where(channel < before, head, skip_ptr + (channel - before))
    pivot = gl.load(head, mask=known, other=0.0).to(gl.float32)  # as in `group_norm._summed`
    first, second = (
        gl.zeros([PIXELS, CHANNELS], gl.float32, layout),
        gl.zeros([PIXELS, CHANNELS], gl.float32, layout),
    )
    for chunk in gl.static_range(CHUNKS):
        async_copy.wait_group(CHUNKS - 1 - chunk)
        difference = held.index(chunk).load(layout).to(gl.float32) - pivot[None, :]
        first += difference
        second += difference * difference
    moved = gl.sum(first, 0) / pixels
    squares, added = gl.sum(second, 0) - moved * moved * pixels, moved * 0.0
    if ADDS:
        added += gl.load(added_ptr + image * channels + channel, mask=known, other=0.0).to(gl.float32)
    at, group = image * affine_stride + channel, gl.arange(0, GROUP_BLOCK, of_rows)
    centre, slope, bias = affine(
        pivot + moved, squares, added, weight_ptr + at, bias_ptr + at, local, group, known, pixels, eps, SIZE
    )

    for index in gl.static_range(GRIDS):
        inverse, low, high, shift = grid(grids_ptr + 4 * index)
        for chunk in range(CHUNKS):
            y = (held.index(chunk).load(layout).to(gl.float32) - centre[None, :]) * slope[None, :] + bias[
                None, :
            ]
            if SILU:
                y = silu(y)
            target = out_ptr + (chunk * PIXELS + row)[:, None] * channels + channel[None, :]
            gl.store(target, numbers(y, inverse, low, high, shift), mask=known[None, :])
        out_ptr += numel
    if AROUND:
        inverse, low, high, shift = grid(
            around_ptr + (gl.where(channel < before, 0, 4) if SKIPS else local * 0)
        )
        for chunk in range(CHUNKS):
            x = held.index(chunk).load(layout).to(gl.float32)
            target = places(x_out_ptr, skip_out_ptr, chunk * PIXELS + row, channel, channels, before, SKIPS)
            gl.store(
                target,
                numbers(x, inverse[None, :], low[None, :], high[None, :], shift[None, :]),
                mask=known[None, :],
            )


class Block(NamedTuple):
    """What a program holds: `chunks` of `pixels` each, of `groups` together, with room for `width` channels."""

    groups: int
    width: int
    pixels: int
    chunks: int
    warps: int


def block_of(images: int, pixels: int, groups: int, size: int) -> Block | None:
    """How images are divided, or None where whole images do not fit, or not in whole vectors.

    Args:
        images: in the batch.
        pixels: of an image.
        groups: of channels.
        size: channels of a group.
    """
    together, width = divided(images, groups, size, MEMORY // (2 * pixels))
    elements = pixels * width
    if (
        2 * elements > MEMORY
        or together * size % VECTOR
        or together * size < NARROWEST
        or width > 32 * VECTOR
    ):
        return None
    warps = min(8, max(1, elements // 4096))
    at_once = min(pixels & -pixels, max(1, 64 * VECTOR * warps // width))
    fits = at_once * width >= 32 * VECTOR * warps and pixels // at_once <= CHUNKS
    return Block(together, width, at_once, pixels // at_once, warps) if fits else None


def hold(
    sources: tuple[Tensor, Tensor],
    vectors: tuple[Tensor, ...],
    targets: tuple[Tensor, ...],
    layout: tuple[int, int, int, float, int],
    pixels: int,
    groups: int,
    what: Mapping[str, int | bool],
) -> bool:
    """Fills `targets`; arguments as of `edadm.kernels.int8.norms.group_norm._written`.

    Returns:
        Whether it could: not on a CPU, nor in fp32, nor before Ampere, nor where channels are no whole
            vectors.
    """
    (x, skip), (channels, before, *_) = sources, layout
    if not x.is_cuda or x.element_size() != 2 or torch.cuda.get_device_capability(x.device) < (8, 0):
        return False
    size, block = channels // groups, block_of(len(x), pixels, groups, channels // groups)
    if block is None or channels % VECTOR or before % VECTOR or x.data_ptr() % 16 or skip.data_ptr() % 16:
        return False
    _held[(len(x) * triton.cdiv(groups, block.groups),)](
        x, skip, *vectors, *targets, *layout, size, block.groups, triton.next_power_of_2(block.groups), block.width, block.pixels,
        block.chunks, what["SKIPS"], what["ADDS"], what["SILU"], what["GRIDS"], what["AROUND"], VECTOR, num_warps=block.warps,
    )  # fmt: skip
    return True
