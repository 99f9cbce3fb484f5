"""Euler's method along the flow from noise to images (arXiv 2209.03003, 2403.03206)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.config.rules.timesteps import Timestep
from edadm.sampling.samplers.ddim import Denoise, OnStep, ignore


@torch.no_grad()
def sample_flow(
    denoise: Denoise,
    draw_noise: Callable[[], Float[Tensor, "n c h w"]],
    timesteps: Sequence[Timestep],
    total: int,
    on_step: OnStep = ignore,
) -> Float[Tensor, "n c h w"]:
    """From noise to the final latents, deterministically; one network evaluation per step.

    With x_t = (1 - sigma) x_0 + sigma noise and sigma = t / total, the flow noise - x_0 is the slope of x_t
    over sigma.

    Args:
        denoise: predicts the flow from `x_t` and `t`; condition and guidance live inside it.
        draw_noise: gives `x_T`.
        timesteps: noisiest first, no whole numbers, in (0, total].
        total: the timestep of nothing but noise.
        on_step: told (step, timestep, latents) before each evaluation of the network.
    """
    latents = draw_noise()
    for step, (timestep, following) in enumerate(pairwise([*timesteps, 0.0])):
        on_step(step, timestep, latents)
        flow = denoise(latents, torch.full((len(latents),), timestep, device=latents.device))
        latents = latents + (following - timestep) / total * flow
    return latents
