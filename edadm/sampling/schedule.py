"""Noise schedules and the timesteps a sampler visits."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edadm.config.betas import betas_of
from edadm.config.schema import NoiseSchedule, Sampler
from edadm.sampling.solvers import SCHEDULERS, make_scheduler


def alphas_cumprod(schedule: NoiseSchedule) -> Float[Tensor, " timesteps"]:
    """Products of (1 - beta) up to each timestep, in (0, 1), fp64 (DDPM, arXiv 2006.11239, eq. 4).

    `linear` spaces beta linearly (ermongroup/ddim), `sqrt_linear` its square root (CompVis); others are `betas_of`'s.
    """
    start, end = schedule.start, schedule.end
    if schedule.kind == "linear":
        betas = torch.linspace(start, end, schedule.timesteps, dtype=torch.float64)
    elif schedule.kind == "sqrt_linear":
        betas = torch.linspace(start**0.5, end**0.5, schedule.timesteps, dtype=torch.float64) ** 2
    else:
        betas = torch.tensor(betas_of(schedule), dtype=torch.float64)
    return torch.cumprod(1 - betas, dim=0)


def sampler_timesteps(sampler: Sampler, schedule: NoiseSchedule) -> list[int]:
    """The timesteps of a sampler run, noisiest first.

    `quadratic`: squares of equally spaced points on [0, sqrt(0.8 T)], truncated (ermongroup/ddim, `skip_type quad`).
    `uniform`: every (T // steps)-th timestep from 0 (ermongroup/ddim, `skip_type uniform`).
    `uniform_from_one`: the same plus one (CompVis, LDM and Stable Diffusion).
    DPM-Solver++ and UniPC visit those of their diffusers schedulers, spaced evenly, from one on with `uniform_from_one`.
    """
    if sampler.method in SCHEDULERS:
        visited: list[int] = make_scheduler(sampler, schedule).timesteps.tolist()
        return visited
    total, steps = schedule.timesteps, sampler.steps
    if sampler.spacing == "quadratic":
        ascending = [int(s) for s in np.linspace(0, np.sqrt(total * 0.8), steps) ** 2]
    else:
        first = 1 if sampler.spacing == "uniform_from_one" else 0
        ascending = [first + i for i in range(0, total, total // steps)][:steps]
    return ascending[::-1]


def final_alpha(sampler: Sampler, schedule: NoiseSchedule) -> float:
    """alpha-bar after the last step: 1 in ermongroup/ddim, that of timestep 0 in CompVis' samplers (`uniform_from_one`)."""
    return alphas_cumprod(schedule)[0].item() if sampler.spacing == "uniform_from_one" else 1.0
