"""Evenly spaced steps, as Q-Diffusion takes them (arXiv 2302.04304)."""

from __future__ import annotations

import numpy as np

from edadm.calibration.allocate import apportion
from edadm.calibration.base import Allocation, StepStatistics
from edadm.config.schema import Calibration


def uniform(statistics: StepStatistics, settings: Calibration) -> Allocation:
    """Equally many samples at each of the steps 0, k, 2k, ... with k = `every` (method, 2.7).

    Q-Diffusion's 20 steps of 100 are `every: 5`. Its recipe takes the rows of all steps from the same
    trajectories; here, as for every selector, a trajectory contributes one state, so that methods compare on
    one store and budget.
    """
    weight = np.zeros(statistics.steps)
    weight[:: settings.every] = 1
    return Allocation(apportion(weight / weight.sum(), settings.size), {"weight": weight})
