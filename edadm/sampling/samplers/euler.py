"""Euler's method over levels of noise (arXiv 2206.00364), as diffusers' schedulers begin and end it.

With sigma^2 = (1 - alpha-bar) / alpha-bar and x / sqrt(alpha-bar) in place of x, a step of DDIM with eta 0 is
one of Euler's, and one with eta 1 an ancestral one: the same noise is added. So these are DDIM's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.sampling.samplers.ddim import Denoise, OnStep, ignore, sample_ddim


@torch.no_grad()
def sample_euler(
    denoise: Denoise,
    draw_noise: Callable[[], Float[Tensor, "n c h w"]],
    timesteps: Sequence[int],
    alphas_cumprod: Float[Tensor, " timesteps"],
    is_ancestral: bool = False,
    is_trailing: bool = False,
    on_step: OnStep = ignore,
) -> Float[Tensor, "n c h w"]:
    """From noise to the final latents, down to noise 0.

    Args:
        denoise: predicts eps from `x_t` and `t`; condition and guidance live inside it.
        draw_noise: gives `x_T` first, then one draw per step but the last if it is ancestral.
        timesteps: noisiest first.
        alphas_cumprod: alpha-bar of every timestep.
        is_ancestral: whether each step adds noise.
        is_trailing: whether the first state has the noise of its timestep and no more, as diffusers has it
            with trailing timesteps; with leading ones its variance is 1.
        on_step: told (step, timestep, latents) before each evaluation of the network.
    """
    first = (1 - alphas_cumprod[timesteps[0]].item()) ** 0.5 if is_trailing else 1.0
    scales = _scales(first)
    eta = 1.0 if is_ancestral else 0.0
    return sample_ddim(denoise, lambda: draw_noise() * next(scales), timesteps, alphas_cumprod, eta, on_step)


def _scales(first: float) -> Iterator[float]:
    """By what each draw is multiplied: the first one alone by another number than 1."""
    yield first
    while True:
        yield 1.0
