"""Evenly spaced steps."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from edadm.calibration.uniform import uniform
from edadm.config.schema import Calibration

from .points import statistics


@example(steps=8, size=2, every=2)  # four shares of half a sample, all rounded to none
@given(st.integers(1, 40), st.integers(1, 200), st.integers(1, 40))
def test_every_kth_step_gets_equally_many_where_they_divide_and_no_other_any(
    steps: int, size: int, every: int
) -> None:
    counts = uniform(statistics(0, steps), Calibration(selector="uniform", size=size, every=every)).counts
    taken = counts[::every]
    assert counts.sum() == taken.sum() == size
    assert counts.min() >= 0
    if size % len(taken) == 0:
        assert set(taken.tolist()) == {size // len(taken)}


def test_q_diffusions_recipe_takes_20_of_100_steps_beginning_with_noise() -> None:
    counts = uniform(statistics(0, 100), Calibration(selector="uniform", size=5120, every=5)).counts
    assert np.flatnonzero(counts).tolist() == list(range(0, 100, 5))
    assert set(counts[::5].tolist()) == {256}
