"""Images i .. j of a model, each from its own stream of noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from edadm.config.schema import EULERS, FLOW, SOLVERS, NoiseSchedule, Sampler
from edadm.errors import EdadmError
from edadm.sampling.noise import ImageNoise
from edadm.sampling.samplers.ddim import Denoise, OnStep, denoiser_of, sample_ddim
from edadm.sampling.samplers.euler import sample_euler
from edadm.sampling.samplers.flow import sample_flow
from edadm.sampling.samplers.plms import sample_plms
from edadm.sampling.samplers.solvers import make_scheduler, sample_with_scheduler
from edadm.sampling.schedule import alphas_cumprod, final_alpha, sampler_timesteps


def to_uint8(
    images: Float[Tensor, "n c h w"], pixels: Literal["round", "truncate"] = "round"
) -> UInt8[Tensor, "n c h w"]:
    """Pixels in [-1, 1], clamped, to [0, 255]: rounded, or truncated (method, 5.2).

    The CIFAR-10 run rounds.
    """
    scaled = images.clamp(-1, 1).add(1).mul(127.5)
    return (scaled.round() if pixels == "round" else scaled).to(torch.uint8)


def run_sampler(
    denoise: Denoise,
    sampler: Sampler,
    schedule: NoiseSchedule,
    noise: ImageNoise,
    on_step: OnStep = lambda step, timestep, latents: None,
) -> Float[Tensor, "n c h w"]:
    """One run of the preset's sampler over a batch, to the final latents."""
    visited = sampler_timesteps(sampler, schedule)
    if sampler.method == FLOW:
        return sample_flow(denoise, noise.draw, visited, schedule.timesteps, on_step)
    timesteps = [int(timestep) for timestep in visited]
    alphas, last = alphas_cumprod(schedule), final_alpha(sampler, schedule)
    draw = _begun(denoise, sampler, noise.draw, alphas[timesteps[0]].item())
    if sampler.method in SOLVERS:
        return sample_with_scheduler(denoise, draw, make_scheduler(sampler, schedule), on_step)
    if sampler.method in EULERS:
        kind = (sampler.method == "euler_ancestral", sampler.spacing == "trailing")
        return sample_euler(denoise, draw, timesteps, alphas, *kind, on_step)
    if sampler.method == "plms":
        return sample_plms(denoise, draw, timesteps, alphas, last, on_step)
    return sample_ddim(denoise, draw, timesteps, alphas, sampler.eta, on_step, last)


def _begun(
    denoise: Denoise, sampler: Sampler, draw: Callable[[], Tensor], alpha: float
) -> Callable[[], Tensor]:
    """Draws of which the first is a run's first state: noise, or the images to begin from with noise.

    Raises:
        EdadmError: it begins below the last timestep, and there is nothing to begin from.
    """
    start = getattr(denoise, "start", None)
    if sampler.below is None:
        return draw
    if start is None:
        raise EdadmError("runs that begin below a timestep need images; remove sampler.below")
    parts = iter([alpha**0.5 * start])

    def next_draw() -> Tensor:
        image = next(parts, None)
        return draw() if image is None else image + (1 - alpha) ** 0.5 * draw()

    return next_draw


def _not_finite(indices: Sequence[int], made: int) -> str:
    """Names and counts images that are not."""
    images = f"image {indices[0]} is" if len(indices) == 1 else f"images {_listed(indices)} are"
    return (
        f"{images} not finite, {len(indices)} of the {made} made so far; use precision: fp32 or bf16, or "
        "check the weights"
    )


def _listed(indices: Sequence[int]) -> str:
    if len(indices) == indices[-1] - indices[0] + 1:
        return f"{indices[0]} to {indices[-1]}"
    named = ", ".join(str(index) for index in indices[:8])
    return f"{named} and {len(indices) - 8} more" if len(indices) > 8 else named


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
    decode: Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n d i j"]] = lambda latents: latents,
    pixels: Literal["round", "truncate"] = "round",
) -> UInt8[Tensor, "n d i j"]:
    """The images `indices`; image i has the noise of (seed, i) whatever its batch or shard.

    Sums may differ in the last bits.

    Args:
        shape: (channels, height, width).
        batch_size: images per sampler run.
        on_batch: told the number of images after each batch.
        decode: from the sampler's latents to images in [-1, 1].
        pixels: how pixel values become whole numbers.

    Raises:
        EdadmError: images hold infinities or no numbers.
    """
    images = []
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        noise = ImageNoise(seed, batch, shape, device)
        latents = run_sampler(denoiser_of(denoise, batch), sampler, schedule, noise)
        decoded = decode(latents)
        if broken := [
            index for index, image in zip(batch, decoded, strict=True) if not bool(image.isfinite().all())
        ]:
            raise EdadmError(_not_finite(broken, start + len(batch)))
        images.append(to_uint8(decoded, pixels).cpu())
        on_batch(len(batch))
    return torch.cat(images)
