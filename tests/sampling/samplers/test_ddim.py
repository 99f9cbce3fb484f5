"""DDIM against diffusers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers import DDIMScheduler

from edadm.config.schema import NoiseSchedule, Sampler
from edadm.sampling.samplers.ddim import sample_ddim
from edadm.sampling.schedule import alphas_cumprod, sampler_timesteps

SHAPE = (3, 2, 4, 4)


def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A toy denoiser that depends on everything it is given."""
    return torch.tanh(0.7 * x + 0.2 * x.flip(1)) + (t / 1000 - 0.5)[:, None, None, None] * 0.1


def noises(seed: int = 0) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(SHAPE, generator=generator)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("steps", [4, 10])
def test_samples_equal_those_of_diffusers_with_the_same_noise(eta: float, steps: int, offset: int) -> None:
    scheduler = DDIMScheduler(
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=offset,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(steps)
    theirs = noises()
    expected = next(theirs)
    for t in scheduler.timesteps:
        last = t == scheduler.timesteps[-1]
        noise = None if eta == 0 or last else next(theirs)
        eps = denoise(expected, t.repeat(len(expected)))
        expected = scheduler.step(
            eps, t, expected, eta=0.0 if last else eta, variance_noise=noise
        ).prev_sample
    schedule = NoiseSchedule()
    timesteps = sampler_timesteps(
        Sampler(steps=steps, spacing="uniform_from_one" if offset else "uniform"), schedule
    )
    assert timesteps == scheduler.timesteps.tolist()
    ours = noises()
    result = sample_ddim(denoise, lambda: next(ours), timesteps, alphas_cumprod(schedule), eta)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_the_listener_hears_every_state_the_network_is_given() -> None:
    heard, given = [], []

    def listening_denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        given.append((x.clone(), t))
        return denoise(x, t)

    source = noises()
    alphas = alphas_cumprod(NoiseSchedule())
    sample_ddim(
        listening_denoise,
        lambda: next(source),
        [900, 400, 3],
        alphas,
        0.0,
        lambda *event: heard.append(event),
    )
    assert [step for step, _, _ in heard] == [0, 1, 2]
    assert [timestep for _, timestep, _ in heard] == [900, 400, 3]
    for (_, timestep, latents), (x, t) in zip(heard, given, strict=True):
        assert torch.equal(latents, x)
        assert t.tolist() == [timestep] * len(x)


@pytest.mark.parametrize(("eta", "draws"), [(0.0, 1), (1.0, 3)])
def test_noise_is_drawn_once_and_then_for_every_stochastic_step(eta: float, draws: int) -> None:
    source, count = noises(), []

    def draw() -> torch.Tensor:
        count.append(1)
        return next(source)

    sample_ddim(denoise, draw, [900, 400, 3], alphas_cumprod(NoiseSchedule()), eta)
    assert len(count) == draws


def test_a_perfect_denoiser_gives_back_the_clean_image() -> None:
    clean = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    alphas = alphas_cumprod(NoiseSchedule())

    def perfect(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha = alphas[t][:, None, None, None].float()
        return (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()

    source = noises()
    result = sample_ddim(
        perfect, lambda: next(source), sampler_timesteps(Sampler(steps=10), NoiseSchedule()), alphas
    )
    torch.testing.assert_close(result, clean, rtol=1e-4, atol=1e-4)
