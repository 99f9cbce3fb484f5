"""Noise schedules and timesteps of the published runs."""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers import DDIMScheduler

from edadm.config.schema import NoiseSchedule, Sampler
from edadm.sampling.schedule import alphas_cumprod, sampler_timesteps


@pytest.mark.parametrize(("kind", "theirs"), [("linear", "linear"), ("sqrt_linear", "scaled_linear")])
def test_alpha_bars_equal_those_of_diffusers(kind: str, theirs: str) -> None:
    ours = alphas_cumprod(NoiseSchedule(kind=kind, start=0.0015, end=0.0195))
    reference = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule=theirs).alphas_cumprod
    torch.testing.assert_close(ours.float(), reference, rtol=1e-4, atol=1e-6)
    assert ours.dtype == torch.float64
    assert (ours.diff() < 0).all()


def test_quadratic_spacing_is_that_of_the_cifar_run() -> None:
    timesteps = sampler_timesteps(Sampler(steps=100, spacing="quadratic"), NoiseSchedule())
    assert len(timesteps) == 100
    assert timesteps[::-1][:8] == [0, 0, 0, 0, 1, 2, 2, 3]
    assert timesteps[0] in (799, 800)
    assert all(later <= earlier for earlier, later in itertools.pairwise(timesteps))
    step = 800**0.5 / 99
    assert all(abs(t - (k * step) ** 2) <= 1 for k, t in enumerate(timesteps[::-1]))


@pytest.mark.parametrize(
    ("steps", "first", "second", "last"),
    [(200, 1, 6, 996), (500, 1, 3, 999), (20, 1, 51, 951), (50, 1, 21, 981)],
    ids=["bedroom", "church", "imagenet", "stable diffusion"],
)
def test_uniform_spacing_from_one_is_that_of_the_latent_runs(
    steps: int, first: int, second: int, last: int
) -> None:
    timesteps = sampler_timesteps(Sampler(steps=steps, spacing="uniform_from_one"), NoiseSchedule())[::-1]
    assert len(timesteps) == steps
    assert [timesteps[0], timesteps[1], timesteps[-1]] == [first, second, last]
    assert len({b - a for a, b in itertools.pairwise(timesteps)}) == 1


def test_uniform_spacing_starts_at_zero() -> None:
    assert sampler_timesteps(Sampler(steps=4, spacing="uniform"), NoiseSchedule()) == [750, 500, 250, 0]


@pytest.mark.parametrize("spacing", ["uniform", "uniform_from_one", "quadratic"])
@pytest.mark.parametrize("steps", [1, 3, 7, 15, 999])
def test_any_number_of_steps_gives_that_many_timesteps_in_range(spacing: str, steps: int) -> None:
    timesteps = sampler_timesteps(Sampler(steps=steps, spacing=spacing), NoiseSchedule())
    assert len(timesteps) == steps
    assert all(0 <= t < 1000 for t in timesteps)
