"""Group normalisation on a GPU, from floating point to int8 numbers: what is added before it, SiLU after it, and the grids of the layers
that follow.

A program has some groups of one image. It reads them twice, the second time from the cache, and writes half as many bytes as it read once.
`edadm.kernels.reference.normalised` says what it means.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.kernels import reference
from edadm.kernels.fake_quantize import rounded

WIDEST, NARROWEST = 64, 16  # channels of a program, where a group has no more
PROGRAMS = 132  # as many as a Hopper GPU has processors
ELEMENTS, WARPS = 2048, 8  # read at once


@triton.jit
@no_type_check
def _read(x_ptr, skip_ptr, added, pixel, channel, pixels, channels, before, known, SKIPS: tl.constexpr):
    """Pixels of an image; its channels from `before` on are those of another one."""
    at, inside = pixel[:, None], (pixel < pixels)[:, None] & known[None, :]
    if SKIPS:
        own = (channel < before)[None, :]
        x = tl.load(x_ptr + at * before + channel[None, :], mask=inside & own, other=0.0).to(tl.float32)
        other = tl.load(skip_ptr + at * (channels - before) + (channel - before)[None, :], mask=inside & ~own, other=0.0)
        x = tl.where(own, x, other.to(tl.float32))
    else:
        x = tl.load(x_ptr + at * channels + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    return x + added[None, :]


@triton.jit
@no_type_check
def _grid(grid_ptr):
    return tl.load(grid_ptr), tl.load(grid_ptr + 1), tl.load(grid_ptr + 2), tl.load(grid_ptr + 3)


@triton.jit
@no_type_check
def _normalised(
    x_ptr, skip_ptr, added_ptr, weight_ptr, bias_ptr, grids_ptr, out_ptr, pixels, channels, before, affine_stride, eps, numel,
    SIZE: tl.constexpr, GROUPS: tl.constexpr, GROUP_BLOCK: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
    SKIPS: tl.constexpr, ADDS: tl.constexpr, SILU: tl.constexpr, GRIDS: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, SIZE * GROUPS)
    image, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    local = tl.arange(0, CHANNELS)
    channel = block * (SIZE * GROUPS) + local
    known = (local < SIZE * GROUPS) & (channel < channels)
    first_pixel = image.to(tl.int64) * pixels
    x_ptr, skip_ptr = x_ptr + first_pixel * before, skip_ptr + first_pixel * (channels - before)
    out_ptr += first_pixel * channels
    if ADDS:
        added = tl.load(added_ptr + image * channels + channel, mask=known, other=0.0).to(tl.float32)
    else:
        added = tl.zeros((CHANNELS,), tl.float32)

    # sums of differences to the first pixel: a mean far from 0 costs the variance no digits
    pivot = tl.sum(_read(x_ptr, skip_ptr, added, tl.arange(0, 1), channel, pixels, channels, before, known, SKIPS), 0)
    first, second = tl.zeros((PIXELS, CHANNELS), tl.float32), tl.zeros((PIXELS, CHANNELS), tl.float32)
    for begin in range(0, pixels, PIXELS):
        pixel = begin + tl.arange(0, PIXELS)
        x = _read(x_ptr, skip_ptr, added, pixel, channel, pixels, channels, before, known, SKIPS)
        difference = tl.where((pixel < pixels)[:, None], x - pivot[None, :], 0.0)
        first += difference
        second += difference * difference
    moved = tl.sum(first, 0) / pixels
    mean, squares = pivot + moved, tl.sum(second, 0) - moved * moved * pixels
    # of channels, now of their groups
    belongs = ((local // SIZE)[None, :] == tl.arange(0, GROUP_BLOCK)[:, None]) & known[None, :]
    centre = tl.sum(tl.where(belongs, mean[None, :], 0.0), 1) / SIZE
    centre = tl.sum(tl.where(belongs, centre[:, None], 0.0), 0)
    away = mean - centre
    variance = tl.sum(tl.where(belongs, (squares + away * away * pixels)[None, :], 0.0), 1) / (SIZE * pixels)
    variance = tl.sum(tl.where(belongs, variance[:, None], 0.0), 0)

    affine = image * affine_stride + channel
    slope = tl.load(weight_ptr + affine, mask=known, other=0.0).to(tl.float32) / tl.sqrt_rn(variance + eps)
    bias = tl.load(bias_ptr + affine, mask=known, other=0.0).to(tl.float32)
    for begin in range(0, pixels, PIXELS):
        pixel = begin + tl.arange(0, PIXELS)
        x = _read(x_ptr, skip_ptr, added, pixel, channel, pixels, channels, before, known, SKIPS)
        y = (x - centre[None, :]) * slope[None, :] + bias[None, :]
        if SILU:
            y = y / (1.0 + tl.exp(-y))
        target, stored = pixel[:, None] * channels + channel[None, :], (pixel < pixels)[:, None] & known[None, :]
        for index in tl.static_range(GRIDS):
            scale, low, high, shift = _grid(grids_ptr + 4 * index)
            numbers = rounded(tl.div_rn(y, tl.zeros_like(y) + scale), low, high) + shift
            tl.store(out_ptr + index * numel + target, numbers.to(tl.int8), mask=stored)


def triton_normalised(
    x: Float[Tensor, "n h w b"],
    skip: Float[Tensor, "n h w s"] | None,
    added: Float[Tensor, "n c"] | None,
    weight: Float[Tensor, "m c"],
    bias: Float[Tensor, "m c"],
    groups: int,
    eps: float,
    silu: bool,
    grids: Float[Tensor, "g 4"],
) -> Int8[Tensor, "g n h w c"]:
    """The kernel's result; see `edadm.kernels.reference.normalised` for its arguments."""
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    (count, height, width, before), channels = x.shape, weight.shape[1]
    size = channels // groups
    block = max(WIDEST, triton.next_power_of_2(size))
    while block > max(NARROWEST, 2 * size - 1) and count * triton.cdiv(groups, block // size) < PROGRAMS:
        block //= 2
    together, pixels = block // size, height * width
    out = torch.empty((len(grids), count, height, width, channels), dtype=torch.int8, device=x.device)
    _normalised[(count * triton.cdiv(groups, together),)](
        x, x if skip is None else skip.contiguous(), x if added is None else added.contiguous(), weight, bias, grids, out, pixels, channels,
        before, 0 if len(weight) == 1 else channels, eps, out[0].numel(), size, together, triton.next_power_of_2(together), block,
        min(ELEMENTS // block, triton.next_power_of_2(pixels)), skip is not None, added is not None, silu, len(grids), num_warps=WARPS,
    )  # fmt: skip
    return out


_SCHEMA = "(Tensor x, Tensor? skip, Tensor? added, Tensor weight, Tensor bias, SymInt groups, float eps, bool silu, Tensor grids) -> Tensor"


@torch.library.custom_op("edadm::int8_normalised", mutates_args=(), schema=_SCHEMA)
def int8_normalised(
    x: Tensor,
    skip: Tensor | None,
    added: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    grids: Tensor,
) -> Tensor:
    """`edadm.kernels.reference.normalised`, by the kernel on a GPU and by its plain meaning elsewhere."""
    return (triton_normalised if x.is_cuda else reference.normalised)(x, skip, added, weight, bias, groups, eps, silu, grids)


@int8_normalised.register_fake
def _(
    x: Tensor,
    skip: Tensor | None,
    added: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    grids: Tensor,
) -> Tensor:
    """Shape and type of the result, for the compiler."""
    return x.new_empty((len(grids), *x.shape[:3], weight.shape[1]), dtype=torch.int8)
