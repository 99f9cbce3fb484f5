"""Which timesteps a sampler visits, and which numbers of steps reach from noise to an image."""

from __future__ import annotations

import math
from itertools import pairwise

from edadm.config.schema import SOLVERS, Sampler


def visited(sampler: Sampler, total: int) -> list[int]:
    """The timesteps of a sampler run out of `total`, noisiest first.

    `quadratic`: squares of equally spaced points on [0, sqrt(0.8 total)], truncated (ermongroup/ddim,
    `skip_type quad`).
    `uniform`: each multiple of total / steps, truncated; where steps divide total, the list of
    ermongroup/ddim
    (`skip_type uniform`), which elsewhere has more steps than it was asked for.
    `uniform_from_one`: the same plus one (CompVis, LDM and Stable Diffusion).
    DPM-Solver++ and UniPC visit those of their diffusers schedulers, where both uniform spacings are called
    `leading`.
    """
    steps, first = sampler.steps, 1 if sampler.spacing == "uniform_from_one" else 0
    if sampler.spacing == "quadratic":
        return _quadratic(steps, total)
    if sampler.spacing == "trailing":
        stride = total - (total - total / steps)  # rounded as numpy's arange rounds it
        return [round(total - index * stride) - 1 for index in range(math.ceil(total / (total / steps)))]
    if sampler.spacing == "linspace":
        stride = (total - 1) / steps
        return [total - 1, *(round(index * stride) for index in range(steps - 1, 0, -1))]
    if sampler.method in SOLVERS:
        return [first + index * (total // (steps + 1)) for index in range(steps, 0, -1)]
    return [first + index * total // steps for index in range(steps - 1, -1, -1)]


def _quadratic(steps: int, total: int) -> list[int]:
    root = math.sqrt(total * 0.8)
    points = [index * (root / (steps - 1)) for index in range(steps - 1)]
    return [int(point**2) for point in [*points, root if points else 0.0]][::-1]


def accepts(sampler: Sampler, total: int) -> bool:
    """Whether a sampler's list has all its steps, and leads from noise, step by step, to less of it.

    Equal spacing begins within one stride of the last timestep; quadratic spacing at 0.8 of it, and repeats
    the first few, as published.
    """
    listed, steps = visited(sampler, total), sampler.steps
    if len(listed) != steps or not 0 <= listed[-1] <= listed[0] < total:
        return False
    if sampler.spacing == "quadratic":
        return 1 < steps <= total
    begins = total - (math.ceil(total / steps) if steps > 1 else 1)
    return listed[0] >= begins and all(later < earlier for earlier, later in pairwise(listed))


def step_problem(sampler: Sampler, total: int) -> str | None:
    """The reason why a sampler cannot take its number of steps, with the nearest ones that it can."""
    spacing, steps = sampler.spacing, sampler.steps
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
    other = f", or spacing: {others[0]}" if sampler.method in SOLVERS and others else ""
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
