"""From shares to whole numbers of samples, and from numbers to the step of each trajectory."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def apportion(shares: Float[np.ndarray, " steps"], total: int) -> Int[np.ndarray, " steps"]:
    """Non-negative integers near `shares * total` that sum to `total` (method, 2.4).

    Shares are rounded half to even. Missing samples go to the steps that already have most, in passes if there are more
    of them than steps (ties: the earlier step, where the official sort is unstable); surplus ones are taken one by one
    from the cleanest steps that have any, again in passes (the official code tests `>= 0` for Church, which can give -1:
    quirk Q9).

    Args:
        shares: non-negative, summing to 1.
        total: number of samples.
    """
    counts = np.round(shares * total).astype(np.int64)
    while (missing := total - int(counts.sum())) > 0:
        most = np.argsort(-counts, kind="stable")[:missing]
        counts[most] += 1
    while (surplus := int(counts.sum()) - total) > 0:
        cleanest = [step for step in range(len(counts) - 1, -1, -1) if counts[step] > 0][:surplus]
        counts[cleanest] -= 1
    return counts


def assign_steps(counts: Int[np.ndarray, " steps"], seed: int) -> Int[np.ndarray, " n"]:
    """For each trajectory the step whose state it contributes: a random order of the counted steps (method, 2.5)."""
    steps = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(steps)
