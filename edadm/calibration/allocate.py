"""From shares to whole numbers of samples, and from numbers to the step of each trajectory."""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Float, Int


def keyed_generator(*key: int | str) -> np.random.Generator:
    """A generator whose stream is a function of the key alone, e.g. `(seed, "random")`."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def apportion(shares: Float[np.ndarray, " steps"], total: int) -> Int[np.ndarray, " steps"]:
    """Non-negative integers near `shares * total` that sum to `total` (method, 2.4).

    Shares are rounded half to even. Missing samples go to the steps that already have most, in passes if
    there are more of them than steps (ties: the earlier step, where the official sort is unstable), and never
    to a step without a share; surplus ones are taken one by one from the cleanest steps that have any, again
    in passes (the official code tests `>= 0` for Church, which can give -1: quirk Q9).

    Args:
        shares: non-negative, not all zero, summing to 1.
        total: number of samples.
    """
    counts = np.round(shares * total).astype(np.int64)
    while (missing := total - int(counts.sum())) > 0:
        most = np.argsort(-counts, kind="stable")
        counts[most[shares[most] > 0][:missing]] += 1
    while (surplus := int(counts.sum()) - total) > 0:
        cleanest = [step for step in range(len(counts) - 1, -1, -1) if counts[step] > 0][:surplus]
        counts[cleanest] -= 1
    return counts


def assign_steps(counts: Int[np.ndarray, " steps"], seed: int) -> Int[np.ndarray, " n"]:
    """The step whose state each trajectory contributes: a random order of the counted steps (method, 2.5)."""
    steps = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(steps)


def held_out_counts(counts: Int[np.ndarray, " steps"], total: int) -> Int[np.ndarray, " steps"]:
    """A smaller or larger allocation with the shares of `counts`: evenly spaced quantiles of its samples.

    Every step is within one sample of its share. `apportion` would not do: where most shares round to the
    same number, it takes all that is too much from the cleanest steps, and held-out rows are few.
    """
    bounds = np.cumsum(counts)
    quantiles = (np.arange(total) + 0.5) / max(total, 1) * bounds[-1]
    return np.bincount(np.searchsorted(bounds, quantiles, side="right"), minlength=len(counts))
