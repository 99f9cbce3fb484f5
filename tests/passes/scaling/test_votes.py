"""Powers of two by vote."""

from __future__ import annotations

import torch

from edadm.passes.scaling.votes import grid_ends, voted_exponents
from edadm.quant.affine import dequantize, quantize, scale_and_zero_point


def test_votes_by_hand() -> None:
    """A grid of 4 bits from -8 to 7 in steps of 1 for all; channels 1 and 2 have room for finer ones."""
    x = torch.tensor(
        [
            [[7.0], [0.25], [0.5], [1.0]],  # channel 1 wants steps of 1/4, channel 2 of 1/2 or finer
            [[-7.5], [0.75], [1.5], [0.25]],
            [[7.5], [-0.25], [-0.5], [3.0]],
            [[6.0], [0.5], [0.5], [2.0]],
        ]
    )
    scale, zero_point = scale_and_zero_point(*grid_ends(x, asymmetric=False), 4)
    assert (scale.item(), zero_point.item()) == (1.0, 8.0)
    # Votes of channel 1: 2, 2, 2, 1; of channel 2: 1 in all; of channel 3, on the grid already but in row 1: 0, 2, 0, 0.
    assert voted_exponents(x, 4, 0.7).tolist() == [0, -2, -1, 0]
    assert voted_exponents(x, 4, 0.8).tolist() == [0, 0, -1, 0]


def test_a_channel_that_fills_the_grid_of_any_row_keeps_it() -> None:
    x = torch.tensor([[[0.3, 0.4]], [[7.5, -7.5]]])
    assert voted_exponents(x, 4, 1.0).tolist() == [0]


def test_voted_grids_are_exact_powers_of_two_finer() -> None:
    x = torch.randn(8, 5, 20, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [16.0, 3.0, 0.5, 0.1, 8.0]
    ).reshape(5, 1)
    exponents = voted_exponents(x, 8, 0.85)
    assert (exponents < 0).any()
    factors = torch.exp2(exponents.float())[:, None]
    scale, zero_point = scale_and_zero_point(*grid_ends(x, asymmetric=False), 8)
    found = dequantize(quantize(x / factors, scale, zero_point, 8), scale, zero_point) * factors
    own = quantize(x, scale * factors, zero_point, 8)
    assert torch.equal(found, dequantize(own, scale * factors, zero_point))
    plain = dequantize(quantize(x, scale, zero_point, 8), scale, zero_point)
    assert (found - x).square().sum() < (plain - x).square().sum()


def test_ends_of_a_grid() -> None:
    x = torch.tensor([-1.0, 3.0])
    assert [end.item() for end in grid_ends(x, asymmetric=True)] == [-1, 3]
    assert [end.item() for end in grid_ends(x, asymmetric=False)] == [-3, 3]
    assert [end.item() for end in grid_ends(x.abs(), asymmetric=False)] == [0, 3]
