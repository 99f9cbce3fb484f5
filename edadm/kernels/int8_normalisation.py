"""Group normalisation on a GPU, from floating point to int8 numbers: what is added before it, SiLU after it, and the grids of the layers
that follow.

A program has some groups of one image. It reads them twice, the second time from the cache, and writes half as many bytes as it read once.
`edadm.kernels.reference.normalised` says what it means; a value is multiplied by a grid's inverse here instead of divided, so that one
between two numbers may become the other one.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.kernels import reference
from edadm.kernels.tiles import PROCESSORS

WIDTHS = (64, 32, 128, 16)  # channels of a program, the first of those that cost as much
ELEMENTS, WARPS, STAGES = 4096, 8, 4  # read at once; some reads are on their way while one is computed with
MAGIC = tl.constexpr(12582912.0)  # 1.5 * 2^23: what is added to it has no fraction, and its last bits are the integer


@triton.jit
@no_type_check
def _places(x_ptr, skip_ptr, pixel, channel, channels, before, SKIPS: tl.constexpr):
    """Of pixels of an image, whose channels from `before` on are those of another one."""
    at, place = pixel[:, None], channel[None, :]
    if SKIPS:
        own, other = x_ptr + at * before + place, skip_ptr + at * (channels - before) + (place - before)
        return tl.where(place < before, own, other)
    return x_ptr + at * channels + place


@triton.jit
@no_type_check
def _read(x_ptr, skip_ptr, pixel, channel, pixels, channels, before, known, EVEN: tl.constexpr, SKIPS: tl.constexpr):
    source = _places(x_ptr, skip_ptr, pixel, channel, channels, before, SKIPS)
    if EVEN:
        return tl.load(source, mask=known[None, :], other=0.0).to(tl.float32)
    return tl.load(source, mask=(pixel < pixels)[:, None] & known[None, :], other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _of_groups(values, belongs):
    """For each channel, the sum over its group."""
    sums = tl.sum(tl.where(belongs, values[None, :], 0.0), 1)
    return tl.sum(tl.where(belongs, sums[:, None], 0.0), 0)


@triton.jit
@no_type_check
def _grid(grid_ptr):
    """Of each pointer: the inverse of a grid's scale, its ends, and what makes its integers int8."""
    return 1.0 / tl.load(grid_ptr), tl.load(grid_ptr + 1), tl.load(grid_ptr + 2), tl.load(grid_ptr + 3).to(tl.int32)


@triton.jit
@no_type_check
def _numbers(y, inverse, low, high, shift):
    """Half to even."""
    near = tl.minimum(tl.maximum(y * inverse, low), high) + MAGIC
    return (near.to(tl.int32, bitcast=True) + shift).to(tl.int8)


@triton.jit
@no_type_check
def _normalised(
    x_ptr, skip_ptr, added_ptr, weight_ptr, bias_ptr, grids_ptr, around_ptr, out_ptr, x_out_ptr, skip_out_ptr,
    pixels, channels, before, affine_stride, eps, numel,
    SIZE: tl.constexpr, GROUPS: tl.constexpr, GROUP_BLOCK: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, EVEN: tl.constexpr,
    SKIPS: tl.constexpr, ADDS: tl.constexpr, SILU: tl.constexpr, GRIDS: tl.constexpr, AROUND: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, SIZE * GROUPS)
    image, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    local = tl.arange(0, CHANNELS)
    channel = block * (SIZE * GROUPS) + local
    known = (local < SIZE * GROUPS) & (channel < channels)
    first_pixel = image.to(tl.int64) * pixels
    x_ptr, skip_ptr = x_ptr + first_pixel * before, skip_ptr + first_pixel * (channels - before)
    x_out_ptr, skip_out_ptr = x_out_ptr + first_pixel * before, skip_out_ptr + first_pixel * (channels - before)
    out_ptr += first_pixel * channels

    # sums of differences to the first pixel: a mean far from 0 costs the variance no digits
    pivot = tl.sum(_read(x_ptr, skip_ptr, tl.arange(0, 1), channel, pixels, channels, before, known, False, SKIPS), 0)
    first, second = tl.zeros((PIXELS, CHANNELS), tl.float32), tl.zeros((PIXELS, CHANNELS), tl.float32)
    for begin in tl.range(0, pixels, PIXELS, num_stages=STAGES):
        pixel = begin + tl.arange(0, PIXELS)
        difference = _read(x_ptr, skip_ptr, pixel, channel, pixels, channels, before, known, EVEN, SKIPS) - pivot[None, :]
        if not EVEN:
            difference = tl.where((pixel < pixels)[:, None], difference, 0.0)
        first += difference
        second += difference * difference
    moved = tl.sum(first, 0) / pixels
    mean, squares = pivot + moved, tl.sum(second, 0) - moved * moved * pixels
    if ADDS:
        added = tl.load(added_ptr + image * channels + channel, mask=known, other=0.0).to(tl.float32)
        mean += added
    # of channels, now of their groups
    belongs = ((local // SIZE)[None, :] == tl.arange(0, GROUP_BLOCK)[:, None]) & known[None, :]
    centre = _of_groups(mean, belongs) / SIZE
    away = mean - centre
    variance = _of_groups(squares + away * away * pixels, belongs) / (SIZE * pixels)

    affine = image * affine_stride + channel
    slope = tl.load(weight_ptr + affine, mask=known, other=0.0).to(tl.float32) / tl.sqrt_rn(variance + eps)
    bias = tl.load(bias_ptr + affine, mask=known, other=0.0).to(tl.float32)
    if ADDS:
        centre -= added
    if AROUND:
        inverse, low, high, shift = _grid(around_ptr + (tl.where(channel < before, 0, 4) if SKIPS else local * 0))
    for begin in tl.range(0, pixels, PIXELS, num_stages=STAGES):
        pixel = begin + tl.arange(0, PIXELS)
        x = _read(x_ptr, skip_ptr, pixel, channel, pixels, channels, before, known, EVEN, SKIPS)
        y = (x - centre[None, :]) * slope[None, :] + bias[None, :]
        if SILU:
            y = y / (1.0 + tl.exp(-y))
        target, stored = out_ptr + pixel[:, None] * channels + channel[None, :], known[None, :]
        if not EVEN:
            stored = stored & (pixel < pixels)[:, None]
        for index in tl.static_range(GRIDS):
            one, least, most, moved_by = _grid(grids_ptr + 4 * index)
            tl.store(target + index * numel, _numbers(y, one, least, most, moved_by), mask=stored)
        if AROUND:
            itself = _numbers(x, inverse[None, :], low[None, :], high[None, :], shift[None, :])
            tl.store(_places(x_out_ptr, skip_out_ptr, pixel, channel, channels, before, SKIPS), itself, mask=stored)


def divided(images: int, groups: int, size: int) -> tuple[int, int]:
    """Groups of a program, and channels that it has room for: where rows of them begin at 16 bytes, and few processors wait for others.

    Args:
        images: in the batch.
        groups: of an image.
        size: channels of a group.
    """
    fitting = [(together, width) for width in WIDTHS for together in range(1, min(groups, width // size) + 1)]
    fitting = fitting or [(1, triton.next_power_of_2(size))]
    aligned = [(together, width) for together, width in fitting if together * size % 8 == 0] or fitting

    def cost(choice: tuple[int, int]) -> int:
        together, width = choice
        return max(PROCESSORS, images * triton.cdiv(groups, together)) * width

    return min(aligned, key=cost)


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
    around: Float[Tensor, "parts 4"] | None = None,
) -> tuple[Int8[Tensor, "g n h w c"], Tensor, Tensor]:
    """The kernel's result; see `edadm.kernels.reference.normalised` for its arguments."""
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    (count, height, width, before), channels = x.shape, weight.shape[1]
    size, pixels = channels // groups, height * width
    together, block = divided(count, groups, size)
    at_once = min(ELEMENTS // block, triton.next_power_of_2(pixels))
    out = torch.empty((len(grids), count, height, width, channels), dtype=torch.int8, device=x.device)
    parts = (torch.Size([0]) if around is None or part is None else part.shape for part in (x, skip))
    itself, other = (torch.empty(shape, dtype=torch.int8, device=x.device) for shape in parts)
    _normalised[(count * triton.cdiv(groups, together),)](
        x, x if skip is None else skip.contiguous(), x if added is None else added.contiguous(), weight, bias, grids,
        grids if around is None else around, out, itself, other, pixels, channels, before, 0 if len(weight) == 1 else channels, eps,
        out[0].numel(), size, together, triton.next_power_of_2(together), block, at_once, pixels % at_once == 0, skip is not None,
        added is not None, silu, len(grids), around is not None, STAGES, num_warps=WARPS,
    )  # fmt: skip
    return out, itself, other


_SCHEMA = (
    "(Tensor x, Tensor? skip, Tensor? added, Tensor weight, Tensor bias, SymInt groups, float eps, bool silu, Tensor grids, "
    "Tensor? around) -> (Tensor, Tensor, Tensor)"
)


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
    around: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`edadm.kernels.reference.normalised`, by the kernel on a GPU and by its plain meaning elsewhere."""
    return (triton_normalised if x.is_cuda else reference.normalised)(x, skip, added, weight, bias, groups, eps, silu, grids, around)


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
    around: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes and types of the results, for the compiler."""
    numbers = x.new_empty((len(grids), *x.shape[:3], weight.shape[1]), dtype=torch.int8)
    itself, other = (x.new_empty((0,) if around is None or part is None else part.shape, dtype=torch.int8) for part in (x, skip))
    return numbers, itself, other
