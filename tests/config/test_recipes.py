"""The presets of the project's own recipe."""

from __future__ import annotations

import pytest

from edadm.config.load import load_config
from edadm.config.schema import Model
from edadm.deploy.grids import quantized_copy
from edadm.networks.build import build_network
from edadm.networks.unet.base import UNet
from edadm.nn.insert import activation_quantizers, quantized_layers

PRESETS = load_config()
RECIPES = {"edadm_w8a8": (8, 8), "edadm_w4a8": (4, 8), "edadm_w4a6": (4, 6), "edadm_w4a8_small": (4, 8)}


def network(model: Model) -> UNet:
    import torch

    with torch.device("meta"):
        return build_network(model.architecture)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_loud_stays_in_floating_point(name: str) -> None:
    weights, activations = RECIPES[name]
    unet = network(PRESETS.models["cifar10_small" if name.endswith("small") else "ddim_cifar10"])
    quantized = quantized_copy(unet, PRESETS.bits[name])
    layers, grids = quantized_layers(quantized), activation_quantizers(quantized)
    assert not {"conv_in", "conv_out"} & layers.keys()
    assert not any("softmax" in grid for grid in grids)
    plain = layers["mid_block.resnets.0.conv1"]
    assert plain.input_quantizer is not None
    assert (plain.weight_quantizer.bits, plain.input_quantizer.bits) == (weights, activations)
    wide = sum(layer.weight.numel() for layer in layers.values() if layer.weight_quantizer.bits > weights)
    total = sum(layer.weight.numel() for layer in layers.values())
    assert wide / total < 0.032  # 4 bits more of 3 % of the weights' bytes, and the first layer of the time


@pytest.mark.parametrize(
    ("name", "expected"), [("edadm_w8", 0.0), ("edadm_w4", 0.01), ("edadm_w4_small", 0.01)]
)
def test_four_bits_are_learned_with_the_regulariser_and_corrected_biases(name: str, expected: float) -> None:
    settings = PRESETS.reconstructions[name]
    assert (settings.method, settings.rounding_weight, settings.scale_parameter) == ("fbr", expected, "log")
    assert settings.bias_correction == (expected > 0)
