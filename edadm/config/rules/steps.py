"""Which numbers of steps reach from noise to an image, and the nearest to one that does not."""

from __future__ import annotations

import math
from itertools import pairwise

from edadm.config.rules.timesteps import visited
from edadm.config.schema import EULERS, FLOW, SOLVERS, Sampler


def accepts(sampler: Sampler, total: int) -> bool:
    """Whether a sampler's list has all its steps, and leads from noise, step by step, to less of it.

    Equal spacing begins within one stride of the last timestep; quadratic spacing at 0.8 of it, and repeats
    the first few, as published.
    """
    total = min(total, sampler.below or total)
    listed, steps = visited(sampler, total), sampler.steps
    if len(listed) != steps or not 0 <= listed[-1] <= listed[0] < total:
        return False
    if sampler.spacing == "quadratic":
        return 1 < steps <= total
    begins = total - (math.ceil(total / steps) if steps > 1 else 1)
    return listed[0] >= begins and all(later < earlier for earlier, later in pairwise(listed))


def step_problem(sampler: Sampler, total: int) -> str | None:
    """The reason why a sampler cannot take its number of steps, with the nearest ones that it can."""
    total = min(total, sampler.below or total)
    spacing, steps = sampler.spacing, sampler.steps
    if sampler.method == FLOW:  # whose timesteps are no whole numbers, so that all steps find their place
        return (
            None
            if steps <= total
            else f"a flow over {total} timesteps has at most {total} steps; lower steps"
        )
    most = total - (spacing in ("uniform_from_one", "linspace"))
    if steps > most:
        return f"{spacing} spacing of {total} timesteps has at most {most} steps; lower steps"
    if accepts(sampler, total):
        return None
    others = [
        other
        for other in ("trailing", "linspace")
        if accepts(sampler.model_copy(update={"spacing": other}), total)
    ]
    known = (*SOLVERS, *EULERS)
    other = f", or spacing: {others[0]}" if sampler.method in known and others else ""
    return (
        f"{steps} {'step' if steps == 1 else 'steps'} of {sampler.method} with {spacing} spacing cannot lead "
        "from noise "
        f"to an image over {total} timesteps; set steps: {_nearest(sampler, total)}{other}"
    )


def _nearest(sampler: Sampler, total: int) -> str:
    """The closest numbers of steps below and above that work."""
    below, above = range(sampler.steps - 1, 0, -1), range(sampler.steps + 1, total + 1)
    found = [
        next((n for n in side if accepts(sampler.model_copy(update={"steps": n}), total)), None)
        for side in (below, above)
    ]
    return " or ".join(str(steps) for steps in found if steps is not None)
