"""PLMS against diffusers and its published peculiarities."""

from __future__ import annotations

import pytest
import torch
from diffusers import PNDMScheduler

from edadm.config.schema import NoiseSchedule, Sampler
from edadm.sampling.samplers.plms import sample_plms
from edadm.sampling.schedule import alphas_cumprod, final_alpha, sampler_timesteps

from .test_ddim import denoise, noises

SCHEDULE = NoiseSchedule(kind="sqrt_linear", start=0.00085, end=0.012)


@pytest.mark.parametrize("steps", [4, 10, 50])
def test_samples_equal_those_of_diffusers(steps: int) -> None:
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.set_timesteps(steps)
    expected = next(noises())
    for t in scheduler.timesteps:
        expected = scheduler.step(denoise(expected, t.repeat(len(expected))), t, expected).prev_sample
    sampler = Sampler(method="plms", steps=steps, spacing="uniform_from_one")
    timesteps = sampler_timesteps(sampler, SCHEDULE)
    assert [timesteps[0], timesteps[1], *timesteps[1:]] == scheduler.timesteps.tolist()
    source = noises()
    result = sample_plms(
        denoise, lambda: next(source), timesteps, alphas_cumprod(SCHEDULE), final_alpha(sampler, SCHEDULE)
    )
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_the_first_step_evaluates_twice_and_is_told_once() -> None:
    given, heard = [], []

    def listening(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        given.append((x.clone(), int(t[0])))
        return denoise(x, t)

    source = noises()
    sample_plms(
        listening,
        lambda: next(source),
        [801, 601, 401, 201, 1],
        alphas_cumprod(SCHEDULE),
        0.999,
        lambda *e: heard.append(e),
    )
    assert [timestep for _, timestep in given] == [801, 601, 601, 401, 201, 1]
    assert [(step, timestep) for step, timestep, _ in heard] == [
        (0, 801),
        (1, 601),
        (2, 401),
        (3, 201),
        (4, 1),
    ]
    states = [given[0], *given[2:]]
    for (x, timestep), (_, told, latents) in zip(states, heard, strict=True):
        assert timestep == told
        assert torch.equal(x, latents)


def test_a_single_step_needs_no_later_timestep() -> None:
    source = noises()
    result = sample_plms(denoise, lambda: next(source), [1], alphas_cumprod(SCHEDULE), 1.0)
    assert torch.isfinite(result).all()
