"""The factors of smoothing."""

from __future__ import annotations

import pytest
import torch

from edadm.quant.transforms import LARGEST_EXPONENT, smoothing_exponents

INPUTS, WEIGHTS = torch.tensor([16.0, 4, 1, 6]), torch.tensor([1.0, 4, 0.25, 1.5])


@pytest.mark.parametrize(
    ("strength", "exponents"),
    [(0.5, [2, 0, 1, 1]), (1.0, [4, 2, 0, 3]), (0.0, [0, -2, 2, -1]), (0.75, [3, 1, 0, 2])],
)
def test_factors_are_those_of_the_formula_to_the_nearest_power_of_two(
    strength: float, exponents: list[int]
) -> None:
    assert smoothing_exponents(INPUTS, WEIGHTS, strength).tolist() == exponents


@pytest.mark.parametrize("exponent", [LARGEST_EXPONENT, -LARGEST_EXPONENT])
@pytest.mark.parametrize(("dtype", "is_exact"), [("float32", True), ("bfloat16", True), ("float16", False)])
def test_division_by_a_factor_is_exact_where_exponents_have_room(
    dtype: str, is_exact: bool, exponent: int
) -> None:
    magnitudes = torch.linspace(0.01, 8, 400, dtype=torch.float64)
    numbers = torch.cat([magnitudes, -magnitudes]).to(getattr(torch, dtype))
    factor = torch.tensor(2.0**exponent, dtype=numbers.dtype)
    assert torch.equal(numbers / factor * factor, numbers) == is_exact


def test_channels_without_input_or_weight_stay_and_extremes_fit_half_precision() -> None:
    inputs, weights = torch.tensor([0.0, 1, 1e30, 1e-30]), torch.tensor([1.0, 0, 1, 1])
    found = smoothing_exponents(inputs, weights, 0.5)
    assert found.tolist() == [0, 0, LARGEST_EXPONENT, -LARGEST_EXPONENT]
    factors = torch.tensor([2.0**exponent for exponent in found.tolist()])
    assert torch.equal(factors.half().float(), factors)
