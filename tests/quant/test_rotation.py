"""Hadamard rotations: by hand, their own inverses, and what they leave of a product."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.quant.rotation import block_of, rotated
from edadm.quant.scheme import HADAMARD, REGULAR_HADAMARD, ROTATIONS


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (HADAMARD, [1.0, 2, 3, 4], [5.0, -1, -2, 0]),
        (HADAMARD, [3.0, 1, 0, 0, 5, 5], [8**0.5, 2**0.5, 0, 0, 50**0.5, 0]),  # three blocks of two
        (REGULAR_HADAMARD, [2.0, 0, 0, 4], [-1.0, 3, 3, 1]),
        (REGULAR_HADAMARD, [1.0, 1, 1, 1], [1.0, 1, 1, 1]),  # where Sylvester's has 2, 0, 0, 0
        (HADAMARD, [1.0, 2, 3], [1.0, 2, 3]),
    ],
)
def test_a_row_is_rotated_as_by_hand(kind: str, given: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(rotated(torch.tensor(given), kind), torch.tensor(expected))


def test_blocks_are_the_largest_powers_of_two() -> None:
    assert [block_of(channels) for channels in (1, 6, 320, 768, 1152, 4096)] == [1, 2, 64, 256, 128, 4096]


def _sylvester(size: int) -> Tensor:
    found = torch.ones(1, 1)
    while len(found) < size:
        found = torch.cat([torch.cat([found, found], 1), torch.cat([found, -found], 1)])
    return found / size**0.5


@pytest.mark.parametrize("channels", [8, 64, 128, 384])
def test_large_blocks_are_those_of_sylvesters_matrix(channels: int) -> None:
    x, block = torch.randn(3, 5, channels, generator=torch.Generator().manual_seed(1)), block_of(channels)
    expected = (x.unflatten(-1, (-1, block)) @ _sylvester(block)).flatten(-2)
    torch.testing.assert_close(rotated(x, HADAMARD), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ROTATIONS)
@pytest.mark.parametrize("channels", [12, 256, 320, 1024])
def test_a_product_of_rotated_operands_is_that_of_the_operands(kind: str, channels: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x, weight = torch.randn(7, channels, generator=generator), torch.randn(5, channels, generator=generator)
    torch.testing.assert_close(rotated(rotated(x, kind), kind), x, rtol=1e-5, atol=1e-5)
    found = rotated(x, kind) @ rotated(weight, kind).T
    torch.testing.assert_close(found, x @ weight.T, rtol=1e-4, atol=1e-4)


def test_rows_of_a_regular_matrix_have_the_same_sum_and_an_outlier_is_spread() -> None:
    matrix = rotated(torch.eye(64), REGULAR_HADAMARD)
    assert torch.equal(matrix.sum(0), torch.ones(64))
    assert torch.equal(matrix.sum(1), torch.ones(64))
    spike = torch.zeros(64)
    spike[5] = 80.0
    for kind in ROTATIONS:
        assert torch.equal(rotated(spike, kind).abs(), torch.full((64,), 10.0))
