"""Noise schedules and the timesteps a sampler visits."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.config.betas import betas_of
from edadm.config.rules.steps import step_problem
from edadm.config.rules.timesteps import Timestep, visited
from edadm.config.schema import EULERS, NoiseSchedule, Sampler
from edadm.errors import EdadmError


def alphas_cumprod(schedule: NoiseSchedule) -> Float[Tensor, " timesteps"]:
    """Products of (1 - beta) up to each timestep, in (0, 1), fp64 (DDPM, arXiv 2006.11239, eq. 4).

    `linear` spaces beta linearly (ermongroup/ddim), `sqrt_linear` its square root (CompVis); others are
    `betas_of`'s.
    """
    start, end = schedule.start, schedule.end
    if schedule.kind == "linear":
        betas = torch.linspace(start, end, schedule.timesteps, dtype=torch.float64)
    elif schedule.kind == "sqrt_linear":
        betas = torch.linspace(start**0.5, end**0.5, schedule.timesteps, dtype=torch.float64) ** 2
    else:
        betas = torch.tensor(betas_of(schedule), dtype=torch.float64)
    return torch.cumprod(1 - betas, dim=0)


def sampler_timesteps(sampler: Sampler, schedule: NoiseSchedule) -> list[Timestep]:
    """The timesteps of a sampler run, noisiest first; `edadm.config.rules.timesteps.visited` says which.

    Whole numbers, but for a flow's.

    Raises:
        EdadmError: that number of steps cannot lead from noise to an image; one step, which can show a
            network, may.
    """
    problem = step_problem(sampler, schedule.timesteps)
    if problem and sampler.steps > 1:
        raise EdadmError(f"sampler: {problem}")
    return visited(sampler, schedule.timesteps)


def final_alpha(sampler: Sampler, schedule: NoiseSchedule) -> float:
    """alpha-bar after the last step: 1 in ermongroup/ddim, that of timestep 0 in CompVis' samplers.

    The latter are those with `uniform_from_one`.
    """
    return alphas_cumprod(schedule)[0].item() if sampler.spacing == "uniform_from_one" else 1.0


def step_factors(sampler: Sampler, schedule: NoiseSchedule) -> list[tuple[float, float]] | None:
    """What each step multiplies x_t and eps with before it adds noise (DDIM, arXiv 2010.02502, eq. 12).

    None where a step is not linear in these two alone: PLMS and the solvers remember earlier predictions.
    """
    if sampler.method not in ("ddim", *EULERS):
        return None
    eta = 1.0 if sampler.method == "euler_ancestral" else sampler.eta
    alphas, timesteps = alphas_cumprod(schedule), sampler_timesteps(sampler, schedule)
    levels = [*alphas[[int(t) for t in timesteps]].tolist(), final_alpha(sampler, schedule)]
    factors = []
    for alpha, following in pairwise(levels):
        sigma = eta * ((1 - following) / (1 - alpha) * (1 - alpha / following)) ** 0.5
        of_state = (following / alpha) ** 0.5
        of_eps = max(1 - following - sigma**2, 0.0) ** 0.5 - of_state * (1 - alpha) ** 0.5
        factors.append((of_state, of_eps))
    return factors
