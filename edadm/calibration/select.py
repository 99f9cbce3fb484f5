"""The selectors by name, and the calibration set they pick from recorded trajectories."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from edadm.calibration.allocate import assign_steps, held_out_counts
from edadm.calibration.base import Allocation, StepStatistics, Store
from edadm.calibration.normal import normal
from edadm.calibration.random import random
from edadm.calibration.tdac import tdac
from edadm.calibration.uniform import uniform
from edadm.config.schema import Calibration
from edadm.errors import EdadmError

SELECTORS: dict[str, Callable[[StepStatistics, Calibration], Allocation]] = {
    "normal": normal,
    "random": random,
    "tdac": tdac,
    "uniform": uniform,
}


def statistics_of(groups: Sequence[Store]) -> StepStatistics:
    """Step statistics from the sums that trajectory stores hold; batches and shards add up."""
    elements = sum(int(np.sum(group["feature_elements"][:])) for group in groups)
    return StepStatistics(_total(groups, "distance") / elements, _total(groups, "dissimilarity"))


def _total(groups: Sequence[Store], name: str) -> Float[np.ndarray, "steps steps"]:
    """The sum over all batches in order, so that its last bits do not depend on the shards they lie in."""
    batches = (batch for group in groups for batch in group[name][:])
    total: np.ndarray = functools.reduce(np.add, batches)
    return total


def select(groups: Sequence[Store], settings: Calibration) -> tuple[dict[str, np.ndarray], Allocation]:
    """One state of each of the first trajectories: latents (n, c, h, w), timesteps and steps (n,).

    The first `settings.size` trajectories give the calibration set. The `settings.held_out` after them give
    rows that nothing learns from, with the same shares of steps, as `held_out_latents`, `held_out_timesteps`
    and `held_out_steps`; absent if 0.

    Args:
        groups: trajectory stores of consecutive shards, as in `edadm.sampling.store`.

    Raises:
        EdadmError: fewer trajectories were recorded than are asked for.
    """
    recorded = sum(group["latents"].shape[0] for group in groups)
    if settings.size + settings.held_out > recorded:
        asked = f"calibration size {settings.size}" + (
            f" with {settings.held_out} held-out rows" if settings.held_out else ""
        )
        lower = "`size` or `held_out`" if settings.held_out else "`size`"
        raise EdadmError(
            f"{asked} exceeds the {recorded} recorded trajectories; lower {lower} or record more"
        )
    allocation = SELECTORS[settings.selector](statistics_of(groups), settings)
    chosen = _states(groups, 0, assign_steps(allocation.counts, settings.seed))
    if settings.held_out:
        steps = assign_steps(held_out_counts(allocation.counts, settings.held_out), settings.seed)
        chosen |= {f"held_out_{name}": array for name, array in _states(groups, settings.size, steps).items()}
    return chosen, allocation


def _states(groups: Sequence[Store], start: int, steps: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    """The state at `steps[k]` of trajectory `start + k`, for each k."""
    latents, first = [], 0
    for group in groups:
        array = group["latents"]
        runs = range(max(start, first), min(start + len(steps), first + array.shape[0]))
        latents += [array[run - first, steps[run - start]] for run in runs]
        first += array.shape[0]
    return {
        "latents": np.stack(latents),
        "timesteps": np.asarray(groups[0]["timesteps"][:])[steps],
        "steps": steps,
    }
