"""Group normalisation on a GPU, from floating point to int8 numbers: what is added before it, SiLU after it, and the next layer's grid.

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
ELEMENTS, WARPS = 8192, 8  # read at once


@triton.jit
@no_type_check
def _read(x_ptr, added, pixel, channel, pixels, channels, known):
    x = tl.load(x_ptr + pixel[:, None] * channels + channel[None, :], mask=(pixel < pixels)[:, None] & known[None, :], other=0.0)
    return x.to(tl.float32) + added[None, :]


@triton.jit
@no_type_check
def _normalised(
    x_ptr, added_ptr, weight_ptr, bias_ptr, grid_ptr, out_ptr, pixels, channels, affine_stride, eps, low, high, shift,
    SIZE: tl.constexpr, GROUPS: tl.constexpr, GROUP_BLOCK: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
    ADDS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, SIZE * GROUPS)
    image, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    local = tl.arange(0, CHANNELS)
    channel = block * (SIZE * GROUPS) + local
    known = (local < SIZE * GROUPS) & (channel < channels)
    start = image.to(tl.int64) * pixels * channels
    x_ptr, out_ptr = x_ptr + start, out_ptr + start
    if ADDS:
        added = tl.load(added_ptr + image * channels + channel, mask=known, other=0.0).to(tl.float32)
    else:
        added = tl.zeros((CHANNELS,), tl.float32)

    # sums of differences to the first pixel: a mean far from 0 costs the variance no digits
    pivot = tl.load(x_ptr + channel, mask=known, other=0.0).to(tl.float32) + added
    first, second = tl.zeros((PIXELS, CHANNELS), tl.float32), tl.zeros((PIXELS, CHANNELS), tl.float32)
    for begin in range(0, pixels, PIXELS):
        pixel = begin + tl.arange(0, PIXELS)
        difference = tl.where((pixel < pixels)[:, None], _read(x_ptr, added, pixel, channel, pixels, channels, known) - pivot[None, :], 0.0)
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
    step = tl.load(grid_ptr)
    for begin in range(0, pixels, PIXELS):
        pixel = begin + tl.arange(0, PIXELS)
        y = (_read(x_ptr, added, pixel, channel, pixels, channels, known) - centre[None, :]) * slope[None, :] + bias[None, :]
        if SILU:
            y = y / (1.0 + tl.exp(-y))
        numbers = rounded(tl.div_rn(y, tl.zeros_like(y) + step), low, high) + shift
        stored = (pixel < pixels)[:, None] & known[None, :]
        tl.store(out_ptr + pixel[:, None] * channels + channel[None, :], numbers.to(tl.int8), mask=stored)


def triton_normalised(
    x: Float[Tensor, "n h w c"],
    added: Float[Tensor, "n c"] | None,
    weight: Float[Tensor, "m c"],
    bias: Float[Tensor, "m c"],
    groups: int,
    eps: float,
    silu: bool,
    grid: Float[Tensor, ""],
    low: float,
    high: float,
    shift: int,
) -> Int8[Tensor, "n h w c"]:
    """The kernel's result; see `edadm.kernels.reference.normalised` for its arguments."""
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    (count, height, width, channels), size = x.shape, x.shape[3] // groups
    block = max(WIDEST, triton.next_power_of_2(size))
    while block > max(NARROWEST, 2 * size - 1) and count * triton.cdiv(groups, block // size) < PROGRAMS:
        block //= 2
    together, pixels = block // size, height * width
    out = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    _normalised[(count * triton.cdiv(groups, together),)](
        x, x if added is None else added.contiguous(), weight, bias, grid, out, pixels, channels, 0 if len(weight) == 1 else channels, eps,
        low, high, shift, size, together, triton.next_power_of_2(together), block, min(ELEMENTS // block, triton.next_power_of_2(pixels)),
        added is not None, silu, num_warps=WARPS,
    )  # fmt: skip
    return out


_SCHEMA = (
    "(Tensor x, Tensor? added, Tensor weight, Tensor bias, SymInt groups, float eps, bool silu, Tensor grid, float low, float high, "
    "SymInt shift) -> Tensor"
)


@torch.library.custom_op("edadm::int8_normalised", mutates_args=(), schema=_SCHEMA)
def int8_normalised(
    x: Tensor,
    added: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    grid: Tensor,
    low: float,
    high: float,
    shift: int,
) -> Tensor:
    """`edadm.kernels.reference.normalised`, by the kernel on a GPU and by its plain meaning elsewhere."""
    return (triton_normalised if x.is_cuda else reference.normalised)(x, added, weight, bias, groups, eps, silu, grid, low, high, shift)


@int8_normalised.register_fake
def _(
    x: Tensor,
    added: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    grid: Tensor,
    low: float,
    high: float,
    shift: int,
) -> Tensor:
    """Shape and type of the result, for the compiler."""
    return x.new_empty(x.shape, dtype=torch.int8)
