"""Numbers that no file may hold."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edadm.nn.layers import QuantizedLinear
from edadm.nn.sound import code_flaws, float_flaws, grid_flaws


def network(bits: int = 3) -> nn.ModuleDict:
    layer = QuantizedLinear(nn.Linear(4, 2), bits, 8, (4,))
    layer.set_codes(torch.full((2, 4), 2**bits - 1, dtype=torch.uint8))
    return nn.ModuleDict({"layer": layer})


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 0.0, -0.5])
def test_a_scale_that_is_no_positive_number_is_named_with_its_value(value: float) -> None:
    found = network()
    assert not list(grid_flaws(found))
    found["layer"].weight_quantizer.scale[1, 0] = value
    assert list(grid_flaws(found)) == [f"the scale of layer.weight_quantizer is {value}, no positive number"]


@pytest.mark.parametrize("value", [torch.nan, -1.0, 8.0])
def test_a_zero_point_off_the_grid_is_named_with_its_value(value: float) -> None:
    found = network()
    found["layer"].weight_quantizer.zero_point[0, 0] = value
    assert list(grid_flaws(found)) == [
        f"the zero point of layer.weight_quantizer is {value}, not from 0 to 7"
    ]


def test_codes_beyond_the_width_or_absent_are_named() -> None:
    found = network()
    assert not list(code_flaws(found))
    found["layer"].codes[0, 1] = 8
    assert list(code_flaws(found)) == ["layer has the code 8, not from 0 to 7"]
    found["layer"].codes = None
    assert list(code_flaws(found)) == ["layer has no codes"]


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_parameters_that_are_not_finite_are_named(value: float) -> None:
    found = network()
    assert not list(float_flaws(found.named_parameters()))
    found["layer"].bias.data[1] = value
    assert list(float_flaws(found.named_parameters())) == [f"layer.bias holds {value}"]
