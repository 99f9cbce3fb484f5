"""AdaRound's variables at their start and at their end (acceptance check 3)."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from edadm.quant.affine import quantize
from edadm.quant.rounding import hard_codes, initial_alpha, soft_codes, soft_rounding

ratios = st.integers(0, 2**31).map(
    lambda seed: 6 * torch.randn(64, generator=torch.Generator().manual_seed(seed))
)
WIDTHS = st.integers(2, 8)


@given(ratios, WIDTHS)
def test_soft_codes_start_at_the_weight_inside_the_grid_and_at_its_ends_outside(
    ratio: torch.Tensor, bits: int
) -> None:
    middle, top = 2 ** (bits - 1), 2**bits - 1
    codes = soft_codes(ratio.floor() + middle, initial_alpha(ratio), bits)
    torch.testing.assert_close(codes - middle, ratio.clamp(-middle, top - middle), rtol=1e-4, atol=1e-4)


@given(ratios, WIDTHS)
def test_hard_codes_start_at_round_to_nearest(ratio: torch.Tensor, bits: int) -> None:
    zero_point = torch.tensor(float(2 ** (bits - 1)))
    nearest = quantize(ratio, torch.tensor(1.0), zero_point, bits)
    assert torch.equal(hard_codes(ratio.floor() + zero_point, initial_alpha(ratio), bits), nearest)


def test_soft_rounding_saturates_at_exactly_zero_and_one() -> None:
    assert soft_rounding(torch.tensor([-20.0, -3.0, 3.0, 20.0])).tolist() == [0, 0, 1, 1]
    assert soft_rounding(torch.tensor(0.0)).item() == 0.5


@given(ratios)
def test_saturated_soft_codes_equal_hard_codes(ratio: torch.Tensor) -> None:
    alpha = torch.where(ratio.frac().abs() > 0.3, 20.0, -20.0)
    base = ratio.floor() + 8
    assert torch.equal(soft_codes(base, alpha, 4), hard_codes(base, alpha, 4))


def test_learning_alpha_moves_only_codes_inside_the_grid() -> None:
    ratio = torch.tensor([0.3, -2.6, 20.0, -20.0])
    alpha = initial_alpha(ratio).requires_grad_()
    soft_codes(ratio.floor() + 8, alpha, 4).sum().backward()
    assert alpha.grad is not None
    assert (alpha.grad[:2] > 0).all()
    assert alpha.grad[2:].tolist() == [0, 0]


@given(ratios, WIDTHS)
def test_the_gradient_of_soft_codes_equals_that_of_the_written_out_formula(
    ratio: torch.Tensor, bits: int
) -> None:
    base, top = ratio.floor() + 2 ** (bits - 1), 2**bits - 1
    generator = torch.Generator().manual_seed(bits)
    alpha, upstream = 3 * torch.randn(64, generator=generator), torch.randn(64, generator=generator)
    ours, formula = alpha.clone().requires_grad_(), alpha.clone().requires_grad_()
    values, expected = soft_codes(base, ours, bits), (base + soft_rounding(formula)).clamp(0, top)
    torch.testing.assert_close(values, expected)
    values.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, formula.grad)
