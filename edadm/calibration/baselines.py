"""Selectors to compare with."""

from __future__ import annotations

import numpy as np

from edadm.calibration.allocate import apportion
from edadm.calibration.base import Allocation, StepStatistics
from edadm.config.schema import Calibration


def uniform(statistics: StepStatistics, settings: Calibration) -> Allocation:
    """Equally many samples at every step (in the spirit of Q-Diffusion, arXiv 2302.04304)."""
    weight = np.ones(statistics.steps)
    return Allocation(apportion(weight / weight.sum(), settings.size), {"weight": weight})
