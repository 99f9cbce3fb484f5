"""Networks whose weights do not matter but for their size."""

from __future__ import annotations

import torch
from torch import nn

from edadm.networks.families import network_call
from edadm.networks.inputs import InputSpec
from edadm.networks.random_weights import random_autoencoder, random_network, randomised
from edadm.stages.cost.networks import Networks

from .families import tiny


def test_matrices_have_unit_gain_norms_are_one_and_biases_zero() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(16, 64, 3), nn.GroupNorm(4, 64))
    convolution, norm = randomised(network, "cpu")
    assert abs(convolution.weight.std().item() * (16 * 9) ** 0.5 - 1) < 0.05
    assert convolution.bias.abs().max() == 0
    assert (norm.weight == 1).all()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not convolution.training


def test_the_same_seed_gives_the_same_network_and_its_output_is_finite_and_not_constant() -> None:
    model = tiny("sd14_coco")
    inputs = InputSpec.of(model).random(2, "cpu")
    first, again, other = (network_call(random_network(model, "cpu", seed), inputs) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.isfinite().all()
    assert 0.1 < first.std() < 10
    assert (
        sum(parameter.numel() for parameter in random_autoencoder(model, "cpu").parameters())
        == Networks(model).decoder_parameters
    )
