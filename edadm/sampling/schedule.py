"""Noise schedules and the timesteps a sampler visits."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edadm.config.schema import NoiseSchedule, Sampler


def alphas_cumprod(schedule: NoiseSchedule) -> Float[Tensor, " timesteps"]:
    """Products of (1 - beta) up to each timestep, in (0, 1), fp64 (DDPM, arXiv 2006.11239, eq. 4).

    `linear` spaces beta linearly (ermongroup/ddim), `sqrt_linear` its square root (CompVis).
    """
    start, end = schedule.start, schedule.end
    if schedule.kind == "linear":
        betas = torch.linspace(start, end, schedule.timesteps, dtype=torch.float64)
    else:
        betas = torch.linspace(start**0.5, end**0.5, schedule.timesteps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def sampler_timesteps(sampler: Sampler, schedule: NoiseSchedule) -> list[int]:
    """The timesteps of a sampler run, noisiest first.

    `quadratic`: squares of equally spaced points on [0, sqrt(0.8 T)], truncated (ermongroup/ddim, `skip_type quad`).
    `uniform`: every (T // steps)-th timestep from 0 (ermongroup/ddim, `skip_type uniform`).
    `uniform_from_one`: the same plus one (CompVis, LDM and Stable Diffusion).
    """
    total, steps = schedule.timesteps, sampler.steps
    if sampler.spacing == "quadratic":
        ascending = [int(s) for s in np.linspace(0, np.sqrt(total * 0.8), steps) ** 2]
    else:
        first = 1 if sampler.spacing == "uniform_from_one" else 0
        ascending = [first + i for i in range(0, total, total // steps)][:steps]
    return ascending[::-1]
