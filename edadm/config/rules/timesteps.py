"""Which timesteps a sampler visits."""

from __future__ import annotations

import math
import struct

from edadm.config.schema import EULERS, FLOW, SOLVERS, Sampler
from edadm.config.schema.shift import shifted

Timestep = int | float  # whole numbers, but for a flow's


def visited(sampler: Sampler, total: int) -> list[Timestep]:
    """The timesteps of a sampler run out of `total`, noisiest first.

    `quadratic`: squares of equally spaced points on [0, sqrt(0.8 total)], truncated (ermongroup/ddim,
    `skip_type quad`).
    `uniform`: each multiple of total / steps, truncated; where steps divide total, the list of
    ermongroup/ddim
    (`skip_type uniform`), which elsewhere has more steps than it was asked for.
    `uniform_from_one`: the same plus one (CompVis, LDM and Stable Diffusion).
    DPM-Solver++, UniPC and Euler visit those of their diffusers schedulers, where both uniform spacings are
    called `leading`. All of these are whole numbers; a flow's are not (`levels`).
    """
    if sampler.method == FLOW:
        return [_fp32(level * total) for level in levels(sampler, total)]
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


def levels(sampler: Sampler, total: int) -> list[float]:
    """The shares of noise sigma at which a flow's network is evaluated, in fp32 numbers, noisiest first.

    As diffusers' `FlowMatchEulerDiscreteScheduler` has them: `linspace` is its own choice, from 1 to
    1 / total, and shifted; a static shift moves that end once more before. `trailing` are n / steps, 1 among
    them, shifted, with which FLUX's pipeline calls it.
    """
    steps, factor = sampler.steps, sampler.shift or 1.0
    last = _fp32(shifted(_fp32(1 / total), factor))
    if (by_size := sampler.dynamic_shift) is not None:
        factor, last = by_size.factor, _fp32(1 / total)
    even = [index / steps for index in range(steps, 0, -1)]
    if sampler.spacing == "linspace":
        even = [1 + index * (last - 1) / max(1, steps - 1) for index in range(steps)]
    return [_fp32(shifted(sigma, factor)) for sigma in even]


def _fp32(number: float) -> float:
    """The nearest number in single precision, in which networks are told timesteps."""
    found: float = struct.unpack("f", struct.pack("f", number))[0]
    return found


def _quadratic(steps: int, total: int) -> list[Timestep]:
    root = math.sqrt(total * 0.8)
    points = [index * (root / (steps - 1)) for index in range(steps - 1)]
    found: list[Timestep] = [int(point**2) for point in [*points, root if points else 0.0]]
    return found[::-1]
