"""Statistics of a normalisation to int8 numbers, in Triton; Gluon's kernel wraps the same functions."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def element_pointers(x_ptr, skip_ptr, pixel, channel, channels, before, SKIPS: tl.constexpr):
    """Pointers to pixels of an image whose channels from `before` on are those of a second input."""
    at, place = pixel[:, None], channel[None, :]
    if SKIPS:
        own, other = x_ptr + at * before + place, skip_ptr + at * (channels - before) + (place - before)
        return tl.where(place < before, own, other)
    return x_ptr + at * channels + place


@triton.jit
@no_type_check
def _of_groups(values, belongs):
    """The sum over its group, for each channel."""
    sums = tl.sum(tl.where(belongs, values[None, :], 0.0), 1)
    return tl.sum(tl.where(belongs, sums[:, None], 0.0), 0)


@triton.jit
@no_type_check
def group_affine(
    mean, squares, added, weight_ptr, bias_ptr, local, group, known, pixels, eps, SIZE: tl.constexpr
):
    """Centre, slope and bias that normalise each channel: `(x - centre) * slope + bias`, without `added`.

    From what each channel has: the pixels' mean, and the sum of squared differences to it.
    """
    mean += added
    belongs = ((local // SIZE)[None, :] == group[:, None]) & known[None, :]
    centre = _of_groups(mean, belongs) / SIZE
    away = mean - centre
    variance = _of_groups(squares + away * away * pixels, belongs) / (SIZE * pixels)
    slope = tl.load(weight_ptr, mask=known, other=0.0).to(tl.float32) / tl.sqrt_rn(variance + eps)
    return centre - added, slope, tl.load(bias_ptr, mask=known, other=0.0).to(tl.float32)
