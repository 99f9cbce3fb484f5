"""Fake quantization and its gradients (acceptance check 5)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edadm.quant.affine import (
    CACHED,
    SMALLEST_SCALE,
    dequantize,
    fake_quantize,
    qmin_qmax,
    quantize,
    scale_and_zero_point,
)

WIDTHS = st.integers(2, 8)
SEEDS = st.integers(0, 2**31)


def grid_for(x: torch.Tensor, bits: int, cover: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """A grid that clips the tails of `x` on both sides."""
    return scale_and_zero_point(cover * x.min(), cover * x.max(), bits)


@given(WIDTHS, st.floats(1e-3, 1e3))
def test_a_symmetric_range_has_its_zero_point_in_the_middle(bits: int, half: float) -> None:
    high = torch.tensor([half, half / 3])
    scale, zero_point = scale_and_zero_point(-high, high, bits)
    assert zero_point.tolist() == [2 ** (bits - 1)] * 2
    torch.testing.assert_close(scale, 2 * high / (2**bits - 1))


@given(WIDTHS, st.floats(-5, 5), st.floats(0, 5))
def test_every_range_is_widened_to_contain_zero_and_zero_is_exact(
    bits: int, low: float, width: float
) -> None:
    scale, zero_point = scale_and_zero_point(torch.tensor(low), torch.tensor(low + width), bits)
    assert 0 <= zero_point <= 2**bits - 1
    assert scale >= SMALLEST_SCALE
    assert dequantize(quantize(torch.zeros(1), scale, zero_point, bits), scale, zero_point).item() == 0


def test_a_range_without_width_keeps_a_positive_scale() -> None:
    scale, _ = scale_and_zero_point(torch.zeros(1), torch.zeros(1), 8)
    assert scale.item() == pytest.approx(SMALLEST_SCALE)


def test_a_range_above_zero_starts_at_code_zero() -> None:
    scale, zero_point = scale_and_zero_point(torch.tensor(0.0), torch.tensor(1.0), 8)
    assert zero_point.item() == 0
    assert scale.item() == pytest.approx(1 / 255)


@given(SEEDS, WIDTHS)
def test_fake_quantization_is_dequantized_quantization(seed: int, bits: int) -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(seed))
    scale, zero_point = grid_for(x, bits)
    expected = dequantize(quantize(x, scale, zero_point, bits), scale, zero_point)
    torch.testing.assert_close(
        fake_quantize(x, scale, *qmin_qmax(zero_point, bits)), expected, rtol=0, atol=1e-6
    )


@given(SEEDS, WIDTHS)
def test_values_inside_the_range_move_by_at_most_half_a_step(seed: int, bits: int) -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(seed))
    scale, zero_point = scale_and_zero_point(x.min(), x.max(), bits)
    error = (fake_quantize(x, scale, *qmin_qmax(zero_point, bits)) - x).abs().max()
    assert error <= scale * 1.001  # the rounded zero point may shift the ends of the grid by half a step more
    middle = x[(x > x.min() / 2) & (x < x.max() / 2)]
    if len(middle):
        assert (
            fake_quantize(middle, scale, *qmin_qmax(zero_point, bits)) - middle
        ).abs().max() <= scale / 2 * 1.001


def test_rounding_is_half_to_even() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5])
    assert fake_quantize(x, torch.tensor(1.0), -8.0, 7.0).tolist() == [0, 2, 2, 0, -2]


@given(SEEDS, WIDTHS)
def test_gradients_equal_the_closed_form(seed: int, bits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, generator=generator, dtype=torch.float64)
    scale, zero_point = grid_for(x, bits)
    low, high = qmin_qmax(zero_point, bits)
    upstream = torch.randn(40, generator=generator, dtype=torch.float64)
    x.requires_grad_(), scale.requires_grad_()
    fake_quantize(x, scale, low, high).backward(upstream)
    ratio = (x / scale).detach()
    rounded = ratio.round()
    inside = (rounded >= low) & (rounded <= high)
    slope = torch.where(inside, rounded - ratio, rounded.clamp(low, high))
    assert x.grad is not None
    assert scale.grad is not None
    torch.testing.assert_close(x.grad, upstream * inside)
    torch.testing.assert_close(scale.grad, (upstream * slope).sum())
    assert not bool(inside.all()), "the example must clip"


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_gradients_equal_finite_differences_with_the_rounding_residue_held(bits: int) -> None:
    """The straight-through function is `clamp(x/s + residue) * s`, where `residue = round(x/s) - x/s` does not move."""
    x = torch.randn(400, generator=torch.Generator().manual_seed(bits), dtype=torch.float64)
    scale, zero_point = grid_for(x, bits)
    low, high = qmin_qmax(zero_point, bits)
    distance_to_ends = torch.minimum(
        ((x / scale).round() - low + 0.5).abs(), ((x / scale).round() - high - 0.5).abs()
    )
    x = x[distance_to_ends > 0.25].contiguous()
    residue = (x / scale).round() - x / scale

    def surrogate(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return (x / s + residue).clamp(low - 0.25, high + 0.25).clamp(low, high) * s

    step = 1e-7
    numeric_scale = (surrogate(x, scale + step) - surrogate(x, scale - step)) / (2 * step)
    numeric_x = (surrogate(x + step, scale) - surrogate(x - step, scale)) / (2 * step)
    at_ends = ((x / scale).round() == low) | (
        (x / scale).round() == high
    )  # the surrogate has its kinks there
    x.requires_grad_()
    per_element = scale.expand(len(x)).clone().requires_grad_()
    fake_quantize(x, per_element, low, high).sum().backward()
    assert x.grad is not None
    assert per_element.grad is not None
    torch.testing.assert_close(per_element.grad[~at_ends], numeric_scale[~at_ends], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad[~at_ends], numeric_x[~at_ends], rtol=1e-5, atol=1e-5)
    assert (~at_ends).sum() > 50


@given(SEEDS)
def test_number_and_tensor_bounds_give_the_same_values_and_gradients(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    base, upstream = torch.randn(3, 8, generator=generator), torch.randn(3, 8, generator=generator)
    results = []
    for kind in (float, lambda bound: torch.full((3, 1), float(bound))):
        x, scale = base.clone().requires_grad_(), torch.tensor([[0.1], [0.2], [0.3]], requires_grad=True)
        y = fake_quantize(x, scale, kind(-5), kind(4))
        y.backward(upstream)
        results.append((y, x.grad, scale.grad))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_bounds_are_numbers_exactly_where_all_zero_points_agree() -> None:
    assert qmin_qmax(torch.full((4,), 8.0), 4) == (-8, 7)
    low, high = qmin_qmax(torch.tensor([8.0, 0.0]), 4)
    assert isinstance(low, torch.Tensor)
    assert isinstance(high, torch.Tensor)
    assert low.tolist() == [-8, 0]
    assert high.tolist() == [7, 15]


def test_gradients_of_a_broadcast_scale_have_its_shape() -> None:
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([0.1, 0.2, 0.3]).reshape(1, 3, 1).requires_grad_()
    fake_quantize(x, scale, -8.0, 7.0).sum().backward()
    assert scale.grad is not None
    assert scale.grad.shape == (1, 3, 1)
    for row in range(3):
        alone = scale.detach()[0, row, 0].clone().requires_grad_()
        fake_quantize(x[:, row], alone, -8.0, 7.0).sum().backward()
        torch.testing.assert_close(scale.grad[0, row, 0], alone.grad)


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("layout", ["channels first", "channels last", "some channels", "tokens", "one row"])
def test_pieces_that_a_cache_holds_have_the_bits_and_the_layout_of_the_whole(
    layout: str, segmented: bool
) -> None:
    x = torch.randn(5, 12, 40, 40, generator=torch.Generator().manual_seed(0))
    if layout in ("channels last", "some channels"):
        x = x.contiguous(memory_format=torch.channels_last)
    if layout == "some channels":
        x = x[:, 1:11]
    if layout == "tokens":
        x = x.flatten(2).transpose(1, 2)
    if layout == "one row":
        x = x.flatten()[None]
    assert x.numel() > CACHED
    scale, low, high = torch.tensor(0.02), -100.0, 155.0
    if segmented:  # a grid for each channel, or token
        scale = torch.linspace(0.01, 0.03, x.shape[1]).reshape(1, -1, *[1] * (x.dim() - 2))
        low, high = torch.full_like(scale, low), torch.full_like(scale, high)
    expected = x.div(scale).round().clamp(low, high).mul(scale)
    found = fake_quantize(x, scale, low, high)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
