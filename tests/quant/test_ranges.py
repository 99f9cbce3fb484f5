"""The search for clipping ranges, exact and on histograms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from edadm.quant.affine import dequantize, quantize, scale_and_zero_point
from edadm.quant.ranges import (
    Range,
    best_asymmetric_range,
    best_off_centre_range,
    best_range,
    best_range_of_histogram,
    sidedness,
)


def drawn(kind: str, seed: int) -> torch.Tensor:
    """Values like those that activation quantizers meet."""
    normal = torch.randn(64, 256, generator=torch.Generator().manual_seed(seed))
    return {"gaussian": normal, "silu": F.silu(2 * normal), "softmax": (3 * normal).softmax(1)}[kind]


def searched_by_hand(values: torch.Tensor, bits: int, sides: tuple[float, float]) -> float:
    """The best threshold, one threshold after the other (method, 3.2)."""
    extent, best, least = values.abs().max(), 0.0, float("inf")
    for k in range(1, 101):
        threshold = extent * (k / 100)
        scale, zero_point = scale_and_zero_point(-sides[0] * threshold, sides[1] * threshold, bits)
        error = (
            (dequantize(quantize(values, scale, zero_point, bits), scale, zero_point) - values)
            .abs()
            .pow(2.4)
            .mean()
            .item()
        )
        if error < least:
            best, least = threshold.item(), error
    return best


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("kind", ["gaussian", "silu", "softmax"])
def test_the_exact_search_finds_the_threshold_of_the_method(kind: str, bits: int) -> None:
    rows = drawn(kind, bits)[:4]
    sides = sidedness(rows.min().item(), rows.max().item())
    found = best_range(rows, bits, sides)
    magnitudes = torch.maximum(-found.low, found.high)
    expected = torch.tensor([searched_by_hand(row, bits, sides) for row in rows])
    steps = (magnitudes - expected).abs() / (rows.abs().amax(1) / 100)
    assert steps.max() <= 1.01  # neighbouring thresholds may tie to rounding
    assert (steps < 0.01).sum() >= 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["gaussian", "silu", "softmax"])
def test_the_histogram_search_is_within_one_threshold_of_the_exact_one(
    kind: str, bits: int, seed: int
) -> None:
    x = drawn(kind, seed)
    sides = sidedness(x.min().item(), x.max().item())
    exact = best_range(x.reshape(1, -1), bits, sides)
    binned = best_range_of_histogram(x, bits, 8192, sides)
    step = x.abs().max() / 100
    assert (exact.low - binned.low).abs() <= 1.01 * step
    assert (exact.high - binned.high).abs() <= 1.01 * step


@pytest.mark.parametrize(
    ("low", "high", "sides"),
    [(-1.0, 2.0, (1, 1)), (0.0, 2.0, (0, 1)), (-2.0, 0.0, (1, 0)), (-2.0, -1.0, (1, 0)), (0.5, 1.0, (0, 1))],
)
def test_a_range_covers_only_the_sides_where_values_lie(
    low: float, high: float, sides: tuple[float, float]
) -> None:
    assert sidedness(low, high) == sides


def test_one_sided_values_get_a_one_sided_range() -> None:
    x = drawn("softmax", 0)
    for values, empty in ((x, "low"), (-x, "high")):
        found = best_range(values.reshape(1, -1), 8, sidedness(values.min().item(), values.max().item()))
        assert getattr(found, empty).item() == 0
        assert (found.high - found.low).item() > 0


def test_two_sided_values_get_a_symmetric_range_even_where_they_are_lopsided() -> None:
    found = best_range(drawn("silu", 0).reshape(1, -1), 8)
    assert found.low.item() == -found.high.item()
    assert scale_and_zero_point(found.low, found.high, 8)[1].item() == 128


def test_fewer_bits_clip_more() -> None:
    x = drawn("gaussian", 5).reshape(1, -1)
    extent = x.abs().max()
    at_4, at_8 = (best_range(x, bits).high.item() / extent for bits in (4, 8))
    assert at_4 < 0.85 * at_8
    assert at_8 > 0.9


def test_rows_are_searched_independently() -> None:
    rows = torch.stack([drawn("gaussian", 1)[0], 7 * drawn("gaussian", 2)[0]])
    together = best_range(rows, 4)
    for index in range(2):
        assert best_range(rows[index : index + 1], 4).high.item() == together.high[index].item()


def test_weights_count_like_repetitions() -> None:
    x = drawn("gaussian", 3)[:1, :100]
    times = torch.randint(1, 4, (1, 100), generator=torch.Generator().manual_seed(0))
    repeated = x.repeat_interleave(times[0], dim=1)
    assert best_range(x, 4, weights=times.float()).high.item() == pytest.approx(
        best_range(repeated, 4).high.item(), rel=0.011
    )


def test_a_constant_zero_row_does_not_break_the_search() -> None:
    found = best_range(torch.zeros(1, 10), 8)
    assert found.low.item() == found.high.item() == 0


@pytest.mark.parametrize("value", [0.0, 1.5, -2.0])
def test_a_constant_tensor_does_not_break_the_histogram_search(value: float) -> None:
    x = torch.full((4, 4), value)
    found = best_range_of_histogram(x, 8, 1024, sidedness(value, value))
    assert torch.isfinite(found.low).all()
    assert found.low.item() <= value <= found.high.item() or abs(value) < 0.02
    scale, zero_point = scale_and_zero_point(found.low, found.high, 8)
    assert dequantize(quantize(x, scale[0], zero_point[0], 8), scale[0], zero_point[0])[
        0, 0
    ].item() == pytest.approx(value, rel=0.01)


def error_of(x: torch.Tensor, found: Range, bits: int) -> float:
    """Mean |x - x_quantized|^2.4 over all values, with the grid of a one-row range."""
    scale, zero_point = scale_and_zero_point(found.low[0], found.high[0], bits)
    return (
        (dequantize(quantize(x, scale, zero_point, bits), scale, zero_point) - x).abs().pow(2.4).mean().item()
    )


@given(
    seed=st.integers(0, 2**31),
    bits=st.integers(2, 8),
    shift=st.floats(-4, 4),
    scale=st.floats(1e-3, 1e3),
    power=st.sampled_from([1, 3]),
    ceiling=st.floats(0.1, 5),
)
@settings(max_examples=15)
def test_two_ends_are_never_worse_than_one_threshold_and_zero_stays_exact(
    seed: int, bits: int, shift: float, scale: float, power: int, ceiling: float
) -> None:
    """Heavy or light tails, off-centre, clipped on one side."""
    normal = torch.randn(1, 200, generator=torch.Generator().manual_seed(seed))
    x = scale * (normal**power + shift).clamp(max=ceiling)
    sides = sidedness(x.min().item(), x.max().item())
    symmetric, asymmetric = best_range(x, bits, sides), best_asymmetric_range(x, bits, sides)
    assert error_of(x, asymmetric, bits) <= error_of(x, symmetric, bits) * (1 + 1e-6)
    assert (asymmetric.low <= 0).all()
    assert (asymmetric.high >= 0).all()
    step, zero_point = scale_and_zero_point(asymmetric.low[0], asymmetric.high[0], bits)
    assert zero_point == zero_point.round()
    assert dequantize(quantize(torch.zeros(1), step, zero_point, bits), step, zero_point).item() == 0
    if 0 in sides:
        assert (asymmetric.low.item(), asymmetric.high.item()) == (
            symmetric.low.item(),
            symmetric.high.item(),
        )


@pytest.mark.parametrize("bins", [None, 8192])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_silu_outputs_gain_almost_a_bit_from_two_ends(bits: int, bins: int | None) -> None:
    x = drawn("silu", bits)
    if bins is None:
        symmetric, asymmetric = (
            best_range(x.reshape(1, -1), bits),
            best_asymmetric_range(x.reshape(1, -1), bits),
        )
    else:
        symmetric, asymmetric = (
            best_range_of_histogram(x, bits, bins, (1.0, 1.0), choice) for choice in (False, True)
        )
    assert error_of(x, asymmetric, bits) < 0.45 * error_of(x, symmetric, bits)
    assert -0.2785 <= asymmetric.low.item() < 0
    used = quantize(x, *scale_and_zero_point(asymmetric.low[0], asymmetric.high[0], bits), bits).unique()
    assert len(used) > 0.8 * 2**bits


def test_one_by_one_the_ends_reach_what_a_search_over_all_pairs_finds() -> None:
    x, bits = drawn("silu", 9)[:1], 4
    found = error_of(x, best_asymmetric_range(x, bits), bits)
    shares = torch.arange(2, 101, 2) / 100
    pairs = [Range(low[None] * x.min(), high[None] * x.max()) for low in shares for high in shares]
    assert found <= 1.02 * min(error_of(x, pair, bits) for pair in pairs)


def test_symmetric_values_keep_their_zero_in_the_middle() -> None:
    half = drawn("gaussian", 4)[:1]
    x = torch.cat([half, -half], 1)
    found = best_asymmetric_range(x, 8)
    assert abs(scale_and_zero_point(found.low, found.high, 8)[1].item() - 128) <= 2


@pytest.mark.parametrize("value", [0.0, 1.5, -2.0])
def test_constant_tensors_do_not_break_the_asymmetric_search(value: float) -> None:
    found = best_range_of_histogram(torch.full((4, 4), value), 8, 1024, (1.0, 1.0), asymmetric=True)
    assert torch.isfinite(found.low).all()
    assert torch.isfinite(found.high).all()


def test_rows_get_ends_of_their_own() -> None:
    rows = torch.stack([drawn("silu", 1)[0], -5 * drawn("silu", 2)[0]])
    together = best_asymmetric_range(rows, 4)
    for index in range(2):
        alone = best_asymmetric_range(rows[index : index + 1], 4)
        assert (alone.low.item(), alone.high.item()) == (
            together.low[index].item(),
            together.high[index].item(),
        )


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rows_choose_the_middle_level_that_suits_them(bits: int) -> None:
    values = torch.randn(64, 200, generator=torch.Generator().manual_seed(3))
    found = best_off_centre_range(values, bits)
    scale, zero_point = scale_and_zero_point(found.low, found.high, bits)
    middle = 2 ** (bits - 1)
    assert set(zero_point.tolist()) == {float(middle), float(middle - 1)}
    codes = (values / scale[:, None]).round().clamp(-zero_point[:, None], 2**bits - 1 - zero_point[:, None])
    centred = best_range(values, bits)
    grid, zero = (g[:, None] for g in scale_and_zero_point(centred.low, centred.high, bits))
    central = (values / grid).round().clamp(-zero, 2**bits - 1 - zero) * grid
    errors = [(q - values).abs().pow(2.4).mean(1) for q in (codes * scale[:, None], central)]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all()


def test_grids_off_centre_do_not_shift_the_mean_of_symmetric_values() -> None:
    values = torch.randn(256, 400, generator=torch.Generator().manual_seed(4))
    found = best_off_centre_range(values, 3)
    shifts = []
    for ends in (found, best_range(values, 3)):
        scale, zero_point = (g[:, None] for g in scale_and_zero_point(ends.low, ends.high, 3))
        shifts.append(
            (((values / scale).round().clamp(-zero_point, 7 - zero_point) * scale) - values).mean().item()
        )
    assert abs(shifts[0]) < 0.3 * abs(shifts[1])
    assert shifts[1] < 0
