"""Normally distributed steps, as PTQ4DM takes them (arXiv 2211.15736).

In the form of EDA-DM's first release.
"""

from __future__ import annotations

import numpy as np

from edadm.calibration.allocate import keyed_generator
from edadm.calibration.base import Allocation, StepStatistics
from edadm.config.schema import Calibration

MEAN, DEVIATION = 0.4, 0.4


def normal(statistics: StepStatistics, settings: Calibration) -> Allocation:
    """A draw of Normal(0.4, 0.4) times T for every trajectory, truncated (method, 2.7).

    Draws are moved to [0, T] by the smallest and the largest.

    The rescaling cancels mean and deviation: the samples form a bell around the middle of the trajectory,
    whose width falls
    slowly with their number (T/6.5 at 1024), and both ends are always among them. Kept as the first release
    has it.
    """
    steps = statistics.steps
    drawn = steps * keyed_generator(settings.seed, "normal").normal(MEAN, DEVIATION, settings.size)
    span = np.ptp(drawn)
    share = (
        (drawn - drawn.min()) / span if span > 0 else np.full_like(drawn, 0.5)
    )  # a single draw has no span
    chosen = np.minimum((steps * share).astype(np.int64), steps - 1)
    return Allocation(np.bincount(chosen, minlength=steps), {})
