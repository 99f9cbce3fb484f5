"""DDIM (arXiv 2010.02502, eq. 12) with arbitrary timesteps and eta."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Denoise = Callable[[Float[Tensor, "n c h w"], Int[Tensor, " n"]], Float[Tensor, "n c h w"]]
OnStep = Callable[[int, int, Float[Tensor, "n c h w"]], None]


def _ignore(step: int, timestep: int, latents: Float[Tensor, "n c h w"]) -> None:
    """The default listener."""


@torch.no_grad()
def sample_ddim(
    denoise: Denoise,
    draw_noise: Callable[[], Float[Tensor, "n c h w"]],
    timesteps: Sequence[int],
    alphas_cumprod: Float[Tensor, " timesteps"],
    eta: float = 0.0,
    on_step: OnStep = _ignore,
) -> Float[Tensor, "n c h w"]:
    """From noise to the final latents, without clipping of x0.

    Args:
        denoise: predicts eps from `x_t` and `t`; condition and guidance live inside it.
        draw_noise: gives `x_T` first, then one draw per step while `eta > 0`.
        timesteps: noisiest first; the step after the last one has alpha-bar 1.
        alphas_cumprod: alpha-bar of every timestep.
        eta: 0 is deterministic, 1 is ancestral.
        on_step: told (step, timestep, latents) before each evaluation of the network.
    """
    latents = draw_noise()
    followers = [*timesteps[1:], None]
    for step, (timestep, following) in enumerate(zip(timesteps, followers, strict=True)):
        on_step(step, timestep, latents)
        alpha = alphas_cumprod[timestep].item()
        alpha_next = 1.0 if following is None else alphas_cumprod[following].item()
        eps = denoise(latents, torch.full((len(latents),), timestep, device=latents.device))
        x0 = (latents - (1 - alpha) ** 0.5 * eps) / alpha**0.5
        sigma = eta * ((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)) ** 0.5
        latents = alpha_next**0.5 * x0 + max(1 - alpha_next - sigma**2, 0.0) ** 0.5 * eps
        if sigma > 0:
            latents = latents + sigma * draw_noise()
    return latents
