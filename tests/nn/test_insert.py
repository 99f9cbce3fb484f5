"""Turning a float U-Net into one that quantizes, and the counts of the published runs (acceptance checks 1, 2 and 6)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.schema import Bits, LayerBits
from edadm.deploy.grids import quantized_copy
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.settings.architecture import Architecture
from edadm.networks.units.site import sites_of
from edadm.networks.units.trace import trace
from edadm.nn.attention import QuantizedAttnProcessor
from edadm.nn.insert import (
    activation_quantizers,
    disabled,
    insert_quantizers,
    quantize_network,
    quantized_layers,
    site_schemes,
)
from edadm.nn.layers import QuantizedConv2d, QuantizedLinear
from edadm.quant.policy import policy
from edadm.quant.scheme import SchemeError, SiteScheme

Calibration = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def cifar_w4a8() -> nn.Module:
    """The CIFAR-10 network of the paper, quantized, without memory."""
    with torch.device("meta"):
        unet = build_network(Architecture())
        quantize_network(unet, Bits(weights=4, activations=8), trace(unet).sites)
    return unet


def test_the_cifar_network_has_the_published_number_of_layers_and_quantized_weights(
    cifar_w4a8: nn.Module,
) -> None:
    layers = quantized_layers(cifar_w4a8)
    assert len(layers) == 113
    assert sum(layer.weight.numel() for layer in layers.values()) == 35_691_264
    assert not [m for m in cifar_w4a8.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def test_the_cifar_network_has_the_published_sizes_in_megabytes(cifar_w4a8: nn.Module) -> None:
    weights = sum(layer.weight.numel() for layer in quantized_layers(cifar_w4a8).values())
    parameters = sum(parameter.numel() for parameter in cifar_w4a8.parameters())
    rest = 4 * (parameters - weights)
    sizes = [round(size / 1e6, 1) for size in (4 * parameters, rest + weights, rest + weights / 2)]
    assert sizes == [143.0, 35.9, 18.1]


def test_first_registered_and_last_layer_have_8_bits_and_the_last_one_a_float_input(
    cifar_w4a8: nn.Module,
) -> None:
    layers = quantized_layers(cifar_w4a8)
    assert [name for name, layer in layers.items() if layer.weight_quantizer.bits == 8] == [
        "time_embedding.linear_1",
        "conv_out",
    ]
    assert {layer.weight_quantizer.bits for layer in layers.values()} == {4, 8}
    assert layers["conv_in"].weight_quantizer.bits == 4
    assert [name for name, layer in layers.items() if layer.input_quantizer is None] == ["conv_out"]
    assert {layer.input_quantizer.bits for layer in layers.values() if layer.input_quantizer is not None} == {
        8
    }


def test_twelve_shortcuts_of_the_cifar_network_are_split_in_weight_and_input(cifar_w4a8: nn.Module) -> None:
    split = {
        name: layer
        for name, layer in quantized_layers(cifar_w4a8).items()
        if len(layer.weight_quantizer.segments) > 1
    }
    assert len(split) == 12
    for name, layer in split.items():
        assert name.startswith("up_blocks.")
        assert name.endswith(".conv_shortcut")
        assert layer.input_quantizer is not None
        assert layer.input_quantizer.segments == layer.weight_quantizer.segments
        assert sum(layer.weight_quantizer.segments) == layer.weight.shape[1]
        assert layer.weight_quantizer.scale.shape == (layer.weight.shape[0], 2)


def test_every_attention_of_the_cifar_network_quantizes_its_four_operands(cifar_w4a8: nn.Module) -> None:
    processors = [module for module in cifar_w4a8.modules() if isinstance(module, QuantizedAttnProcessor)]
    assert len(processors) == 6
    operands = [name for name in activation_quantizers(cifar_w4a8) if ".processor." in name]
    assert len(operands) == 4 * 6
    assert len(activation_quantizers(cifar_w4a8)) == 112 + 4 * 6


def test_a_quantized_network_has_the_schemes_of_the_policy(cifar_w4a8: nn.Module) -> None:
    with torch.device("meta"):
        sites = trace(build_network(Architecture())).sites
    assert site_schemes(cifar_w4a8) == policy(sites, Bits(weights=4, activations=8))


def test_parameters_are_those_of_the_float_network(cifar_w4a8: nn.Module) -> None:
    assert sum(parameter.numel() for parameter in cifar_w4a8.parameters()) == 35_746_307


def test_a_layer_can_stay_in_floating_point(float_unet: UNet2DModel, bits: Bits) -> None:
    float_output = LayerBits(weights=None, activations=None)
    unet = quantized_copy(float_unet, bits.model_copy(update={"layers": {"conv_out": float_output}}))
    assert unet.get_submodule("conv_out").weight is float_unet.conv_out.weight
    assert "conv_out" not in quantized_layers(unet)
    assert "conv_in" in quantized_layers(unet)


def test_a_pattern_without_a_layer_is_refused_by_name(float_unet: UNet2DModel) -> None:
    bits = Bits(layers={"conv_ou": LayerBits(weights=8, activations=None)})
    with pytest.raises(EdadmError, match="the pattern 'conv_ou' matches no layer"):
        quantize_network(copy.deepcopy(float_unet), bits, sites_of(float_unet, {}))


def test_splitting_can_be_switched_off(float_unet: UNet2DModel, bits: Bits) -> None:
    unet = quantized_copy(float_unet, bits.model_copy(update={"split_shortcuts": False}))
    assert {len(layer.weight_quantizer.segments) for layer in quantized_layers(unet).values()} == {1}


def test_layers_keep_their_kind(float_unet: UNet2DModel, bits: Bits) -> None:
    layers = quantized_layers(quantized_copy(float_unet, bits))
    for name, layer in layers.items():
        original = float_unet.get_submodule(name)
        assert isinstance(layer, QuantizedConv2d if isinstance(original, nn.Conv2d) else QuantizedLinear)
        assert layer.weight.shape == original.weight.shape


def test_disabled_quantizers_and_float_weights_give_the_float_network_bit_for_bit(
    float_unet: UNet2DModel, gridded: Callable[[], nn.Module], calibration: Calibration
) -> None:
    expected = float_unet(*calibration).sample
    unet = gridded()
    with disabled(unet):
        assert torch.equal(unet(*calibration).sample, expected)
    assert not torch.equal(unet(*calibration).sample, expected)


def test_disabling_restores_what_was_enabled_before(gridded: Callable[[], nn.Module]) -> None:
    unet = gridded()
    quantizers = list(activation_quantizers(unet).values())
    quantizers[3].enabled = False
    with disabled(unet):
        assert not any(quantizer.enabled for quantizer in quantizers)
    assert [index for index, quantizer in enumerate(quantizers) if not quantizer.enabled] == [3]


def test_folding_learned_codes_leaves_the_output_of_the_whole_network_where_it_was(
    gridded: Callable[[], nn.Module], calibration: Calibration
) -> None:
    unet = gridded()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for layer in quantized_layers(unet).values():
            alpha = layer.start_rounding()
            alpha.copy_(torch.where(torch.rand(alpha.shape, generator=generator) < 0.5, -20.0, 20.0))
        on_the_fly = unet(*calibration).sample
        for layer in quantized_layers(unet).values():
            layer.harden()
        assert torch.equal(unet(*calibration).sample, on_the_fly)


def test_the_float_network_survives_its_quantized_copy(
    float_unet: UNet2DModel, gridded: Callable[[], nn.Module], calibration: Calibration
) -> None:
    before = float_unet(*calibration).sample
    unet = gridded()
    for layer in quantized_layers(unet).values():
        layer.set_codes(layer.nearest_codes())
    assert torch.equal(float_unet(*calibration).sample, before)


def test_quantizers_lie_where_the_network_lies(architecture: Architecture, bits: Bits) -> None:
    with torch.device("meta"):
        unet = build_network(architecture)
    quantized = quantized_copy(unet, bits)
    assert {buffer.device.type for buffer in quantized.buffers()} == {"meta"}


def test_a_scheme_that_no_quantizer_computes_is_refused_before_anything_is_replaced(
    float_unet: UNet2DModel,
) -> None:
    sites = sites_of(float_unet, {})
    schemes = policy(sites, Bits())
    other = replace(schemes["conv_in.input"].scheme, granularity="step")
    for given, sentence in (
        (SiteScheme(other, ()), r"conv_in\.input: no code here computes static affine int8 per step; take"),
        (
            replace(schemes["conv_in.input"], segments=(1, 2)),
            r"conv_in\.input: its channels have parts of \(3,\)",
        ),
    ):
        with pytest.raises(SchemeError, match=sentence):
            insert_quantizers(float_unet, sites, schemes | {"conv_in.input": given})
    assert not quantized_layers(float_unet)
