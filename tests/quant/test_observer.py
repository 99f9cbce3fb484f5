"""Running activation ranges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edadm.quant.affine import scale_and_zero_point
from edadm.quant.observer import RunningRange
from edadm.quant.ranges import best_range


def batches(seed: int, count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(1 + index) * torch.randn(6, 20, generator=generator) for index in range(count)]


@given(st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=6, deadline=None)
def test_ranges_follow_the_exponential_average(seed: int, momentum: float) -> None:
    running = RunningRange(8, momentum)
    high: torch.Tensor | None = None
    for batch in batches(seed):
        scale, zero_point = running.update(batch)
        own = best_range(batch.reshape(1, -1), 8).high
        high = own if high is None else (1 - momentum) * high + momentum * own
        expected = scale_and_zero_point(-high, high, 8)
        torch.testing.assert_close(scale, expected[0][0])
        assert zero_point.item() == expected[1].item() == 128
    assert running.batches == 3


def test_the_first_batch_decides_the_side_for_good() -> None:
    one_sided, both = torch.rand(100, generator=torch.Generator().manual_seed(0)), torch.linspace(-3, 3, 100)
    running = RunningRange(8)
    running.update(one_sided)
    assert running.update(both)[1].item() == 0
    running = RunningRange(8)
    running.update(both)
    assert running.update(one_sided)[1].item() == 128


@pytest.mark.parametrize("bins", [None, 4096])
def test_exact_and_binned_ranges_agree(bins: int | None) -> None:
    running, exact = RunningRange(8, 0.1, bins), RunningRange(8, 0.1)
    for batch in batches(7):
        scale, exact_scale = running.update(batch)[0], exact.update(batch)[0]
    assert scale.item() == pytest.approx(exact_scale.item(), rel=0.02)


def test_the_order_of_batches_matters() -> None:
    scales = []
    for order in (1, -1):
        running = RunningRange(8)
        for batch in batches(3)[::order]:
            scale, _ = running.update(batch)
        scales.append(scale.item())
    assert scales[0] < scales[1]


@pytest.mark.parametrize("bins", [None, 2048])
def test_asymmetric_ranges_average_each_end(bins: int | None) -> None:
    running = RunningRange(8, 0.25, bins, asymmetric=True)
    ends: list[tuple[float, float]] = []
    for batch in (torch.nn.functional.silu(values) for values in batches(1, 2)):
        own = RunningRange(8, 0.25, bins, asymmetric=True)
        own.update(batch)
        assert own._range is not None
        ends.append((own._range.low.item(), own._range.high.item()))
        scale, zero_point = running.update(batch)
    low, high = (0.75 * one + 0.25 * other for one, other in zip(*ends, strict=True))
    expected = scale_and_zero_point(torch.tensor(low), torch.tensor(high), 8)
    torch.testing.assert_close(scale, expected[0])
    assert zero_point.item() == expected[1].item() < 100
