"""Which timesteps a sampler visits."""

from __future__ import annotations

import math

from edadm.config.schema import EULERS, SOLVERS, Sampler


def visited(sampler: Sampler, total: int) -> list[int]:
    """The timesteps of a sampler run out of `total`, noisiest first.

    `quadratic`: squares of equally spaced points on [0, sqrt(0.8 total)], truncated (ermongroup/ddim,
    `skip_type quad`).
    `uniform`: each multiple of total / steps, truncated; where steps divide total, the list of
    ermongroup/ddim
    (`skip_type uniform`), which elsewhere has more steps than it was asked for.
    `uniform_from_one`: the same plus one (CompVis, LDM and Stable Diffusion).
    DPM-Solver++, UniPC and Euler visit those of their diffusers schedulers, where both uniform spacings are
    called `leading`.
    """
    total = min(total, sampler.below or total)
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
    if sampler.method in EULERS:
        return [first + index * (total // steps) for index in range(steps - 1, -1, -1)]
    return [first + index * total // steps for index in range(steps - 1, -1, -1)]


def _quadratic(steps: int, total: int) -> list[int]:
    root = math.sqrt(total * 0.8)
    points = [index * (root / (steps - 1)) for index in range(steps - 1)]
    return [int(point**2) for point in [*points, root if points else 0.0]][::-1]
