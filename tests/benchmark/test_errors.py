"""Errors of predictions, step by step."""

from __future__ import annotations

import pytest
import torch

from edadm.benchmark.errors import bias_and_variance, prediction_errors


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_bias_and_variance_are_told_apart() -> None:
    shared, own = 0.3 * drawn(3, 16, 16), 0.2 * drawn(32, 3, 16, 16, seed=1)
    found = bias_and_variance(shared + own, torch.tensor(2.0).double())
    assert found["error"] == pytest.approx((shared + own).square().mean().item() / 2)
    assert found["bias"] + found["variance"] == pytest.approx(found["error"])
    assert found["variance"] == pytest.approx(0.04 / 2, rel=0.05)
    assert found["bias"] == pytest.approx(0.09 / 2, rel=0.1)
    alone = bias_and_variance(own, torch.tensor(1.0).double())
    assert abs(alone["bias"]) < 0.001


def test_every_step_has_the_errors_of_every_network() -> None:
    states = [(drawn(4, 1, 2, 2, seed=step), timestep) for step, timestep in enumerate((900, 100))]
    rivals = {
        "simulated": lambda x, t: x * 1.1,
        "integer": lambda x, t: x + (t[:, None, None, None] > 500) * 0.5,
    }
    found = prediction_errors(lambda x, t: x, rivals, states)
    assert [step["timestep"] for step in found] == [900, 100]
    assert found[0]["errors"]["simulated"]["error"] == pytest.approx(0.01)
    assert found[1]["errors"]["integer"] == {"error": 0.0, "bias": 0.0, "variance": 0.0}
    shifted = found[0]["errors"]["integer"]
    assert shifted["bias"] == pytest.approx(0.25 / states[0][0].square().mean().item())
    assert shifted["variance"] == pytest.approx(0, abs=1e-12)
