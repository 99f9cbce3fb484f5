"""What kernels of a normalisation to int8 numbers have in common, for Triton; Gluon's wraps the same functions."""

from __future__ import annotations

import math
from typing import no_type_check

import triton
import triton.language as tl

from edadm.kernels.int8.tiles import PROCESSORS

WIDTHS = (64, 32, 128, 256, 16)  # channels of a program, the first of those that cost as much


@triton.jit
@no_type_check
def places(x_ptr, skip_ptr, pixel, channel, channels, before, SKIPS: tl.constexpr):
    """Of pixels of an image, whose channels from `before` on are those of another one."""
    at, place = pixel[:, None], channel[None, :]
    if SKIPS:
        own, other = x_ptr + at * before + place, skip_ptr + at * (channels - before) + (place - before)
        return tl.where(place < before, own, other)
    return x_ptr + at * channels + place


@triton.jit
@no_type_check
def _of_groups(values, belongs):
    """For each channel, the sum over its group."""
    sums = tl.sum(tl.where(belongs, values[None, :], 0.0), 1)
    return tl.sum(tl.where(belongs, sums[:, None], 0.0), 0)


@triton.jit
@no_type_check
def affine(mean, squares, added, weight_ptr, bias_ptr, local, group, known, pixels, eps, SIZE: tl.constexpr):
    """From what each channel has, (pixels' mean, sum of squared differences to it), what its values are normalised with: `(x - centre) *
    slope + bias`, x being without `added`.
    """
    mean += added
    belongs = ((local // SIZE)[None, :] == group[:, None]) & known[None, :]
    centre = _of_groups(mean, belongs) / SIZE
    away = mean - centre
    variance = _of_groups(squares + away * away * pixels, belongs) / (SIZE * pixels)
    slope = tl.load(weight_ptr, mask=known, other=0.0).to(tl.float32) / tl.sqrt_rn(variance + eps)
    return centre - added, slope, tl.load(bias_ptr, mask=known, other=0.0).to(tl.float32)


def divided(images: int, groups: int, size: int, widest: int | None = None) -> tuple[int, int]:
    """Groups of a program, and channels that it has room for: where rows of them begin at 16 bytes, and their numbers
    at 32 or 64 if that costs no more.

    Args:
        images: in the batch.
        groups: of an image.
        size: channels of a group.
        widest: most channels, unless a single group has more.
    """
    widths = [width for width in WIDTHS if width <= (widest or width)]
    fitting = [(together, width) for width in widths for together in range(1, min(groups, width // size) + 1)]
    fitting = fitting or [(1, triton.next_power_of_2(size))]

    def cost(choice: tuple[int, int]) -> tuple[bool, int, int]:
        """Whole reads first, then room for channels in all programs (there is work for a quarter of the processors), then whole writes."""
        together, width = choice
        begins = math.gcd(together * size, 64)
        return begins % 8 > 0, max(PROCESSORS // 4, images * triton.cdiv(groups, together)) * width, -begins

    return min(fitting, key=cost)
