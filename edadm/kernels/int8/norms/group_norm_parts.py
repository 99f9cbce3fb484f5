"""Group normalisation on a GPU in two kernels, of images that programs share.

The first kernel sums parts of an image, the second one adds these sums up and reads the image again.
`edadm.kernels.int8.norms.group_norm` says what it means and when it runs.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from edadm.kernels.int8.elementwise import load_grid, quantize, silu, smoothed
from edadm.kernels.int8.norms.launch import GroupNormLaunch
from edadm.kernels.int8.norms.operands import GroupNormOperands
from edadm.kernels.int8.norms.statistics import element_pointers, group_affine

WARPS, STAGES = 2, 4  # some reads are on their way while one is computed with


@triton.jit
@no_type_check
def _read(
    x_ptr, skip_ptr, pixel, channel, pixels, channels, before, known, EVEN: tl.constexpr, SKIPS: tl.constexpr
):
    """A block of the inputs in fp32, pixels times channels; 0 beyond the image's end."""
    source = element_pointers(x_ptr, skip_ptr, pixel, channel, channels, before, SKIPS)
    if EVEN:
        return tl.load(source, mask=known[None, :], other=0.0).to(tl.float32)
    return tl.load(source, mask=(pixel < pixels)[:, None] & known[None, :], other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _own_channels(channels, SIZE: tl.constexpr, GROUPS: tl.constexpr, CHANNELS: tl.constexpr):
    """A program's image, its channels, and which of them there are."""
    blocks = tl.cdiv(channels, SIZE * GROUPS)
    image, local = tl.program_id(0) // blocks, tl.arange(0, CHANNELS)
    channel = tl.program_id(0) % blocks * (SIZE * GROUPS) + local
    return image, local, channel, (local < SIZE * GROUPS) & (channel < channels)


@triton.jit
@no_type_check
def partial_sums_kernel(
    x_ptr, skip_ptr, sums_ptr, pixels, channels, before, steps,
    SIZE: tl.constexpr, GROUPS: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
    EVEN: tl.constexpr, SKIPS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Writes, per channel of a part of an image, sums of differences to the first pixel, and of squares.

    So a mean far from 0 costs the variance no digits.
    """
    image, _, channel, known = _own_channels(channels, SIZE, GROUPS, CHANNELS)
    x_ptr += image.to(tl.int64) * pixels * before
    skip_ptr += image.to(tl.int64) * pixels * (channels - before)
    pivot = tl.sum(
        _read(x_ptr, skip_ptr, tl.arange(0, 1), channel, pixels, channels, before, known, False, SKIPS), 0
    )
    first, second = tl.zeros((PIXELS, CHANNELS), tl.float32), tl.zeros((PIXELS, CHANNELS), tl.float32)
    begin = tl.program_id(1) * steps * PIXELS
    for step in tl.range(0, steps, num_stages=STAGES):
        pixel = begin + step * PIXELS + tl.arange(0, PIXELS)
        difference = (
            _read(x_ptr, skip_ptr, pixel, channel, pixels, channels, before, known, EVEN, SKIPS)
            - pivot[None, :]
        )
        if not EVEN:
            difference = tl.where((pixel < pixels)[:, None], difference, 0.0)
        first += difference
        second += difference * difference
    target = sums_ptr + (image * tl.num_programs(1) + tl.program_id(1)) * 2 * channels + channel
    tl.store(target, tl.sum(first, 0), mask=known)
    tl.store(target + channels, tl.sum(second, 0), mask=known)


@triton.jit
@no_type_check
def normalise_kernel(
    x_ptr, skip_ptr, added_ptr, weight_ptr, bias_ptr, grids_ptr, shortcut_grids_ptr,
    smooth_ptr, shortcut_smooth_ptr, sums_ptr,
    out_ptr, x_out_ptr, skip_out_ptr,
    pixels, channels, before, affine_stride, eps, numel, parts, steps,
    SIZE: tl.constexpr, GROUPS: tl.constexpr, GROUP_BLOCK: tl.constexpr, CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr, EVEN: tl.constexpr,
    SKIPS: tl.constexpr, ADDS: tl.constexpr, SILU: tl.constexpr, GRIDS: tl.constexpr,
    SHORTCUT: tl.constexpr, PARTS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Writes int8 numbers of a part of an image, from the sums of all of its parts."""
    image, local, channel, known = _own_channels(channels, SIZE, GROUPS, CHANNELS)
    first_pixel = image.to(tl.int64) * pixels
    x_ptr, skip_ptr = x_ptr + first_pixel * before, skip_ptr + first_pixel * (channels - before)
    x_out_ptr, skip_out_ptr = (
        x_out_ptr + first_pixel * before,
        skip_out_ptr + first_pixel * (channels - before),
    )
    out_ptr += first_pixel * channels

    part = tl.arange(0, PARTS)
    source = sums_ptr + (image * parts + part)[:, None] * 2 * channels + channel[None, :]
    summed = (part < parts)[:, None] & known[None, :]
    moved = tl.sum(tl.load(source, mask=summed, other=0.0), 0) / pixels
    squares = tl.sum(tl.load(source + channels, mask=summed, other=0.0), 0) - moved * moved * pixels
    mean = moved + tl.sum(
        _read(x_ptr, skip_ptr, tl.arange(0, 1), channel, pixels, channels, before, known, False, SKIPS), 0
    )
    added = tl.zeros_like(mean)
    if ADDS:
        added += tl.load(added_ptr + image * channels + channel, mask=known, other=0.0).to(tl.float32)
    at, group = image * affine_stride + channel, tl.arange(0, GROUP_BLOCK)
    centre, slope, bias = group_affine(
        mean, squares, added, weight_ptr + at, bias_ptr + at, local, group, known, pixels, eps, SIZE
    )

    if SHORTCUT:
        inverse, low, high, shift = load_grid(
            shortcut_grids_ptr + (tl.where(channel < before, 0, 4) if SKIPS else local * 0)
        )
        inverse = smoothed(inverse, shortcut_smooth_ptr, channel, known)
    begin = tl.program_id(1) * steps * PIXELS
    for index in tl.static_range(GRIDS):  # outside, since what is loaded in a loop is read ahead, grids too
        one, least, most, moved_by = load_grid(grids_ptr + 4 * index)
        if smooth_ptr is not None:
            one = smoothed(one, smooth_ptr, channel, known)[None, :]
        for step in tl.range(0, steps, num_stages=STAGES):
            pixel = begin + step * PIXELS + tl.arange(0, PIXELS)
            x = _read(x_ptr, skip_ptr, pixel, channel, pixels, channels, before, known, EVEN, SKIPS)
            y = (x - centre[None, :]) * slope[None, :] + bias[None, :]
            if SILU:
                y = silu(y)
            target, stored = out_ptr + pixel[:, None] * channels + channel[None, :], known[None, :]
            if not EVEN:
                stored = stored & (pixel < pixels)[:, None]
            tl.store(target, quantize(y, one, least, most, moved_by), mask=stored)
            if SHORTCUT and index == 0:
                itself = quantize(x, inverse[None, :], low[None, :], high[None, :], shift[None, :])
                tl.store(
                    element_pointers(x_out_ptr, skip_out_ptr, pixel, channel, channels, before, SKIPS),
                    itself,
                    mask=stored,
                )
        out_ptr += numel


def run(operands: GroupNormOperands, launch: GroupNormLaunch) -> None:
    """Fills the results of a group normalisation by both kernels."""
    channels, pixels = operands.channels, operands.pixels
    _, parts = launch.grid
    sums = torch.empty((operands.images, parts, 2, channels), device=operands.x.device)
    sizes = launch.sizes | {"PIXELS": launch.pixels, "STAGES": STAGES}
    sizes["EVEN"] = parts * launch.steps * launch.pixels == pixels
    sources, skips = operands.sources, operands.flags["SKIPS"]
    partial_sums_kernel[launch.grid](
        *sources, sums, pixels, channels, operands.before, launch.steps, SKIPS=skips, **sizes, num_warps=WARPS
    )
    block, widest = triton.next_power_of_2(launch.groups), triton.next_power_of_2(parts)
    normalise_kernel[launch.grid](
        *sources, *operands.vectors, sums, *operands.results, pixels, *operands.extents, parts, launch.steps,
        GROUP_BLOCK=block, PARTS=widest, **sizes, **operands.flags, num_warps=WARPS,
    )  # fmt: skip
