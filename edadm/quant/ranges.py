"""The clipping range that quantizes best: 100 thresholds, L2.4 error (method, 3.2 and 3.3), or two ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.quant.affine import scale_and_zero_point

THRESHOLDS = 100
EXPONENT = 2.4
MOST_ROUNDS = 4
MOST_ELEMENTS, MOST_ON_CPU = 2**22, 2**20  # of a piece; a processor's caches are smaller than a GPU's memory
MOST_COUNTED = 2**23


@dataclass(frozen=True)
class Range:
    """Intervals [low, high], one per row."""

    low: Float[Tensor, " rows"]
    high: Float[Tensor, " rows"]


def sidedness(low: float, high: float) -> tuple[float, float]:
    """Which sides of zero a range covers: (1, 1), or one of them 0 where no value lies on that side."""
    return (0.0, 1.0) if low >= 0 else (1.0, 0.0) if high <= 0 else (1.0, 1.0)


def _errors(values: Tensor, weights: Tensor | None, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """The mean error of every row on its grid; ranges (..., rows) give errors of that shape."""
    scale, zero_point = (g[..., None] for g in scale_and_zero_point(low, high, bits))
    codes = values.div(scale).round_()
    error = (
        torch.minimum(torch.maximum(codes, -zero_point), 2**bits - 1 - zero_point)
        .mul_(scale)
        .sub_(values)
        .abs_()
        .pow_(EXPONENT)
    )
    return error.mean(-1) if weights is None else (error * weights).sum(-1) / weights.sum(-1)


def _shares(values: Tensor) -> tuple[Tensor, ...]:
    """The shares k/100, k = 1..100, (k, 1), in as few pieces as memory allows for `values` times each."""
    shares = (
        torch.arange(1, THRESHOLDS + 1, dtype=torch.float64, device=values.device)
        .div(THRESHOLDS)
        .to(values.dtype)
    )
    most = MOST_ON_CPU if values.device.type == "cpu" else MOST_ELEMENTS
    return shares[:, None].split(max(1, most // values.numel()))


def _better(errors: Tensor, tried: Tensor, error: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Per row, the best of some trials (k, rows) if it beats what is kept, and its error; first wins ties."""
    found, index = errors.min(0)[0], errors.argmin(0, keepdim=True)
    wins = found < error
    return torch.where(wins, found, error), torch.where(wins, tried.gather(0, index)[0], kept)


def best_range(
    values: Float[Tensor, "rows n"],
    bits: int,
    sides: tuple[float, float] = (1.0, 1.0),
    weights: Float[Tensor, "rows n"] | None = None,
    extent: Float[Tensor, " rows"] | None = None,
) -> Range:
    """Per row, the range `[-s0 * t, s1 * t]` with the least mean |x - x_quantized|^2.4.

    The thresholds t are k/100 of the row's `extent` (its largest magnitude), k = 1..100; the smallest wins
    ties.

    Args:
        values: what is quantized.
        bits: width of the grid.
        sides: (s0, s1), see `sidedness`.
        weights: how often each value occurs; once if absent.
        extent: the largest magnitude, if `values` are bin centres.
    """
    extent = values.abs().amax(1) if extent is None else extent
    best_error, best = torch.full_like(extent, torch.inf), torch.zeros_like(extent)
    for shares in _shares(values):
        thresholds = extent * shares
        errors = _errors(values, weights, -sides[0] * thresholds, sides[1] * thresholds, bits)
        best_error, best = _better(errors, thresholds, best_error, best)
    return Range(-sides[0] * best, sides[1] * best)


def best_off_centre_range(values: Float[Tensor, "rows n"], bits: int) -> Range:
    """Per row, the better of the two grids of a symmetric range: zero point 2^(bits-1), or one less.

    An even number of levels cannot lie symmetrically about zero. With the same zero point in all rows, all of
    them clip their positive ends more than their negative ones, and the errors add up; see quirk Q14.
    """
    top = 2**bits - 1
    more, less = (top + 1) / top, (top - 1) / top
    low_first, high_first = (best_range(values, bits, sides) for sides in ((more, less), (less, more)))
    errors = [_errors(values, None, one.low, one.high, bits) for one in (low_first, high_first)]
    first = errors[0] <= errors[1]
    return Range(
        torch.where(first, low_first.low, high_first.low), torch.where(first, low_first.high, high_first.high)
    )


def best_asymmetric_range(
    values: Float[Tensor, "rows n"],
    bits: int,
    sides: tuple[float, float] = (1.0, 1.0),
    weights: Float[Tensor, "rows n"] | None = None,
    lowest: Float[Tensor, " rows"] | None = None,
    highest: Float[Tensor, " rows"] | None = None,
) -> Range:
    """Per row, an asymmetric range, never worse than `best_range` on the same values.

    A symmetric grid gives SiLU outputs, whose least value is -0.278, about half of its codes (quirk Q40).
    From the best symmetric range, cut to where values lie, the search moves one end at a time over k/100 of
    the row's extreme on that side, until neither end moves: a few hundred grids, where the official
    two-dimensional search tries 25,600 at 8 bits. The zero point is an integer for every range, so that zero
    stays exact.

    Args:
        values: what is quantized.
        bits: width of the grid.
        sides: see `sidedness`; one-sided values get the range of `best_range`.
        weights: how often each value occurs; once if absent.
        lowest: the smallest value, if `values` are bin centres.
        highest: the largest value, likewise.
    """
    lowest = (values.amin(1) if lowest is None else lowest).clamp(max=0)
    highest = (values.amax(1) if highest is None else highest).clamp(min=0)
    symmetric = best_range(values, bits, sides, weights, torch.maximum(-lowest, highest))
    if 0 in sides:
        return symmetric
    limits = [torch.maximum(symmetric.low, lowest), torch.minimum(symmetric.high, highest)]
    error = _errors(values, weights, limits[0], limits[1], bits)
    for _ in range(MOST_ROUNDS):
        before = error
        for side, extreme in ((0, lowest), (1, highest)):
            for shares in _shares(values):
                tried = extreme * shares
                low, high = (
                    (tried, limits[1].expand_as(tried)) if side == 0 else (limits[0].expand_as(tried), tried)
                )
                error, limits[side] = _better(
                    _errors(values, weights, low, high, bits), tried, error, limits[side]
                )
        if not bool((error < before).any()):
            break
    kept = _errors(values, weights, symmetric.low, symmetric.high, bits) <= error
    return Range(torch.where(kept, symmetric.low, limits[0]), torch.where(kept, symmetric.high, limits[1]))


def best_range_of_histogram(
    x: Float[Tensor, "..."], bits: int, bins: int, sides: tuple[float, float], asymmetric: bool = False
) -> Range:
    """The best range of a whole tensor (one row), its values replaced by the centres of equal bins.

    By `best_range`, or `best_asymmetric_range`.

    One pass over the tensor instead of a hundred. The bins are finer than the grid, so that the threshold
    found is the exact search's or its neighbour (tests/quant/test_ranges.py).
    """
    flat = x.detach().flatten().float()
    low, high = flat.min(), flat.max()
    limits = low.item(), high.item()  # counted in parts: histc counts in fp32, which stops at 2^24
    counts = (
        torch.stack([torch.histc(part, bins, *limits) for part in flat.split(MOST_COUNTED)])
        .double()
        .sum(0)
        .to(flat.dtype)
    )
    centres = low + (torch.arange(bins, device=x.device) + 0.5) * ((high - low) / bins)
    filled = counts > 0
    values, weights = centres[filled][None], counts[filled][None]
    if asymmetric:
        return best_asymmetric_range(values, bits, sides, weights, low[None], high[None])
    return best_range(values, bits, sides, weights, torch.maximum(-low, high)[None])
