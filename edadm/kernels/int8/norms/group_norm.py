"""Group normalisation on a GPU, from floating point to int8 numbers: what is added before it, SiLU after it, and the grids of the layers
that follow.

Where some groups of an image fit a processor's memory, a program reads them once (`group_norm_resident`). Otherwise
programs share an image: the first kernel sums parts of it, the second one adds these sums up and reads the
image again. `edadm.kernels.int8.reference.normalised` says what it means; a value is multiplied by a grid's
inverse here instead of divided, so that one between two numbers may become the other one.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.kernels.int8 import reference
from edadm.kernels.int8.elementwise import grid, numbers, silu
from edadm.kernels.int8.norms.group_norm_resident import hold
from edadm.kernels.int8.norms.statistics import affine, divided, places
from edadm.kernels.int8.tiles import PROCESSORS

ELEMENTS, WARPS, STAGES = 2048, 2, 4  # read at once; some reads are on their way while one is computed with
PROGRAMS = 4 * PROCESSORS  # an image is parted until there are as many


@triton.jit
@no_type_check
def _read(
    x_ptr, skip_ptr, pixel, channel, pixels, channels, before, known, EVEN: tl.constexpr, SKIPS: tl.constexpr
):
    source = places(x_ptr, skip_ptr, pixel, channel, channels, before, SKIPS)
    if EVEN:
        return tl.load(source, mask=known[None, :], other=0.0).to(tl.float32)
    return tl.load(source, mask=(pixel < pixels)[:, None] & known[None, :], other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _where(channels, SIZE: tl.constexpr, GROUPS: tl.constexpr, CHANNELS: tl.constexpr):
    """A program's image, its channels, and which of them there are."""
    blocks = tl.cdiv(channels, SIZE * GROUPS)
    image, local = tl.program_id(0) // blocks, tl.arange(0, CHANNELS)
    channel = tl.program_id(0) % blocks * (SIZE * GROUPS) + local
    return image, local, channel, (local < SIZE * GROUPS) & (channel < channels)


@triton.jit
@no_type_check
def _summed(
    x_ptr, skip_ptr, sums_ptr, pixels, channels, before, steps,
    SIZE: tl.constexpr, GROUPS: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, EVEN: tl.constexpr, SKIPS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Of each channel, over a part of the image: sums of differences to the image's first pixel, and of their squares. A mean far from 0
    costs the variance no digits so.
    """
    image, _, channel, known = _where(channels, SIZE, GROUPS, CHANNELS)
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
def _written(
    x_ptr, skip_ptr, added_ptr, weight_ptr, bias_ptr, grids_ptr, around_ptr, sums_ptr, out_ptr, x_out_ptr, skip_out_ptr,
    pixels, channels, before, affine_stride, eps, numel, parts, steps,
    SIZE: tl.constexpr, GROUPS: tl.constexpr, GROUP_BLOCK: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, EVEN: tl.constexpr,
    SKIPS: tl.constexpr, ADDS: tl.constexpr, SILU: tl.constexpr, GRIDS: tl.constexpr, AROUND: tl.constexpr, PARTS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Numbers of a part of the image, from the sums of all of its parts."""
    image, local, channel, known = _where(channels, SIZE, GROUPS, CHANNELS)
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
    centre, slope, bias = affine(
        mean, squares, added, weight_ptr + at, bias_ptr + at, local, group, known, pixels, eps, SIZE
    )

    if AROUND:
        inverse, low, high, shift = grid(
            around_ptr + (tl.where(channel < before, 0, 4) if SKIPS else local * 0)
        )
    begin = tl.program_id(1) * steps * PIXELS
    for index in tl.static_range(GRIDS):  # outside, since what is loaded in a loop is read ahead, grids too
        one, least, most, moved_by = grid(grids_ptr + 4 * index)
        for step in tl.range(0, steps, num_stages=STAGES):
            pixel = begin + step * PIXELS + tl.arange(0, PIXELS)
            x = _read(x_ptr, skip_ptr, pixel, channel, pixels, channels, before, known, EVEN, SKIPS)
            y = (x - centre[None, :]) * slope[None, :] + bias[None, :]
            if SILU:
                y = silu(y)
            target, stored = out_ptr + pixel[:, None] * channels + channel[None, :], known[None, :]
            if not EVEN:
                stored = stored & (pixel < pixels)[:, None]
            tl.store(target, numbers(y, one, least, most, moved_by), mask=stored)
            if AROUND and index == 0:
                itself = numbers(x, inverse[None, :], low[None, :], high[None, :], shift[None, :])
                tl.store(
                    places(x_out_ptr, skip_out_ptr, pixel, channel, channels, before, SKIPS),
                    itself,
                    mask=stored,
                )
        out_ptr += numel


class Parts(NamedTuple):
    """How images are parted: `pixels` are read at once, `steps` times by each program."""

    pixels: int
    steps: int
    programs: int


def parted(programs: int, pixels: int, width: int) -> Parts:
    """Parts of an image, so that there are programs for all processors.

    Args:
        programs: if images were whole.
        pixels: of an image.
        width: channels that a program has room for.
    """
    at_once = min(ELEMENTS // width, triton.next_power_of_2(pixels))
    all_steps = triton.cdiv(pixels, at_once)
    steps = triton.cdiv(all_steps, min(all_steps, triton.cdiv(PROGRAMS, programs)))
    return Parts(at_once, steps, triton.cdiv(all_steps, steps))


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
    holds: bool = True,
) -> tuple[Int8[Tensor, "g n h w c"], Tensor, Tensor]:
    """The kernels' result; see `edadm.kernels.int8.reference.normalised` for its arguments.

    Args:
        holds: whether what fits a processor's memory is read once.
    """
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    (count, height, width, before), channels = x.shape, weight.shape[1]
    size, pixels = channels // groups, height * width
    out = torch.empty((len(grids), count, height, width, channels), dtype=torch.int8, device=x.device)
    shapes = (torch.Size([0]) if around is None or part is None else part.shape for part in (x, skip))
    itself, other = (torch.empty(shape, dtype=torch.int8, device=x.device) for shape in shapes)
    sources = x, x if skip is None else skip.contiguous()
    vectors = (
        x if added is None else added.contiguous(),
        weight,
        bias,
        grids,
        grids if around is None else around,
    )
    layout = channels, before, 0 if len(weight) == 1 else channels, eps, out[0].numel()
    what = {
        "SKIPS": skip is not None,
        "ADDS": added is not None,
        "SILU": silu,
        "GRIDS": len(grids),
        "AROUND": around is not None,
    }
    if holds and hold(sources, vectors, (out, itself, other), layout, pixels, groups, what):
        return out, itself, other

    together, block = divided(count, groups, size)
    programs = count * triton.cdiv(groups, together)
    parts = parted(programs, pixels, block)
    sums = torch.empty((count, parts.programs, 2, channels), device=x.device)
    sizes = {"SIZE": size, "GROUPS": together, "CHANNELS": block, "PIXELS": parts.pixels, "STAGES": STAGES}
    sizes["EVEN"] = parts.programs * parts.steps * parts.pixels == pixels
    _summed[programs, parts.programs](
        *sources, sums, pixels, channels, before, parts.steps, SKIPS=what["SKIPS"], **sizes, num_warps=WARPS
    )
    _written[programs, parts.programs](
        *sources, *vectors, sums, out, itself, other, pixels, *layout, parts.programs, parts.steps,
        GROUP_BLOCK=triton.next_power_of_2(together), PARTS=triton.next_power_of_2(parts.programs), **sizes, **what, num_warps=WARPS,
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
    """`edadm.kernels.int8.reference.normalised`, by the kernel on a GPU and by its plain meaning elsewhere."""
    return (triton_normalised if x.is_cuda else reference.normalised)(
        x, skip, added, weight, bias, groups, eps, silu, grids, around
    )


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
    itself, other = (
        x.new_empty((0,) if around is None or part is None else part.shape, dtype=torch.int8)
        for part in (x, skip)
    )
    return numbers, itself, other
