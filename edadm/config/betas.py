"""The noise schedule as numbers.

Imports no torch, so that what a file says can be compared with a preset before anything runs.
"""

from __future__ import annotations

import itertools
import math

from edadm.config.schema import NoiseSchedule


def betas_of(schedule: NoiseSchedule) -> list[float]:
    """The beta of every timestep, in (0, 1).

    `linear` spaces beta evenly (ermongroup/ddim), `sqrt_linear` its square root (CompVis), `cosine` is arXiv
    2102.09672, eq. 17, with betas of at most 0.999, `trained` lists them; a flow has none.
    """
    if schedule.kind == "flow":
        return []
    if schedule.betas is not None:
        return list(schedule.betas)
    count = schedule.timesteps
    if schedule.kind == "cosine":
        kept = [math.cos((step / count + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(count + 1)]
        return [min(1 - after / before, 0.999) for before, after in itertools.pairwise(kept)]
    power = 1.0 if schedule.kind == "linear" else 0.5
    start, end = schedule.start**power, schedule.end**power
    return [(start + (end - start) * step / max(count - 1, 1)) ** (1 / power) for step in range(count)]


def same_betas(some: list[float], others: list[float], tolerance: float = 1e-4) -> bool:
    """Whether two schedules agree to rounding.

    Args:
        some: betas.
        others: betas.
        tolerance: of each beta, relative; covers fp32, half precision needs 2e-2.
    """
    if len(some) != len(others):
        return False
    return all(math.isclose(one, other, rel_tol=tolerance) for one, other in zip(some, others, strict=True))


def schedule_in_words(schedule: NoiseSchedule) -> str:
    """One phrase, as it stands in sentences."""
    if schedule.kind in ("linear", "sqrt_linear"):
        return f"{schedule.kind} {schedule.start:g} to {schedule.end:g} in {schedule.timesteps} timesteps"
    return f"{schedule.kind} in {schedule.timesteps} timesteps"
