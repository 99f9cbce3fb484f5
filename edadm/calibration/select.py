"""The selectors by name, and the calibration set they pick from recorded trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edadm.calibration.allocate import assign_steps
from edadm.calibration.base import Allocation, StepStatistics, Store
from edadm.calibration.baselines import uniform
from edadm.calibration.tdac import tdac
from edadm.config.schema import Calibration
from edadm.errors import EdadmError

SELECTORS: dict[str, Callable[[StepStatistics, Calibration], Allocation]] = {"tdac": tdac, "uniform": uniform}


def statistics_of(groups: Sequence[Store]) -> StepStatistics:
    """Step statistics from the sums that trajectory stores hold; batches and shards add up."""
    elements = sum(int(np.sum(group["feature_elements"][:])) for group in groups)
    distance = sum(np.sum(group["distance"][:], axis=0) for group in groups) / elements
    return StepStatistics(distance, sum(np.sum(group["dissimilarity"][:], axis=0) for group in groups))


def select(groups: Sequence[Store], settings: Calibration) -> tuple[dict[str, np.ndarray], Allocation]:
    """One state of each of the first `settings.size` trajectories: latents (n, c, h, w), timesteps and steps (n,).

    Args:
        groups: trajectory stores of consecutive shards, as in `edadm.sampling.trajectory`.

    Raises:
        EdadmError: fewer trajectories were recorded than are asked for.
    """
    recorded = sum(group["latents"].shape[0] for group in groups)
    if settings.size > recorded:
        raise EdadmError(f"calibration size {settings.size} exceeds the {recorded} recorded trajectories; lower `size` or record more")
    allocation = SELECTORS[settings.selector](statistics_of(groups), settings)
    steps = assign_steps(allocation.counts, settings.seed)
    latents, first = [], 0
    for group in groups:
        array = group["latents"]
        chosen = steps[first : first + array.shape[0]]
        latents += [array[run, step] for run, step in enumerate(chosen)]
        first += array.shape[0]
    timesteps = np.asarray(groups[0]["timesteps"][:])[steps]
    return {"latents": np.stack(latents), "timesteps": timesteps, "steps": steps}, allocation
