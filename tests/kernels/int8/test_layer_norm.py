"""Layer normalisation to int8 numbers against its meaning; interpreted on a CPU without a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.kernels.int8 import reference
from edadm.kernels.int8.norms.layer_norm import int8_layer_normalised, triton_layer_normalised

from .test_convolution import DEVICE, numbers
from .test_group_norm import FAR

SHAPES = [(70, 320), (3, 1280), (33, 48), (5, 2048)]


def arguments(
    rows: int, channels: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, float, Tensor]:
    x, grids = (
        3 * numbers(rows, channels, seed=0),
        [[0.02, -100.0, 155.0, -28.0], [0.3, -7.0, 8.0, -121.0], [0.011, -128.0, 127.0, 0.0]],
    )
    weight, bias = 1 + 0.3 * numbers(1, channels, seed=1), 0.5 * numbers(1, channels, seed=2)
    return x.to(DEVICE, dtype), weight.to(DEVICE), bias.to(DEVICE), 1e-5, torch.tensor(grids, device=DEVICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_on_several_grids_are_those_of_the_meaning_or_their_neighbours(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    given = arguments(*shape, dtype)
    expected = reference.layer_normalised(*given).int()
    difference = (triton_layer_normalised(*given).int() - expected).abs()
    assert [len(one.unique()) > 9 for one in expected] == [True] * 3
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < FAR


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    x, weight, bias, eps, grids = arguments(*SHAPES[0])
    exact = torch.nn.functional.layer_norm(
        (x + 1000.0).double(), x.shape[1:], weight[0].double(), bias[0].double(), eps
    )
    expected = torch.stack(
        [reference.quantize(exact, grid[0], grid[1].item(), grid[2].item(), int(grid[3])) for grid in grids]
    ).int()
    difference = (triton_layer_normalised(x + 1000.0, weight, bias, eps, grids).int() - expected).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 5 * FAR


def test_the_meaning_is_torch_s_normalisation_and_the_grids() -> None:
    x, weight, bias, eps, grids = arguments(*SHAPES[1])
    layer = torch.nn.LayerNorm(x.shape[1], eps).to(DEVICE)
    with torch.no_grad():
        layer.weight.copy_(weight[0])
        layer.bias.copy_(bias[0])
        y = layer(x)
    for one, (scale, low, high, shift) in zip(
        reference.layer_normalised(x, weight, bias, eps, grids), grids.tolist(), strict=True
    ):
        assert torch.equal(
            one, reference.quantize(y, torch.tensor(scale, device=DEVICE), low, high, int(shift))
        )


def test_the_operation_is_registered_as_it_behaves() -> None:
    given = arguments(*SHAPES[2])
    torch.library.opcheck(int8_layer_normalised, given)
    assert int8_layer_normalised(*given).shape == (3, *SHAPES[2])
