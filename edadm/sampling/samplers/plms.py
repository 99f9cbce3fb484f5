"""Pseudo linear multistep sampling (PLMS; PNDM, arXiv 2202.09778) as CompVis' sampler does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.sampling.samplers.ddim import Denoise, OnStep, ignore

# Adams-Bashforth weights of the newest prediction and those before it, by how many there are.
_WEIGHTS = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


@torch.no_grad()
def sample_plms(
    denoise: Denoise,
    draw_noise: Callable[[], Float[Tensor, "n c h w"]],
    timesteps: Sequence[int],
    alphas_cumprod: Float[Tensor, " timesteps"],
    final_alpha: float,
    on_step: OnStep = ignore,
) -> Float[Tensor, "n c h w"]:
    """From noise to the final latents, deterministically; one network evaluation more than steps.

    Step 0 evaluates the network twice, the second time where the first prediction leads (pseudo improved
    Euler); the listener is told of the first only, and so the second point is never recorded (quirk Q11).

    Args:
        denoise: predicts eps from `x_t` and `t`; condition and guidance live inside it.
        draw_noise: gives `x_T`.
        timesteps: noisiest first.
        alphas_cumprod: alpha-bar of every timestep.
        final_alpha: alpha-bar after the last step.
        on_step: told (step, timestep, latents) once per step, before its first evaluation of the network.
    """
    latents = draw_noise()
    alphas = [*(alphas_cumprod[timestep].item() for timestep in timesteps), final_alpha]
    history: list[Tensor] = []
    for step, timestep in enumerate(timesteps):
        on_step(step, timestep, latents)
        eps = denoise(latents, torch.full((len(latents),), timestep, device=latents.device))
        history = [eps, *history[:3]]
        if len(history) == 1:
            following = timesteps[min(1, len(timesteps) - 1)]
            reached = _moved(latents, eps, alphas[step], alphas[step + 1])
            direction = (
                eps + denoise(reached, torch.full((len(latents),), following, device=latents.device))
            ) / 2
        else:
            weights = _WEIGHTS[len(history)]
            direction = torch.stack(
                [weight * past for weight, past in zip(weights, history, strict=True)]
            ).sum(0)
        latents = _moved(latents, direction, alphas[step], alphas[step + 1])
    return latents


def _moved(
    latents: Float[Tensor, "n c h w"], eps: Float[Tensor, "n c h w"], alpha: float, alpha_next: float
) -> Float[Tensor, "n c h w"]:
    """A deterministic DDIM step from one alpha-bar to another."""
    x0 = (latents - (1 - alpha) ** 0.5 * eps) / alpha**0.5
    return alpha_next**0.5 * x0 + (1 - alpha_next) ** 0.5 * eps
