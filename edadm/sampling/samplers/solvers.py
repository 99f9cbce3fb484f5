"""Samplers over diffusers' schedulers: DPM-Solver++ (arXiv 2211.01095) and UniPC (arXiv 2302.04867).

Both of order 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.config.betas import betas_of
from edadm.config.schema import NoiseSchedule, Sampler
from edadm.sampling.samplers.ddim import Denoise, OnStep, ignore


def make_scheduler(sampler: Sampler, schedule: NoiseSchedule) -> Any:
    """The diffusers scheduler of a sampler preset, its timesteps set."""
    from diffusers import (
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
    )  # seconds, that DDIM need not wait for

    schedulers = {"dpm_solver++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
    known = {"linear": "linear", "sqrt_linear": "scaled_linear"}
    spacing = sampler.spacing if sampler.spacing in ("trailing", "linspace") else "leading"
    scheduler = schedulers[sampler.method](
        num_train_timesteps=schedule.timesteps,
        beta_start=schedule.start,
        beta_end=schedule.end,
        beta_schedule=known.get(schedule.kind, "linear"),
        trained_betas=None if schedule.kind in known else betas_of(schedule),
        solver_order=2,
        timestep_spacing=spacing,
        steps_offset=1 if sampler.spacing == "uniform_from_one" else 0,
    )
    scheduler.set_timesteps(sampler.steps)
    return scheduler


@torch.no_grad()
def sample_with_scheduler(
    denoise: Denoise,
    draw_noise: Callable[[], Float[Tensor, "n c h w"]],
    scheduler: Any,
    on_step: OnStep = ignore,
) -> Float[Tensor, "n c h w"]:
    """From noise to the final latents, deterministically; one network evaluation per step.

    Args:
        denoise: predicts eps from `x_t` and `t`; condition and guidance live inside it.
        draw_noise: gives `x_T`.
        scheduler: from `make_scheduler`; its state is used up.
        on_step: told (step, timestep, latents) before each evaluation of the network.
    """
    latents = draw_noise()
    for step, timestep in enumerate(scheduler.timesteps.tolist()):
        on_step(step, timestep, latents)
        eps = denoise(latents, torch.full((len(latents),), timestep, device=latents.device))
        latents = scheduler.step(eps, timestep, latents, return_dict=False)[0]
    return latents
