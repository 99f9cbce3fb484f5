"""Group normalisation in fp32 on a GPU, channels last, with what is added before it and SiLU after it.

It means `torch.nn.functional.group_norm`, and `silu` after it. PyTorch's own kernels make images whose
channels come first of it, which the next convolution puts in order again.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from edadm.kernels.floats.launch import WARPS, choose_group_norm
from edadm.kernels.int8 import elementwise
from edadm.kernels.int8.norms.statistics import group_affine


@triton.jit
@no_type_check
def group_norm_kernel(
    x_ptr, added_ptr, weight_ptr, bias_ptr, out_ptr, pixels, channels, added_stride, affine_stride, eps,
    SIZE: tl.constexpr, GROUPS: tl.constexpr, GROUP_BLOCK: tl.constexpr, CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Normalises some groups of one image, which it reads twice, the second time mostly from the cache.

    Sums are of differences to the first pixel, so that a mean far from 0 costs the variance no digits.
    """
    blocks = tl.cdiv(channels, SIZE * GROUPS)
    image, local = tl.program_id(0) // blocks, tl.arange(0, CHANNELS)
    channel = tl.program_id(0) % blocks * (SIZE * GROUPS) + local
    known = (local < SIZE * GROUPS) & (channel < channels)
    first_element = image.to(tl.int64) * pixels * channels
    x_ptr, out_ptr = x_ptr + first_element, out_ptr + first_element
    pivot = tl.load(x_ptr + channel, mask=known, other=0.0)
    first, second = tl.zeros((PIXELS, CHANNELS), tl.float32), tl.zeros((PIXELS, CHANNELS), tl.float32)
    for begin in range(0, pixels, PIXELS):
        pixel = begin + tl.arange(0, PIXELS)
        there = (pixel < pixels)[:, None] & known[None, :]
        x = tl.load(x_ptr + pixel[:, None] * channels + channel[None, :], mask=there, other=0.0)
        difference = tl.where(there, x - pivot[None, :], 0.0)
        first += difference
        second += difference * difference
    moved = tl.sum(first, 0) / pixels
    squares, added = tl.sum(second, 0) - moved * moved * pixels, moved * 0.0
    if added_ptr is not None:
        added += tl.load(added_ptr + image * added_stride + channel, mask=known, other=0.0)
    at, group = image * affine_stride + channel, tl.arange(0, GROUP_BLOCK)
    centre, slope, bias = group_affine(
        pivot + moved, squares, added, weight_ptr + at, bias_ptr + at, local, group, known, pixels, eps, SIZE
    )
    for begin in range(0, pixels, PIXELS):
        pixel = begin + tl.arange(0, PIXELS)
        there = (pixel < pixels)[:, None] & known[None, :]
        place = pixel[:, None] * channels + channel[None, :]
        y = (tl.load(x_ptr + place, mask=there, other=0.0) - centre[None, :]) * slope[None, :] + bias[None, :]
        if SILU:
            y = elementwise.silu(y)
        tl.store(out_ptr + place, y, mask=there)


def triton_group_norm(
    x: Float[Tensor, "n c *s"],
    groups: int,
    weight: Float[Tensor, "m c"],
    bias: Float[Tensor, "m c"],
    eps: float,
    silu: bool = False,
    added: Float[Tensor, "k c"] | None = None,
) -> Float[Tensor, "n c *s"]:
    """The group normalisation, with channels last in memory whatever the input's layout.

    Args:
        x: images, or rows of tokens.
        groups: of channels.
        weight: of the normalised values: one for all images, or one of each.
        bias: likewise.
        eps: added to variances.
        silu: whether SiLU follows.
        added: to all pixels before: one for all images, or one of each.
    """
    rows = x.movedim(1, -1).contiguous()
    images, channels = len(x), x.shape[1]
    pixels = rows[0].numel() // channels
    launch, out = choose_group_norm(pixels, channels, groups), torch.empty_like(rows)
    strides = (0 if part is None or len(part) == 1 else channels for part in (added, weight))
    affine = None if added is None else added.contiguous(), weight.contiguous(), bias.contiguous()
    group_norm_kernel[(images * launch.programs,)](
        rows, *affine, out, pixels, channels, *strides, eps,
        channels // groups, launch.groups, triton.next_power_of_2(launch.groups), launch.width, launch.pixels,
        silu, num_warps=WARPS,
    )  # fmt: skip
    return out.movedim(-1, 1)
