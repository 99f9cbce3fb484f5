"""Quantized convolutions and linear layers (acceptance checks 3 and 6)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.nn.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from edadm.passes.ranges import set_weight_grid

from ..conftest import reinitialise

KINDS = ["conv", "strided", "linear", "split"]


def made(kind: str, bits: int = 4) -> tuple[nn.Module, QuantizedLayer, Tensor]:
    """A float layer, its quantized layer with grids set, and an input."""
    generator = torch.Generator().manual_seed(3)
    channels = 10 if kind == "split" else 6
    x = torch.randn(4, channels, 8, 8, generator=generator)
    if kind == "linear":
        layer, x = nn.Linear(6, 5), x[:, :, 0, 0]
        quantized: QuantizedLayer = QuantizedLinear(layer, bits, 8, (6,))
    else:
        padding = 0 if kind == "split" else 1
        layer = nn.Conv2d(
            channels, 5, 1 if kind == "split" else 3, stride=2 if kind == "strided" else 1, padding=padding
        )
        quantized = QuantizedConv2d(layer, bits, 8, (4, 6) if kind == "split" else (channels,))
    reinitialise(layer, 1)
    set_weight_grid(quantized)
    assert quantized.input_quantizer is not None
    segments = len(quantized.input_quantizer.segments)
    quantized.input_quantizer.set_grid(torch.linspace(0.02, 0.03, segments), torch.full((segments,), 128.0))
    return layer, quantized, x


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_with_disabled_quantizers_and_float_weights_is_the_float_layer(kind: str) -> None:
    layer, quantized, x = made(kind)
    assert quantized.input_quantizer is not None
    quantized.input_quantizer.enabled = False
    assert torch.equal(quantized(x), layer(x))


@pytest.mark.parametrize("kind", KINDS)
def test_folded_weights_give_what_quantizing_the_weight_at_every_call_gives(kind: str) -> None:
    layer, quantized, x = made(kind)
    on_the_fly = quantized.weight_quantizer.values(quantized.weight_quantizer.codes(layer.weight))
    expected = quantized.operation(quantized.quantize_input(x), on_the_fly)
    quantized.set_codes(quantized.nearest_codes())
    assert torch.equal(quantized(x), expected)
    assert not torch.equal(quantized.weight, layer.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_soft_rounding_starts_at_the_float_weight_inside_the_clip_range(kind: str) -> None:
    layer, quantized, _ = made(kind)
    quantized.start_rounding()
    scale, zero_point = quantized.weight_quantizer.grid(layer.weight.dim())
    low, high = -zero_point * scale, (15 - zero_point) * scale
    inside = (layer.weight >= low) & (layer.weight <= high)
    assert 0.5 < inside.float().mean() < 1
    torch.testing.assert_close(quantized.soft_weight()[inside], layer.weight[inside], rtol=0, atol=1e-5)
    ends = torch.minimum(torch.maximum(layer.weight, low), high)
    torch.testing.assert_close(quantized.soft_weight(), ends, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_hardening_without_learning_rounds_to_nearest(kind: str) -> None:
    _, quantized, _ = made(kind)
    nearest = quantized.nearest_codes()
    quantized.start_rounding()
    quantized.harden()
    assert quantized.codes is not None
    assert torch.equal(quantized.codes, nearest)
    assert quantized.alpha is None


@pytest.mark.parametrize("kind", KINDS)
def test_hardening_saturated_roundings_changes_no_output(kind: str) -> None:
    _, quantized, x = made(kind)
    alpha = quantized.start_rounding()
    with torch.no_grad():
        alpha.copy_(
            torch.where(
                torch.rand(alpha.shape, generator=torch.Generator().manual_seed(8)) < 0.5, -20.0, 20.0
            )
        )
    soft = quantized(x).detach()
    quantized.harden()
    assert torch.equal(quantized(x), soft)


def test_codes_fill_the_grid_and_nothing_beyond() -> None:
    _, quantized, _ = made("conv", bits=3)
    codes = quantized.nearest_codes()
    assert codes.dtype == torch.uint8
    assert codes.min() == 0
    assert codes.max() == 7


def test_the_gradient_reaches_alpha_and_the_input_scale_but_no_frozen_parameter() -> None:
    _, quantized, x = made("conv")
    alpha = quantized.start_rounding()
    assert quantized.input_quantizer is not None
    scale = quantized.input_quantizer.scale.clone().requires_grad_()
    quantized.input_quantizer.scale = scale
    quantized(x).square().sum().backward()
    assert alpha.grad is not None
    assert alpha.grad.abs().sum() > 0
    assert scale.grad is not None
    assert scale.grad.abs().sum() > 0
    assert quantized.weight.grad is None


def test_the_float_layer_keeps_its_weight_when_codes_are_folded() -> None:
    layer, quantized, x = made("conv")
    before, output = layer.weight.detach().clone(), layer(x)
    quantized.set_codes(quantized.nearest_codes())
    assert torch.equal(layer.weight, before)
    assert torch.equal(layer(x), output)


def test_without_input_bits_the_input_stays_float() -> None:
    layer = nn.Conv2d(3, 4, 3)
    quantized = QuantizedConv2d(layer, 8, None, (3,))
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert quantized.quantize_input(x) is x
    assert torch.equal(quantized(x), F.conv2d(x, layer.weight, layer.bias))
