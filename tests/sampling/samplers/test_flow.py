"""Flow matching: diffusers' scheduler step by step, what is stored of it, and settings that do not meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from pydantic import ValidationError

from edadm.config.load import load_config
from edadm.config.rules.steps import step_problem
from edadm.config.schema import Model, NoiseSchedule, Sampler
from edadm.errors import EdadmError
from edadm.networks.inputs import Rows
from edadm.sampling.denoiser import Prediction
from edadm.sampling.generate import run_sampler
from edadm.sampling.noise import ImageNoise
from edadm.sampling.schedule import alphas_cumprod, sampler_timesteps
from edadm.sampling.store import TrajectoryStore

SHAPE = (2, 4, 4)
SCHEDULE = NoiseSchedule(kind="flow")
DYNAMIC = {"tokens": 1024, "base_shift": 0.5, "max_shift": 1.15}
FLOW = {"prediction": "flow", "schedule": {"kind": "flow"}}


def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.tanh(0.7 * x + 0.2 * x.flip(1)) + (t / 1000 - 0.5)[:, None, None, None] * 0.1


@pytest.mark.parametrize(
    ("own", "theirs", "given"),
    [
        ({"spacing": "linspace"}, {}, {}),
        ({"spacing": "linspace", "shift": 3.0}, {"shift": 3.0}, {}),
        ({"spacing": "trailing", "shift": 3.0}, {"shift": 3.0}, {"sigmas": "trailing"}),
        ({"spacing": "linspace", "dynamic_shift": DYNAMIC}, {"use_dynamic_shifting": True}, {"mu": True}),
        (
            {"spacing": "trailing", "dynamic_shift": DYNAMIC},
            {"use_dynamic_shifting": True, "shift": 3.0},
            {"mu": True, "sigmas": "trailing"},
        ),
        (
            {"spacing": "trailing", "dynamic_shift": DYNAMIC | {"kind": "linear"}},
            {"use_dynamic_shifting": True, "time_shift_type": "linear"},
            {"mu": True, "sigmas": "trailing"},
        ),
    ],
)
@pytest.mark.parametrize("steps", [1, 7, 28])
def test_every_step_is_the_one_of_diffusers(
    own: dict[str, Any], theirs: dict[str, Any], given: dict[str, Any], steps: int
) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**theirs)
    told = {"mu": calculate_shift(1024, 256, 4096, 0.5, 1.15)} if "mu" in given else {}
    if "sigmas" in given:  # as FLUX's pipeline calls it
        told["sigmas"] = torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist()
    scheduler.set_timesteps(steps, **told)
    states = [ImageNoise(5, [0, 1], SHAPE).draw()]
    for t in scheduler.timesteps:
        found = predict(states[-1], t.repeat(2))
        states.append(scheduler.step(found, t, states[-1], return_dict=False)[0])
    sampler, heard = Sampler(method="flow_euler", steps=steps, **own), []
    last = run_sampler(
        predict, sampler, SCHEDULE, ImageNoise(5, [0, 1], SHAPE), lambda step, t, x: heard.append((t, x))
    )
    for (_, ours), expected in zip([*heard, (0.0, last)], states, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    times = torch.tensor([t for t, _ in heard])
    torch.testing.assert_close(times, scheduler.timesteps, rtol=1e-6, atol=1e-4)
    assert [t for t, _ in heard] == sampler_timesteps(sampler, SCHEDULE) == times.tolist()
    assert len(set(times.tolist())) == steps


def test_a_flow_is_taken_as_it_is_and_its_times_stay_whole_in_half_precision() -> None:
    flow, t = torch.randn(2, *SHAPE), torch.tensor([1000.0, 913.3489])
    preset = Model.model_validate(
        {"checkpoint": "x", **FLOW, "sampler": {"method": "flow_euler", "spacing": "linspace"}}
    )
    assert torch.equal(Prediction.of(preset).eps(flow, torch.randn(2, *SHAPE), t), flow)
    cast = Rows({"latents": flow, "timesteps": t}).cast(torch.bfloat16)
    assert cast.latents.dtype == torch.bfloat16
    assert torch.equal(cast.timesteps, t)


def test_a_store_keeps_fractions_of_timesteps_and_whole_ones_as_before(tmp_path: Path) -> None:
    listed = sampler_timesteps(Sampler(method="flow_euler", steps=5, spacing="linspace", shift=3.0), SCHEDULE)
    kept = TrajectoryStore.create(tmp_path / "a", 0, 2, 2, listed, SHAPE).group["timesteps"]
    assert kept[:].tolist() == listed
    assert any(t != int(t) for t in listed)
    assert (
        TrajectoryStore.create(tmp_path / "b", 0, 2, 2, [800, 1], SHAPE).group["timesteps"].dtype == "int64"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"prediction": "flow"},
            "there is prediction: flow; set schedule.kind: flow and sampler.method: flow_",
        ),
        (FLOW, "there is prediction: flow and schedule.kind: flow; set sampler.method: flow_euler, too"),
        (
            {"sampler": {"method": "flow_euler", "spacing": "linspace"}},
            "there is sampler.method: flow_euler; set prediction: flow and schedule.kind: flow",
        ),
    ],
)
def test_parts_of_a_flow_with_others_are_refused_where_all_are_seen(
    changes: dict[str, Any], said: str
) -> None:
    known = load_config()
    model = known.models["cifar10_small"].model_dump(mode="json") | changes
    variant = f"{next(iter(known.calibrations))}/{next(iter(known.bits))}/{next(iter(known.reconstructions))}"
    with pytest.raises(EdadmError, match=said):
        load_config({"models": {"mine": model}, "runs": [{"model": "mine", "variants": [variant]}]})
    part = {name: model[name] for name in ("architecture", "prediction", "schedule")}  # as a stage sees it
    assert Model.model_validate({"checkpoint": "x"} | part).prediction == model["prediction"]


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ({"method": "ddim", "shift": 3.0}, "'ddim' has no shift; remove it, or set method: flow_euler"),
        ({"method": "flow_euler"}, "no quadratic spacing; set spacing: linspace or trailing"),
        (
            {"method": "flow_euler", "spacing": "trailing", "shift": 3.0, "dynamic_shift": DYNAMIC},
            "shifted once; remove shift or dynamic_shift",
        ),
        (
            {"method": "flow_euler", "spacing": "trailing", "dynamic_shift": {"tokens": 10**8}},
            "which must lie above 0 and be 1000 at most",
        ),
    ],
)
def test_settings_of_another_sampler_are_refused(sampler: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Sampler.model_validate(sampler)


def test_more_steps_than_timesteps_are_refused_and_a_flow_has_no_betas() -> None:
    sampler = Sampler(method="flow_euler", steps=30, spacing="linspace")
    assert step_problem(sampler, 1000) is None
    assert step_problem(sampler, 20) == "a flow over 20 timesteps has at most 20 steps; lower steps"
    assert len(alphas_cumprod(SCHEDULE)) == 0


def test_corrections_of_a_predicted_noise_are_refused() -> None:
    known = load_config()
    model = known.models["cifar10_small"].model_dump(mode="json") | FLOW
    model["sampler"] = {"method": "flow_euler", "spacing": "linspace", "steps": 5}
    corrected = {"base": next(iter(known.reconstructions)), "correction": "ptqd"}
    variant = f"{next(iter(known.calibrations))}/{next(iter(known.bits))}/mine"
    settings = {
        "models": {"mine": model},
        "reconstructions": {"mine": corrected},
        "runs": [{"model": "mine", "variants": [variant]}],
    }
    with pytest.raises(EdadmError, match=r"'ptqd' is of a predicted noise, and models\.mine predicts a flow"):
        load_config(settings)
