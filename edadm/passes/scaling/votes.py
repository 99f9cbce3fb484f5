"""Powers of two for channels by vote of the calibration rows (power-of-two scaling of DMQ, arXiv 2507.12933).

Where a skip joins, channels differ by orders of magnitude.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.quant.affine import dequantize, quantize, scale_and_zero_point

LARGEST_VOTE = 3  # grids are up to 2^3 times finer, as power-of-two factors of arXiv 2111.13824 are


def grid_ends(x: Float[Tensor, "..."], asymmetric: bool) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The least range around all values; with opposite ends where values of both signs want one grid."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    if asymmetric:
        return low, high
    extent, has_both = torch.maximum(-low, high), (low < 0) & (high > 0)
    return torch.where(has_both, -extent, low), torch.where(has_both, extent, high)


def voted_exponents(
    x: Float[Tensor, "rows channels positions"], bits: int, agreement: float, asymmetric: bool = False
) -> Int8[Tensor, " channels"]:
    """The exponents of 2 by which channels are divided, 0 or less; on a grid of all rows and channels.

    In each row, each channel votes for the exponent with which its squared error is least, the coarser of
    equal ones. The one with the most votes wins; with less than `agreement` of them a channel keeps 0.

    Args:
        x: the inputs of a layer; what shares a grid.
        bits: of the grid.
        agreement: share of the rows, in [0, 1].
        asymmetric: whether the grid's ends are found one by one.
    """
    scale, zero_point = scale_and_zero_point(*grid_ends(x, asymmetric), bits)
    errors = []
    for vote in range(LARGEST_VOTE + 1):
        finer = x * 2.0**vote
        on_grid = dequantize(quantize(finer, scale, zero_point, bits), scale, zero_point) / 2.0**vote
        errors.append((on_grid - x).square().sum(-1))
    votes = torch.stack(errors).argmin(0)
    counts = torch.stack([(votes == vote).sum(0) for vote in range(LARGEST_VOTE + 1)])
    most, winner = counts.max(0)
    return torch.where(most >= agreement * len(x), -winner, 0).to(torch.int8)
