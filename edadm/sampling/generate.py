"""Images i .. j of a model, each from its own stream of noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from edadm.config.schema import NoiseSchedule, Sampler
from edadm.errors import EdadmError
from edadm.sampling.ddim import Denoise, OnStep, sample_ddim
from edadm.sampling.noise import ImageNoise
from edadm.sampling.schedule import alphas_cumprod, sampler_timesteps


def shard_range(total: int, shards: int, shard: int) -> range:
    """The indices of one of `shards` nearly equal, contiguous parts of 0 .. total - 1.

    Raises:
        EdadmError: there is no such shard.
    """
    if not 0 <= shard < shards:
        raise EdadmError(f"there is no shard {shard}; shards are counted from 0 to {shards - 1}")
    return range(total * shard // shards, total * (shard + 1) // shards)


def to_uint8(latents: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """Pixels in [-1, 1], clamped and rounded to [0, 255] (the rounding of the CIFAR-10 run, method 5.2)."""
    return latents.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def run_sampler(
    denoise: Denoise,
    sampler: Sampler,
    schedule: NoiseSchedule,
    noise: ImageNoise,
    on_step: OnStep = lambda step, timestep, latents: None,
) -> Float[Tensor, "n c h w"]:
    """One run of the preset's sampler over a batch, to the final latents."""
    timesteps, alphas = sampler_timesteps(sampler, schedule), alphas_cumprod(schedule)
    return sample_ddim(denoise, noise.draw, timesteps, alphas, sampler.eta, on_step)


def generate_images(
    denoise: Denoise,
    sampler: Sampler,
    schedule: NoiseSchedule,
    indices: Sequence[int],
    shape: tuple[int, int, int],
    seed: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] = lambda images: None,
) -> UInt8[Tensor, "n c h w"]:
    """The images `indices`; image i has the noise of (seed, i) whatever its batch or shard (sums may differ in the last bits).

    Args:
        shape: (channels, height, width).
        batch_size: images per sampler run.
        on_batch: told the number of images after each batch.
    """
    images = []
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        noise = ImageNoise(seed, batch, shape, device)
        images.append(to_uint8(run_sampler(denoise, sampler, schedule, noise)).cpu())
        on_batch(len(batch))
    return torch.cat(images)
