"""Step statistics to select with."""

from __future__ import annotations

import numpy as np

from edadm.calibration.base import StepStatistics


def statistics(seed: int, steps: int = 12) -> StepStatistics:
    """Steps as points on a random walk."""
    generator = np.random.default_rng(seed)
    points = np.cumsum(generator.normal(size=(steps, 3)), axis=0)
    distance = np.square(points[:, None] - points[None]).mean(2)
    directions = points / np.linalg.norm(points, axis=1, keepdims=True)
    return StepStatistics(distance, np.clip(1 - directions @ directions.T, 0, None))
