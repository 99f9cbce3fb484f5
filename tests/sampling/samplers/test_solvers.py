"""Samplers over diffusers' schedulers, and CompVis' last step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from pydantic import ValidationError

from edadm.config.rules.steps import step_problem
from edadm.config.schema import NoiseSchedule, Sampler
from edadm.errors import EdadmError
from edadm.sampling.denoiser import Prediction
from edadm.sampling.generate import run_sampler, to_uint8
from edadm.sampling.noise import ImageNoise
from edadm.sampling.samplers.solvers import make_scheduler
from edadm.sampling.schedule import alphas_cumprod, sampler_timesteps

SCHEDULE = NoiseSchedule(kind="sqrt_linear", start=0.0015, end=0.0195)
LATENT = NoiseSchedule(kind="sqrt_linear", start=0.00085, end=0.012)
BETAS = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 4)


def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.tanh(0.7 * x + 0.2 * x.flip(1)) + (t / 1000 - 0.5)[:, None, None, None] * 0.1


@pytest.mark.parametrize(
    ("method", "kind", "spacing", "theirs"),
    [
        ("ddim", DDIMScheduler, "uniform_from_one", "leading"),
        *(
            (method, kind, *spacing)
            for method, kind in (
                ("dpm_solver++", DPMSolverMultistepScheduler),
                ("unipc", UniPCMultistepScheduler),
            )
            for spacing in (
                ("uniform_from_one", "leading"),
                ("trailing", "trailing"),
                ("linspace", "linspace"),
            )
        ),
    ],
)
def test_a_run_equals_diffusers_own_loop(method: str, kind: type, spacing: str, theirs: str) -> None:
    extra = {"set_alpha_to_one": False, "clip_sample": False} if method == "ddim" else {"solver_order": 2}
    scheduler = kind(**BETAS, timestep_spacing=theirs, steps_offset=1, **extra)
    scheduler.set_timesteps(8)
    expected = ImageNoise(5, [0, 1], SHAPE).draw()
    for t in scheduler.timesteps:
        expected = scheduler.step(denoise(expected, t.repeat(2)), t, expected, return_dict=False)[0]
    sampler, heard = Sampler(method=method, steps=8, spacing=spacing), []
    result = run_sampler(
        denoise, sampler, SCHEDULE, ImageNoise(5, [0, 1], SHAPE), lambda step, t, x: heard.append(t)
    )
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert heard == sampler_timesteps(sampler, SCHEDULE) == scheduler.timesteps.tolist()


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize(("spacing", "theirs"), [("uniform_from_one", "leading"), ("trailing", "trailing")])
@pytest.mark.parametrize("method", ["euler", "euler_ancestral"])
def test_eulers_runs_equal_diffusers_own_loops(method: str, spacing: str, theirs: str, kind: str) -> None:
    kinds = {"euler": EulerDiscreteScheduler, "euler_ancestral": EulerAncestralDiscreteScheduler}
    own = {"timestep_spacing": theirs, "steps_offset": 1}
    predicted = {"eps": "epsilon", "v": "v_prediction"}[kind]
    scheduler: Any = kinds[method](**BETAS, **own, prediction_type=predicted)
    scheduler.set_timesteps(8)
    noise = ImageNoise(5, [0, 1], SHAPE)
    state = noise.draw() * scheduler.init_noise_sigma
    given = []
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(state, t)
        given.append(scaled)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"{kinds[method].__module__}.randn_tensor", lambda *_, **__: noise.draw())
            state = scheduler.step(denoise(scaled, t.repeat(2)), t, state, return_dict=False)[0]
    prediction = Prediction(kind, alphas_cumprod(SCHEDULE))

    def eps(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return prediction.eps(denoise(x, t), x, t)

    sampler, heard = Sampler(method=method, steps=8, spacing=spacing), []
    result = run_sampler(
        eps, sampler, SCHEDULE, ImageNoise(5, [0, 1], SHAPE), lambda step, t, x: heard.append((t, x))
    )
    torch.testing.assert_close(result, state, rtol=1e-4, atol=1e-4)
    assert [t for t, _ in heard] == sampler_timesteps(sampler, SCHEDULE) == scheduler.timesteps.tolist()
    for (_, ours), expected in zip(heard, given, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "first", "last"),
    [(200, [996, 991], 1), (500, [999, 997], 1), (20, [951, 901], 1), (50, [981, 961], 1)],
)
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
    expected = (
        alphas[0] ** 0.5 * (x - (1 - alphas[1]) ** 0.5 * eps) / alphas[1] ** 0.5
        + (1 - alphas[0]) ** 0.5 * eps
    )
    result = run_sampler(denoise, sampler, SCHEDULE, ImageNoise(0, [0], SHAPE))
    torch.testing.assert_close(result, expected.float(), rtol=1e-4, atol=1e-5)
    run_sampler(
        denoise, sampler.model_copy(update={"steps": 4, "eta": 1.0}), SCHEDULE, Counting(0, [0], SHAPE)
    )
    assert len(draws) == 5


def test_pixels_are_truncated_where_the_original_truncates() -> None:
    images = torch.tensor([-9.0, -1.0, -0.5, 0.0, 0.5, 1.0, 9.0]).reshape(1, 1, 1, 7)
    assert to_uint8(images, "truncate").flatten().tolist() == [0, 0, 63, 127, 191, 255, 255]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "plms", "eta": 0.5, "spacing": "uniform"}, "'plms' is deterministic; set eta: 0"),
        ({"method": "unipc", "spacing": "quadratic"}, "'unipc' has no quadratic spacing"),
        (
            {"method": "euler_ancestral", "eta": 1.0, "spacing": "uniform"},
            "'euler_ancestral' takes no eta; set",
        ),
        (
            {"method": "euler", "spacing": "linspace"},
            "'euler' has no linspace spacing; set spacing: trailing, uniform or uniform_from_one",
        ),
        (
            {"method": "ddim", "spacing": "trailing"},
            "'ddim' has no trailing spacing; set spacing: quadratic, uniform or uniform_from_one",
        ),
    ],
)
def test_settings_of_another_sampler_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Sampler(**settings)


# Where the flow of a perfect denoiser leads from noise of mean 0 at the last timestep: 0.3 less the share of
# it that is in x_T already.
PERFECT = 0.3 - 0.5 * 0.0683 * 0.3


def average(method: str, spacing: str, steps: int) -> tuple[float, float]:
    """The mean and the spread of what a perfect denoiser of N(0.3, 0.5^2) leads to."""
    alphas, schedule = alphas_cumprod(LATENT), LATENT

    def perfect(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha = alphas[t][:, None, None, None]
        return (x - alpha**0.5 * 0.3) * (1 - alpha) ** 0.5 / (alpha * 0.25 + 1 - alpha)

    class Noise(ImageNoise):
        def draw(self) -> torch.Tensor:
            noise = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            return (noise - noise.mean()) / noise.std()

    images = run_sampler(
        perfect, Sampler(method=method, spacing=spacing, steps=steps), schedule, Noise(0, [0], SHAPE)
    )
    return images.mean().item(), images.std().item()


@pytest.mark.parametrize("method", ["ddim", "plms"])
@pytest.mark.parametrize("spacing", ["uniform", "uniform_from_one"])
def test_a_perfect_denoiser_has_its_mean_whatever_the_steps(method: str, spacing: str) -> None:
    for steps in (50, 150, 400, 550):
        mean, spread = average(method, spacing, steps)
        assert mean == pytest.approx(PERFECT, abs=0.003)
        assert spread == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("method", ["dpm_solver++", "unipc"])
def test_a_perfect_denoiser_has_its_mean_with_solvers_too(method: str) -> None:
    for spacing, steps in (
        ("trailing", 20),
        ("trailing", 25),
        ("linspace", 28),
        ("linspace", 30),
        ("trailing", 300),
    ):
        mean, spread = average(method, spacing, steps)
        assert mean == pytest.approx(PERFECT, abs=0.003)
        assert spread == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("method", ["dpm_solver++", "unipc"])
@pytest.mark.parametrize("spacing", ["uniform", "uniform_from_one", "trailing", "linspace"])
def test_every_accepted_list_is_the_schedulers_own_with_falling_finite_noise(
    method: str, spacing: str
) -> None:
    """Over 100 timesteps: all numbers of steps."""
    short = NoiseSchedule(timesteps=100)
    scheduler = make_scheduler(Sampler(method=method, spacing=spacing, steps=10), short)
    accepted = 0
    for steps in range(1, 102):
        sampler = Sampler(method=method, spacing=spacing, steps=steps)
        if step_problem(sampler, 100) is None:
            scheduler.set_timesteps(steps)
            assert scheduler.timesteps.tolist() == sampler_timesteps(sampler, short)
            assert scheduler.sigmas.isfinite().all()
            assert (scheduler.sigmas.diff() < 0).all()
            accepted += 1
    assert accepted == {"uniform": 14, "uniform_from_one": 17, "trailing": 95, "linspace": 99}[spacing]


def test_lists_that_are_not_accepted_are_not_run() -> None:
    sampler = Sampler(method="dpm_solver++", spacing="uniform_from_one", steps=999)
    with pytest.raises(
        EdadmError,
        match=r"sampler: 999 steps of dpm_solver\+\+ with uniform_from_one spacing cannot lead from noise",
    ):
        run_sampler(denoise, sampler, LATENT, ImageNoise(0, [0], SHAPE))
