"""Group normalisation to int8 on a GPU, of images of which some groups fit shared memory, in Gluon.

Gluon is Triton's lower level.

A program has some groups of one image. It orders all of them at once, sums what has arrived while the rest is
on its way, and reads them a second time from where they lie. `edadm.kernels.int8.norms.group_norm_parts`
does the same without, in two kernels that read an image twice.
"""

from __future__ import annotations

from typing import no_type_check

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from edadm.kernels.int8 import elementwise
from edadm.kernels.int8.norms import statistics
from edadm.kernels.int8.norms.launch import VECTOR, GroupNormLaunch
from edadm.kernels.int8.norms.operands import GroupNormOperands

element_pointers = gluon.jit(statistics.element_pointers.fn)
group_affine = gluon.jit(statistics.group_affine.fn)
load_grid, quantize = gluon.jit(elementwise.load_grid.fn), gluon.jit(elementwise.quantize.fn)
silu, smoothed = gluon.jit(elementwise.silu.fn), gluon.jit(elementwise.smoothed.fn)


@gluon.jit
@no_type_check
def group_norm_resident_kernel(
    x_ptr, skip_ptr, added_ptr, weight_ptr, bias_ptr, grids_ptr, shortcut_grids_ptr,
    smooth_ptr, shortcut_smooth_ptr,
    out_ptr, x_out_ptr, skip_out_ptr,
    channels, before, affine_stride, eps, numel,
    SIZE: gl.constexpr, GROUPS: gl.constexpr, GROUP_BLOCK: gl.constexpr, CHANNELS: gl.constexpr,
    PIXELS: gl.constexpr, CHUNKS: gl.constexpr,
    SKIPS: gl.constexpr, ADDS: gl.constexpr, SILU: gl.constexpr, GRIDS: gl.constexpr,
    SHORTCUT: gl.constexpr, VECTOR: gl.constexpr,
    num_warps: gl.constexpr,
):  # fmt: skip
    """Writes int8 numbers of some groups of one image, which shared memory holds whole."""
    # In one piece: what its parts would hand on, layouts, pointers and held memory, is longer than they are.
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
        source = element_pointers(x_ptr, skip_ptr, chunk * PIXELS + row, channel, channels, before, SKIPS)
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
    centre, slope, bias = group_affine(
        pivot + moved, squares, added, weight_ptr + at, bias_ptr + at, local, group, known, pixels, eps, SIZE
    )

    for index in gl.static_range(GRIDS):
        inverse, low, high, shift = load_grid(grids_ptr + 4 * index)
        if smooth_ptr is not None:
            inverse = smoothed(inverse, smooth_ptr, channel, known)[None, :]
        for chunk in range(CHUNKS):
            y = (held.index(chunk).load(layout).to(gl.float32) - centre[None, :]) * slope[None, :] + bias[
                None, :
            ]
            if SILU:
                y = silu(y)
            target = out_ptr + (chunk * PIXELS + row)[:, None] * channels + channel[None, :]
            gl.store(target, quantize(y, inverse, low, high, shift), mask=known[None, :])
        out_ptr += numel
    if SHORTCUT:
        inverse, low, high, shift = load_grid(
            shortcut_grids_ptr + (gl.where(channel < before, 0, 4) if SKIPS else local * 0)
        )
        inverse = smoothed(inverse, shortcut_smooth_ptr, channel, known)
        for chunk in range(CHUNKS):
            x = held.index(chunk).load(layout).to(gl.float32)
            target = element_pointers(
                x_out_ptr, skip_out_ptr, chunk * PIXELS + row, channel, channels, before, SKIPS
            )
            gl.store(
                target,
                quantize(x, inverse[None, :], low[None, :], high[None, :], shift[None, :]),
                mask=known[None, :],
            )


def run(operands: GroupNormOperands, launch: GroupNormLaunch) -> None:
    """Fills the results of a group normalisation by the resident kernel."""
    block, flags = triton.next_power_of_2(launch.groups), operands.flags
    what = (flags[name] for name in ("SKIPS", "ADDS", "SILU", "GRIDS", "SHORTCUT"))
    sizes = launch.size, launch.groups, block, launch.width, launch.pixels, launch.steps
    arguments = *operands.sources, *operands.vectors, *operands.results, *operands.extents
    group_norm_resident_kernel[launch.grid](*arguments, *sizes, *what, VECTOR, num_warps=launch.warps)
