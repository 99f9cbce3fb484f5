"""Random steps."""

from __future__ import annotations

import numpy as np

from edadm.calibration.random import random
from edadm.config.schema import Calibration

from .points import statistics


def counts(size: int, seed: int, steps: int = 10) -> np.ndarray:
    return random(statistics(0, steps), Calibration(selector="random", size=size, seed=seed)).counts


def test_counts_vary_like_independent_draws() -> None:
    """Pearson's statistic of 200 allocations: its mean is the number of steps less one."""
    drawn = np.stack([counts(100, seed) for seed in range(200)])
    assert (drawn.sum(1) == 100).all()
    pearson = np.square(drawn - 10).sum(1) / 10
    assert abs(pearson.mean() - 9) < 4 * np.sqrt(18 / 200)
    np.testing.assert_allclose(drawn.mean(0), 10, atol=4 * 3 / np.sqrt(200))


def test_the_seed_alone_decides() -> None:
    np.random.seed(0)  # a global seed must not matter
    first = counts(64, 1)
    np.random.seed(1)
    assert counts(64, 1).tolist() == first.tolist()
    assert counts(64, 2).tolist() != first.tolist()
