"""Temporal distribution-aligned calibration (TDAC, EDA-DM section on calibration; method, 2.3)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from edadm.calibration.allocate import apportion
from edadm.calibration.base import Allocation, StepStatistics
from edadm.config.schema import Calibration


def density(distance: Float[np.ndarray, "steps steps"], radius: float) -> Float[np.ndarray, " steps"]:
    """The density D: how many other steps lie within `radius` of each step.

    Distances are mean squared feature differences; the radius counts as within.
    """
    near = (distance <= radius) & ~np.eye(len(distance), dtype=bool)
    return near.sum(1).astype(np.float64)


def variety(dissimilarity: Float[np.ndarray, "steps steps"]) -> Float[np.ndarray, " steps"]:
    """V: how much the features of each step differ in direction from all others'."""
    return dissimilarity.sum(1) - np.diagonal(dissimilarity)


def normalised(scores: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Scores moved to [0, 1]; all zero where they are all equal.

    The official code divides by zero there (quirk Q29).
    """
    span = scores.max() - scores.min()
    return (scores - scores.min()) / span if span > 0 else np.zeros_like(scores)


def tdac(statistics: StepStatistics, settings: Calibration) -> Allocation:
    """Samples in proportion to D' + lambda V', both normalised over steps.

    Equally many where that is zero throughout.

    Its ablations are settings: density alone is `lambda: 0`, variety alone `density_weight: 0`.
    """
    dense = normalised(density(statistics.distance, settings.radius))
    varied = normalised(variety(statistics.dissimilarity))
    weight = settings.density_weight * dense + settings.lambda_ * varied
    if not weight.any():
        weight = np.ones_like(weight)
    counts = apportion(weight / weight.sum(), settings.size)
    return Allocation(counts, {"density": dense, "variety": varied, "weight": weight})
