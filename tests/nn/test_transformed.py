"""Grids of tokens, rotated layers, and layers beside a low-rank branch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.errors import EdadmError
from edadm.nn.token_quantizer import TokenQuantizer
from edadm.nn.transformed import TransformedLinear
from edadm.passes.low_rank import low_rank
from edadm.passes.ranges import set_weight_grid


def _layer(transforms: tuple[str, ...], bits: int = 4, is_dynamic: bool = True) -> TransformedLinear:
    torch.manual_seed(1)
    return TransformedLinear(nn.Linear(16, 6), bits, bits, transforms, is_dynamic)


def _inputs(outlier: float = 1.0) -> Tensor:
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(2))
    return x * torch.where(torch.arange(16) == 3, outlier, 1.0)


def test_each_token_lies_on_a_grid_of_its_own() -> None:
    x = torch.tensor([[7.0, -3.4, 0.6], [0.7, -0.34, 0.06], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[7.0, -3, 1], [0.7, -0.3, 0.1], [0, 0, 0]])
    torch.testing.assert_close(TokenQuantizer(4)(x), expected)
    torch.testing.assert_close(TokenQuantizer(8).scales(x)[:2], torch.tensor([[7.0], [0.7]]) / 127)


def test_gradients_pass_the_grid_straight_and_a_disabled_one_does_nothing() -> None:
    x, quantizer = _inputs().requires_grad_(), TokenQuantizer(4)
    (quantizer(x) * torch.arange(16.0)).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.arange(16.0).expand(2, 5, 16))
    quantizer.enabled = False
    assert quantizer(x) is x


@torch.no_grad()
@pytest.mark.parametrize(
    "transforms", [("hadamard",), ("low_rank",), ("smooth", "regular_hadamard", "low_rank")]
)
def test_what_a_layer_computes_in_floating_point_stays(transforms: tuple[str, ...]) -> None:
    layer, x = _layer(transforms), _inputs()
    expected, weight = F.linear(x, layer.weight, layer.bias), layer.weight.clone()
    assert layer.input_quantizer is not None
    layer.input_quantizer.enabled = False
    assert torch.equal(layer(x), expected)  # nothing is transformed until it is told to
    if "smooth" in transforms:
        layer.set_smoothing((torch.arange(16) % 5 - 2).to(torch.int8))
    layer.rotate()
    if layer.has_branch:
        layer.set_branch(*low_rank(layer.weight, 2))
    assert not torch.equal(layer.weight, weight)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.unsmoothed_weight, weight, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_rotation_spares_the_other_channels_an_outlier() -> None:
    x, errors = _inputs(outlier=12.0), {}
    for transforms in ((), ("hadamard",), ("regular_hadamard",)):
        layer = _layer(transforms)
        expected = F.linear(x, layer.weight, layer.bias)
        layer.rotate()
        errors[transforms] = (layer(x) - expected).square().mean().item()  # weights are not rounded
    assert max(errors["hadamard",], errors["regular_hadamard",]) < 0.5 * errors[()]


@torch.no_grad()
def test_a_branch_takes_a_large_direction_off_the_rounded_weight() -> None:
    direction = torch.outer(torch.linspace(1, 2, 6), torch.linspace(-3, 3, 16))
    errors = []
    for transforms in ((), ("low_rank",)):
        layer, x = _layer(transforms), _inputs()
        layer.weight.data = layer.weight + direction
        expected = F.linear(x, layer.weight)
        if layer.has_branch:
            down, up = low_rank(layer.weight, 1)
            assert (down.dtype, down.shape, up.shape) == (torch.float16, (1, 16), (6, 1))
            torch.testing.assert_close(up.float() @ down.float(), direction, rtol=0.2, atol=0.5)
            layer.set_branch(down, up)
        set_weight_grid(layer)
        layer.set_codes(layer.nearest_codes())
        assert layer.input_quantizer is not None
        layer.input_quantizer.enabled = False
        errors.append((layer(x) - layer.bias - expected).square().mean().item())
    assert errors[1] < 0.2 * errors[0]


def test_the_best_approximation_of_low_rank_is_the_truncated_decomposition() -> None:
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(3))
    down, up = low_rank(weight, 2)
    values = torch.linalg.svdvals(weight)
    rest = (weight - up.float() @ down.float()).square().sum()
    torch.testing.assert_close(rest, values[2:].square().sum(), rtol=1e-2, atol=0)
    assert [tuple(factor.shape) for factor in low_rank(weight, 99)] == [(6, 16), (6, 6)]


def test_a_branch_of_another_layer_is_refused_and_no_cast_rounds_it() -> None:
    layer = _layer(("low_rank",))
    down, up = low_rank(layer.weight.detach(), 2)
    for wrong in ((down[:, :8], up), (down, up[:3]), (down.float(), up)):
        with pytest.raises(ValueError, match="branch"):
            layer.set_branch(*wrong)
    layer.set_branch(down, up)
    layer.to(torch.bfloat16)
    assert layer.down is not None
    assert layer.up is not None
    assert torch.equal(layer.down, down)
    assert torch.equal(layer.up, up)
    assert layer(_inputs().to(torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(EdadmError, match="takes 16 channels and was given 8"):
        layer(_inputs()[..., :8].to(torch.bfloat16))
