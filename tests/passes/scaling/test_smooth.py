"""Smoothing: exact in floating point, and less error on the grids."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.nn.insert import disabled, quantized_layers
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from edadm.passes.prepare import prepare
from edadm.passes.ranges import observing, set_weight_grid
from edadm.passes.scaling.smooth import smooth
from edadm.quant import ranges as ranges_module
from edadm.quant.observer import RunningRange
from edadm.quant.transforms import smoothing_exponents

from ...conftest import as_rows, reinitialise

Calibration = tuple[Tensor, Tensor]
SMOOTH = Bits(weights=4, activations=8, range_batch_size=4, range_bins=64, smoothing=0.5)


@pytest.fixture
def uneven(calibration: Calibration) -> Rows:
    """Calibration rows whose first channel is 50 times as large as the others."""
    return as_rows((calibration[0] * torch.tensor([50.0, 1, 1])[:, None, None], calibration[1]))


@torch.no_grad()
def test_the_network_in_floating_point_stays_as_it_is(float_unet: UNet2DModel, uneven: Rows) -> None:
    unet, rows = quantized_copy(float_unet, SMOOTH), []
    before = {name: layer.weight.clone() for name, layer in quantized_layers(unet).items()}
    smooth(unet, uneven, SMOOTH, rows.append)
    assert rows == [4, 4]
    plain = quantized_copy(float_unet, SMOOTH.model_copy(update={"smoothing": None}))
    with disabled(unet), disabled(plain):
        found, expected = network_call(unet, uneven), network_call(plain, uneven)
    assert torch.equal(found, expected)
    torch.testing.assert_close(found, network_call(float_unet, uneven), rtol=1e-5, atol=1e-5)
    for name, layer in quantized_layers(unet).items():
        assert torch.equal(float_unet.get_submodule(name).weight, before[name]), name  # which it shares
        assert torch.equal(layer.unsmoothed_weight, before[name]), name
        assert (layer.smooth is None) == (name == "conv_out"), name  # the one whose input has no grid
    assert not torch.equal(unet.conv_in.weight, before["conv_in"])


def test_factors_come_from_the_largest_inputs_and_weights_of_each_channel(
    float_unet: UNet2DModel, uneven: Rows
) -> None:
    unet = quantized_copy(float_unet, SMOOTH)
    smooth(unet, uneven, SMOOTH)
    largest = uneven.latents.abs().amax((0, 2, 3)), float_unet.conv_in.weight.abs().amax((0, 2, 3))
    assert torch.equal(unet.conv_in.smoothing, smoothing_exponents(*largest, 0.5))
    assert unet.conv_in.smoothing[0] > unet.conv_in.smoothing[1:].max()


def test_layers_that_one_norm_feeds_have_the_same_factors(float_unet: UNet2DModel, uneven: Rows) -> None:
    bits = SMOOTH.model_copy(update={"smoothing_layers": {"mid_block.*.to_v": 1.0, "up_*": None}})
    unet, inputs = quantized_copy(float_unet, bits), []
    attention = float_unet.mid_block.attentions[0]
    handle = attention.to_q.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        network_call(float_unet, uneven)
    handle.remove()
    smooth(unet, uneven, bits)
    of_inputs = inputs[0].abs().amax((0, 1))
    both = torch.stack([attention.to_q.weight, attention.to_k.weight]).abs().amax((0, 1))
    layers = unet.mid_block.attentions[0]
    expected = smoothing_exponents(of_inputs, both, 0.5).int()
    for layer in (layers.to_q, layers.to_k):
        assert (layer.smoothing - expected).abs().max() <= 1  # two near a half may round apart
    assert torch.equal(layers.to_q.smoothing, layers.to_k.smoothing)
    alone = smoothing_exponents(of_inputs, attention.to_v.weight.abs().amax(0), 1.0).int()
    assert (layers.to_v.smoothing - alone).abs().max() <= 1
    assert {layer.smooth for name, layer in quantized_layers(unet).items() if name[:3] == "up_"} == {None}


def test_ranges_are_searched_on_smoothed_inputs(
    float_unet: UNet2DModel, uneven: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges_module, "THRESHOLDS", 10)
    unet, rows = quantized_copy(float_unet, SMOOTH), []
    prepare(unet, uneven, SMOOTH, rows.append)
    assert rows == [4, 4, 4, 4]
    grid, expected = unet.conv_in.input_quantizer, RunningRange(8, SMOOTH.range_momentum, SMOOTH.range_bins)
    for part in uneven.latents.split(4):
        scale, _ = expected.update(part / unet.conv_in.smooth[:, None, None])
    assert grid.scale.item() == pytest.approx(scale.item())
    layer = copy.deepcopy(float_unet.conv_in)
    layer.weight.data = layer.weight.data * unet.conv_in.smooth[:, None, None]
    smoothed = QuantizedConv2d(layer, 4, 8, (3,))
    set_weight_grid(smoothed, off_centre=True)
    assert torch.equal(unet.conv_in.weight_quantizer.scale, smoothed.weight_quantizer.scale)
    assert torch.equal(unet.conv_in.codes, smoothed.nearest_codes())

    again = quantized_copy(float_unet, SMOOTH)
    set_grids(again, grids(unet))  # as from the file of `set-ranges`
    for name, layer in quantized_layers(again).items():
        layer.set_codes(layer.nearest_codes())
        assert torch.equal(layer.weight, unet.get_submodule(name).weight), name


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Linear])
@torch.no_grad()
def test_the_error_of_a_layer_with_an_outlier_channel_falls(kind: type[nn.Module]) -> None:
    layer = nn.Conv2d(16, 24, 3, padding=1) if kind is nn.Conv2d else nn.Linear(16, 24)
    reinitialise(layer, 0)
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    x[:, 3] *= 100
    x = x.reshape(4, 16, 16).transpose(1, 2).reshape(4, 16, 4, 4) if kind is nn.Conv2d else x

    def error(transforms: tuple[str, ...]) -> float:
        quantized_kind = QuantizedConv2d if kind is nn.Conv2d else QuantizedLinear
        quantized: QuantizedLayer = quantized_kind(layer, 8, 8, (16,), transforms)
        if transforms:
            weight = layer.weight.transpose(0, 1).flatten(1).abs().amax(1)
            inputs = (x.transpose(0, 1).flatten(1) if kind is nn.Conv2d else x.T).abs().amax(1)
            quantized.set_smoothing(smoothing_exponents(inputs, weight, 0.5))
        set_weight_grid(quantized)
        quantized.set_codes(quantized.nearest_codes())
        with observing(quantized, Bits()):
            found = quantized(x)
        return (found - layer(x)).square().mean().item()

    assert error(("smooth",)) < 0.15 * error(())


def test_nothing_happens_where_no_layer_is_smoothed(float_unet: UNet2DModel, uneven: Rows) -> None:
    bits, rows = Bits(smoothing_layers={"conv_in": None}), []
    unet = quantized_copy(float_unet, bits)
    smooth(unet, uneven, bits, rows.append)
    assert rows == []
    assert not [name for name in grids(unet) if name.endswith(".smooth")]


def test_numbers_that_are_not_finite_are_refused_by_name(float_unet: UNet2DModel, uneven: Rows) -> None:
    rows = uneven.latents.clone()
    rows[3, 0, 0, 0] = torch.inf
    unet = quantized_copy(float_unet, SMOOTH)
    with pytest.raises(EdadmError, match="the input of conv_in is not finite; look for such numbers"):
        smooth(unet, as_rows((rows, uneven.timesteps)), SMOOTH)
    unet.conv_in.weight = nn.Parameter(unet.conv_in.weight * torch.nan, requires_grad=False)
    with pytest.raises(EdadmError, match=r"conv_in\.weight holds nan; convert the checkpoint again"):
        smooth(unet, uneven, SMOOTH)
