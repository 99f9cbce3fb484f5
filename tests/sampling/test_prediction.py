"""Networks that predict velocities or images make the images that diffusers makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor, nn

from edadm.config.schema import NoiseSchedule, Sampler
from edadm.sampling.denoiser import Denoiser, Kind, Prediction
from edadm.sampling.generate import run_sampler
from edadm.sampling.noise import ImageNoise
from edadm.sampling.schedule import alphas_cumprod

NAMES = {"eps": "epsilon", "v": "v_prediction", "sample": "sample"}
BETAS = torch.linspace(1e-3, 2e-2, 40, dtype=torch.float64).tolist()
SCHEDULES: dict[str, tuple[NoiseSchedule, dict[str, Any]]] = {
    "roots": (
        NoiseSchedule(kind="sqrt_linear", timesteps=40),
        {"beta_schedule": "scaled_linear", "num_train_timesteps": 40},
    ),
    "cosine": (
        NoiseSchedule(kind="cosine", timesteps=40),
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 40},
    ),
    "trained": (
        NoiseSchedule(kind="trained", timesteps=40, betas=tuple(BETAS)),
        {"trained_betas": BETAS, "num_train_timesteps": 40},
    ),
}


class Network(nn.Module):
    """A small function of image, time and condition, called as U-Nets are."""

    family = "transformer"

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor | None = None, return_dict: bool = True
    ) -> tuple[Tensor]:
        found = 0.8 * torch.tanh(x.flip(-1)) + 0.01 * t[:, None, None, None]
        return (found if context is None else found + context.mean((1, 2))[:, None, None, None],)


class Condition:
    """Rows of zeros where nothing is said."""

    def rows(self, indices: list[int]) -> dict[str, Tensor]:
        return {"context": torch.ones(len(indices), 2, 3) * 0.3}

    def unconditional(self) -> dict[str, Tensor]:
        return {"context": torch.zeros(1, 2, 3)}


def noise() -> ImageNoise:
    return ImageNoise(0, [0, 1], (3, 4, 4), "cpu")


def ours(kind: Kind, schedule: NoiseSchedule, method: Any, guidance: float) -> Tensor:
    condition: Any = Condition() if guidance != 1 else None
    denoise = Denoiser(
        Network(), condition, guidance, prediction=Prediction(kind, alphas_cumprod(schedule))
    ).on([0, 1])
    return run_sampler(
        denoise,
        Sampler(method=method, steps=8, spacing="uniform" if method == "ddim" else "trailing"),
        schedule,
        noise(),
    )


def theirs(kind: Kind, scheduler: Any, guidance: float) -> Tensor:
    x, network = noise().draw(), Network()
    for t in scheduler.timesteps:
        times = t.expand(2)
        if guidance == 1:
            (predicted,) = network(x, times)
        else:
            (without,), (given,) = (
                network(x, times, torch.zeros(2, 2, 3)),
                network(x, times, torch.ones(2, 2, 3) * 0.3),
            )
            predicted = without + guidance * (given - without)
        x = scheduler.step(predicted, t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", ["eps", "v", "sample"])
def test_ddim_is_diffusers_own(kind: Kind, name: str, guidance: float) -> None:
    schedule, settings = SCHEDULES[name]
    scheduler = DDIMScheduler(**settings, clip_sample=False, prediction_type=NAMES[kind])
    scheduler.set_timesteps(8)
    found, expected = ours(kind, schedule, "ddim", guidance), theirs(kind, scheduler, guidance)
    assert ((found - expected).norm() / expected.norm()).item() < 2e-5


@pytest.mark.parametrize("kind", ["eps", "v", "sample"])
def test_dpm_solver_is_diffusers_own(kind: Kind) -> None:
    schedule, settings = SCHEDULES["trained"]
    scheduler = DPMSolverMultistepScheduler(
        **settings, prediction_type=NAMES[kind], timestep_spacing="trailing"
    )
    scheduler.set_timesteps(8)
    found, expected = ours(kind, schedule, "dpm_solver++", 1.0), theirs(kind, scheduler, 1.0)
    assert ((found - expected).norm() / expected.norm()).item() < 2e-5


def test_what_is_known_of_betas_is_known_without_torch() -> None:
    from edadm.config.betas import betas_of

    for schedule, settings in SCHEDULES.values():
        expected = DDIMScheduler(**settings).betas.double()
        assert torch.allclose(
            torch.tensor(betas_of(schedule), dtype=torch.float64), expected, rtol=1e-5, atol=0
        )
    linear = NoiseSchedule(timesteps=50)
    kept = torch.cumprod(1 - torch.tensor(betas_of(linear), dtype=torch.float64), 0)
    assert torch.allclose(kept, alphas_cumprod(linear), rtol=1e-12, atol=0)
