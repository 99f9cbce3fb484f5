"""Reconstruction errors."""

from __future__ import annotations

import pytest
import torch

from edadm.reconstruction.losses import reconstruction_error, squared_error


def test_the_error_sums_over_channels_and_averages_over_the_rest() -> None:
    a, b = torch.zeros(2, 3, 4, 5), torch.full((2, 3, 4, 5), 2.0)
    assert squared_error(a, b).item() == 3 * 4
    assert squared_error(a[:, :, 0, 0], b[:, :, 0, 0]).item() == 3 * 4
    b[1] = 0
    assert squared_error(a, b).item() == 3 * 4 / 2


@pytest.mark.parametrize("gamma", [0.0, 0.8, 3.0])
def test_the_objective_adds_gamma_times_the_inner_errors(gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    output, target, first, second = (torch.randn(2, 3, 4, generator=generator) for _ in range(4))
    loss = reconstruction_error(output, target, [first, second], [second, target], gamma)
    expected = squared_error(output, target) + gamma * (squared_error(first, second) + squared_error(second, target))
    torch.testing.assert_close(loss, expected)


def test_without_gamma_inner_outputs_get_no_gradient() -> None:
    inner = torch.ones(1, 2, requires_grad=True)
    output = torch.ones(1, 2, requires_grad=True)
    reconstruction_error(output, torch.zeros(1, 2), [inner], [torch.zeros(1, 2)], 0.0).backward()
    assert inner.grad is None
    assert output.grad is not None
