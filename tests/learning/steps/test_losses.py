"""Reconstruction errors."""

from __future__ import annotations

import math

import torch

from edadm.learning.steps.losses import indecision, squared_error


def test_the_error_sums_over_channels_and_averages_over_the_rest() -> None:
    a, b = torch.zeros(2, 3, 4, 5), torch.full((2, 3, 4, 5), 2.0)
    assert squared_error(a, b).item() == 3 * 4
    assert squared_error(a[:, :, 0, 0], b[:, :, 0, 0]).item() == 3 * 4
    b[1] = 0
    assert squared_error(a, b).item() == 3 * 4 / 2


def test_rounding_that_is_decided_costs_nothing_and_the_middle_costs_one() -> None:
    decided, middle = torch.tensor([-20.0, 20.0]), torch.zeros(3)
    assert indecision([decided], torch.tensor(4.0)).item() == 0
    assert math.isclose(indecision([decided, middle], torch.tensor(4.0)).item(), 3.0, rel_tol=1e-6)


def test_a_large_exponent_punishes_nearly_everything_undecided() -> None:
    alpha = torch.linspace(-3, 3, 101)
    assert indecision([alpha], torch.tensor(20.0)) > 1.3 * indecision([alpha], torch.tensor(2.0))


def test_the_regulariser_pushes_rounding_apart() -> None:
    alpha = torch.tensor([-0.5, 0.5], requires_grad=True)
    (gradient,) = torch.autograd.grad(indecision([alpha], torch.tensor(2.0)), alpha)
    assert gradient[0] > 0
    assert gradient[1] < 0
