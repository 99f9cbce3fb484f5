"""A step at random for every trajectory."""

from __future__ import annotations

import numpy as np

from edadm.calibration.allocate import keyed_generator
from edadm.calibration.base import Allocation, StepStatistics
from edadm.config.schema import Calibration


def random(statistics: StepStatistics, settings: Calibration) -> Allocation:
    """Every trajectory's step is drawn independently, all steps being equally likely."""
    drawn = keyed_generator(settings.seed, "random").integers(statistics.steps, size=settings.size)
    return Allocation(np.bincount(drawn, minlength=statistics.steps), {"weight": np.ones(statistics.steps)})
