"""DDIM (arXiv 2010.02502, eq. 12) with arbitrary timesteps and eta."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edadm.config.rules.timesteps import Timestep

Times = Int[Tensor, " n"] | Float[Tensor, " n"]  # whole numbers, but for a flow's
Denoise = Callable[[Float[Tensor, "n c h w"], Times], Float[Tensor, "n c h w"]]
OnStep = Callable[[int, Timestep, Float[Tensor, "n c h w"]], None]


@runtime_checkable
class Conditional(Protocol):
    """A denoiser whose prediction depends on which image it denoises."""

    def on(self, indices: Sequence[int]) -> Denoise:
        """The denoiser of these images, in this order."""


@runtime_checkable
class Noisy(Protocol):
    """A denoiser that says how much quantization noise is left in its prediction."""

    def excess_variance(self, timestep: int) -> float:
        """The variance of that noise in eps; 0 where nothing is known of any."""


def denoiser_of(denoise: Denoise, indices: Sequence[int]) -> Denoise:
    """The denoiser of these images, if it makes a difference which they are."""
    return denoise.on(indices) if isinstance(denoise, Conditional) else denoise


def ignore(step: int, timestep: Timestep, latents: Float[Tensor, "n c h w"]) -> None:
    """The default listener."""


@torch.no_grad()
def sample_ddim(
    denoise: Denoise,
    draw_noise: Callable[[], Float[Tensor, "n c h w"]],
    timesteps: Sequence[int],
    alphas_cumprod: Float[Tensor, " timesteps"],
    eta: float = 0.0,
    on_step: OnStep = ignore,
    final_alpha: float = 1.0,
) -> Float[Tensor, "n c h w"]:
    """From noise to the final latents, without clipping of x0.

    Quantization noise that a denoiser says is left in eps (`Noisy`) reaches x with the factor of eps, and is
    taken off the noise that a step adds, as far as there is some (PTQD, arXiv 2305.10657).

    Args:
        denoise: predicts eps from `x_t` and `t`; condition and guidance live inside it.
        draw_noise: gives `x_T` first, then one draw per step while `eta > 0`.
        timesteps: noisiest first.
        alphas_cumprod: alpha-bar of every timestep.
        eta: 0 is deterministic, 1 is ancestral.
        on_step: told (step, timestep, latents) before each evaluation of the network.
        final_alpha: alpha-bar after the last step.
    """
    latents = draw_noise()
    followers = [*timesteps[1:], None]
    for step, (timestep, following) in enumerate(zip(timesteps, followers, strict=True)):
        on_step(step, timestep, latents)
        alpha = alphas_cumprod[timestep].item()
        alpha_next = final_alpha if following is None else alphas_cumprod[following].item()
        eps = denoise(latents, torch.full((len(latents),), timestep, device=latents.device))
        x0 = (latents - (1 - alpha) ** 0.5 * eps) / alpha**0.5
        sigma = eta * ((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)) ** 0.5
        of_eps = max(1 - alpha_next - sigma**2, 0.0) ** 0.5
        latents = alpha_next**0.5 * x0 + of_eps * eps
        if sigma > 0:
            if isinstance(denoise, Noisy) and (excess := denoise.excess_variance(timestep)) > 0:
                reach = of_eps - (alpha_next * (1 - alpha) / alpha) ** 0.5
                sigma = max(sigma**2 - reach**2 * excess, 0.0) ** 0.5
            latents = latents + sigma * draw_noise()
    return latents
