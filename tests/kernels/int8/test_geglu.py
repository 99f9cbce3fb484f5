"""A linear layer, GEGLU and the next grid in one, against their meaning; interpreted without a GPU."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.activations import GEGLU
from torch import Tensor

from edadm.kernels.int8 import reference
from edadm.kernels.int8.products.geglu import int8_geglu, triton_geglu
from edadm.kernels.int8.products.launch import MANY
from edadm.kernels.int8.tiles import Tiles

from .test_convolution import DEVICE, integers, numbers

SMALL = Tiles(32, 32, 32, 4, 2)
# share of numbers that may be their neighbours: two error functions, where a value lies between two numbers
FAR = 0.002


def arguments(
    rows: int, columns: int, channels: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float, float, int]:
    """Values and gates of a few units, on a grid that some of their products leave."""
    x, weight = integers(rows, channels, seed=0), integers(2 * columns, channels, seed=1)
    scale = (1 + numbers(2 * columns, seed=2).abs()) * 2e-4 / channels**0.5
    return (
        x,
        weight,
        scale,
        numbers(2 * columns, seed=3),
        torch.tensor(0.015, device=DEVICE),
        -50.0,
        205.0,
        -78,
    )


@pytest.mark.parametrize("kind", ["window", "matrix", "descriptor", "pipelined"])
@pytest.mark.parametrize("shape", [(64, 32, 64), (75, 48, 80), (7, 19, 37)])
def test_numbers_are_those_of_the_meaning_or_where_rounding_ties_their_neighbours(
    shape: tuple[int, int, int], kind: str
) -> None:
    given = arguments(*shape)
    expected = reference.geglu(*given).int()
    difference = (triton_geglu(*given, SMALL._replace(kind=kind)).int() - expected).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < FAR
    if shape[0] > 50:
        assert (expected == -128).any() and (expected == 127).any() and len(expected.unique()) > 150  # noqa: PT018


@torch.no_grad()
def test_the_meaning_is_diffusers_geglu_and_the_grid() -> None:
    x, weight, scale, offset, grid, low, high, shift = arguments(40, 24, 32)
    layer = GEGLU(32, 24).to(DEVICE)
    layer.proj.weight.copy_(weight * scale[:, None])
    layer.proj.bias.copy_(offset)
    expected = reference.quantize(layer(x.float()), grid, low, high, shift).int()
    difference = (reference.geglu(x, weight, scale, offset, grid, low, high, shift).int() - expected).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < FAR


@pytest.mark.parametrize("rows", [20, MANY])
def test_without_tiles_it_takes_some_that_give_the_same(rows: int) -> None:
    given = arguments(rows, 24, 32)
    assert torch.equal(triton_geglu(*given), triton_geglu(*given, SMALL))


def test_the_operation_knows_its_shape_without_computing() -> None:
    found = torch.library.opcheck(int8_geglu, arguments(20, 24, 32), test_utils="test_faketensor")
    assert found == {"test_faketensor": "SUCCESS"}
