"""Normally distributed steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edadm.calibration.normal import normal
from edadm.config.schema import Calibration

from .points import statistics


def counts(size: int, seed: int, steps: int) -> np.ndarray:
    return normal(statistics(0, steps), Calibration(selector="normal", size=size, seed=seed)).counts


@given(st.integers(1, 300), st.integers(0, 2**31), st.integers(1, 60))
def test_any_size_gives_exactly_as_many_samples_as_asked_and_reaches_both_ends(
    size: int, seed: int, steps: int
) -> None:
    found = counts(size, seed, steps)
    assert found.sum() == size
    assert len(found) == steps
    if size > 1:
        assert found[0] >= 1
        assert found[-1] >= 1


def test_the_bell_stands_around_the_middle_with_the_width_of_the_method() -> None:
    """About T/6.5 at N = 1024, centred in the middle, not at 0.4 T (method, 2.7)."""
    steps = np.arange(100) + 0.5
    means, widths = [], []
    for seed in range(40):
        shares = counts(1024, seed, 100) / 1024
        means.append((shares * steps).sum())
        widths.append(np.sqrt((shares * np.square(steps - means[-1])).sum()))
    assert np.mean(means) == pytest.approx(50, abs=2)
    assert np.mean(widths) == pytest.approx(100 / 6.5, rel=0.05)


def test_every_step_has_as_wide_a_part_of_the_bell() -> None:
    """Of two steps each has one half: the last is no place for the largest draw alone."""
    assert np.mean([counts(1024, seed, 2) for seed in range(20)], axis=0) == pytest.approx(
        [512, 512], rel=0.15
    )
    thirds = np.mean([counts(1024, seed, 3) for seed in range(20)], axis=0)
    assert thirds[0] == pytest.approx(thirds[2], rel=0.3)
    assert thirds[1] > 3 * thirds[0]


def test_the_seed_decides() -> None:
    assert counts(64, 1, 20).tolist() == counts(64, 1, 20).tolist() != counts(64, 2, 20).tolist()
