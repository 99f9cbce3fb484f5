"""What the weights of single layers cost in images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edadm.benchmark.sensitivity import LayerCost, layer_costs, worth_sparing
from edadm.nn.layers import QuantizedLinear


def network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)]
    for layer in layers:
        layer.weight.data = torch.randn(8, 8, generator=generator)
    return nn.Sequential(
        *(QuantizedLinear(layer, bits, 8, (8,)) for layer, bits in zip(layers, (2, 8), strict=True))
    )


def test_every_layer_is_quantized_alone_and_left_as_it_was() -> None:
    unet, x = network(), torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    before, exact = [layer.weight.clone() for layer in unet], (unet[1].weight @ unet[0].weight @ x.T).T
    seen = []

    def sample(module: nn.Module) -> torch.Tensor:
        seen.append(module(x))
        return seen[-1][:, :, None, None]

    costs = layer_costs(unet, sample)
    assert [(cost.name, cost.weights, cost.bits) for cost in costs] == [("0", 64, 2), ("1", 64, 8)]
    torch.testing.assert_close(seen[0], exact)
    narrow = (unet[1].weight @ unet[0].weight_quantizer.values(unet[0].nearest_codes()) @ x.T).T
    torch.testing.assert_close(seen[1], narrow)
    assert costs[0].error == pytest.approx((narrow - exact).square().mean(1).median().item(), rel=1e-4)
    assert costs[0].error > 100 * costs[1].error > 0
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(unet, before, strict=True))
    assert all(layer.codes is None for layer in unet)


def test_bytes_go_where_they_spare_most() -> None:
    costs = [
        LayerCost("small", 100, 4, 1.0),  # 50 further bytes
        LayerCost("large", 1000, 4, 2.0),  # 500
        LayerCost("wide", 100, 8, 9.0),  # has 8 bits
        LayerCost("quiet", 100, 4, 0.001),
    ]
    assert worth_sparing(costs, 0.0) == []
    assert worth_sparing(costs, 60 / 700) == ["small"]
    assert worth_sparing(costs, 100 / 700) == ["small", "quiet"]
    assert worth_sparing(costs, 1.0) == ["small", "large", "quiet"]
