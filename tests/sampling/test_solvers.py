"""Samplers over diffusers' schedulers, and CompVis' last step."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from pydantic import ValidationError

from edadm.config.schema import NoiseSchedule, Sampler
from edadm.sampling.generate import run_sampler, to_uint8
from edadm.sampling.noise import ImageNoise
from edadm.sampling.schedule import alphas_cumprod, sampler_timesteps

SCHEDULE = NoiseSchedule(kind="sqrt_linear", start=0.0015, end=0.0195)
BETAS = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 4)


def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.tanh(0.7 * x + 0.2 * x.flip(1)) + (t / 1000 - 0.5)[:, None, None, None] * 0.1


@pytest.mark.parametrize(
    ("method", "kind"), [("dpm_solver++", DPMSolverMultistepScheduler), ("unipc", UniPCMultistepScheduler), ("ddim", DDIMScheduler)]
)
def test_a_run_equals_diffusers_own_loop(method: str, kind: type) -> None:
    extra = {"set_alpha_to_one": False, "clip_sample": False} if method == "ddim" else {"solver_order": 2}
    scheduler = kind(**BETAS, timestep_spacing="leading", steps_offset=1, **extra)
    scheduler.set_timesteps(8)
    expected = ImageNoise(5, [0, 1], SHAPE).draw()
    for t in scheduler.timesteps:
        expected = scheduler.step(denoise(expected, t.repeat(2)), t, expected, return_dict=False)[0]
    sampler, heard = Sampler(method=method, steps=8, spacing="uniform_from_one"), []
    result = run_sampler(denoise, sampler, SCHEDULE, ImageNoise(5, [0, 1], SHAPE), lambda step, t, x: heard.append(t))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert heard == sampler_timesteps(sampler, SCHEDULE) == scheduler.timesteps.tolist()


@pytest.mark.parametrize(("steps", "first", "last"), [(200, [996, 991], 1), (500, [999, 997], 1), (20, [951, 901], 1), (50, [981, 961], 1)])
def test_the_published_timesteps(steps: int, first: list[int], last: int) -> None:
    timesteps = sampler_timesteps(Sampler(steps=steps, spacing="uniform_from_one"), SCHEDULE)
    assert timesteps[:2] == first
    assert timesteps[-1] == last
    assert len(timesteps) == steps


def test_compvis_ends_at_the_alpha_of_timestep_zero_and_draws_noise_in_every_step() -> None:
    draws = []

    class Counting(ImageNoise):
        def draw(self) -> torch.Tensor:
            draws.append(1)
            return super().draw()

    alphas, sampler = alphas_cumprod(SCHEDULE), Sampler(steps=1, spacing="uniform_from_one")
    x = ImageNoise(0, [0], SHAPE).draw()
    eps = denoise(x, torch.tensor([1]))
    expected = alphas[0] ** 0.5 * (x - (1 - alphas[1]) ** 0.5 * eps) / alphas[1] ** 0.5 + (1 - alphas[0]) ** 0.5 * eps
    result = run_sampler(denoise, sampler, SCHEDULE, ImageNoise(0, [0], SHAPE))
    torch.testing.assert_close(result, expected.float(), rtol=1e-4, atol=1e-5)
    run_sampler(denoise, sampler.model_copy(update={"steps": 4, "eta": 1.0}), SCHEDULE, Counting(0, [0], SHAPE))
    assert len(draws) == 5


def test_pixels_are_truncated_where_the_original_truncates() -> None:
    images = torch.tensor([-9.0, -1.0, -0.5, 0.0, 0.5, 1.0, 9.0]).reshape(1, 1, 1, 7)
    assert to_uint8(images, "truncate").flatten().tolist() == [0, 0, 63, 127, 191, 255, 255]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "plms", "eta": 0.5, "spacing": "uniform"}, "'plms' is deterministic; set eta: 0"),
        ({"method": "unipc", "spacing": "quadratic"}, "'unipc' has no quadratic spacing"),
    ],
)
def test_settings_of_another_sampler_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Sampler(**settings)
