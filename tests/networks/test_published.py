"""The five published networks at full size have the originals' counts (method, 1.1, 3.4, 3.6 and 4.1)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from edadm.config.schema import Bits
from edadm.networks.autoencoder import build_autoencoder
from edadm.networks.build import build_network
from edadm.networks.settings.architecture import Architecture
from edadm.networks.unet.base import UNet
from edadm.networks.unet.blocks.concat import shortcut_splits
from edadm.networks.units.trace import trace, trace_units
from edadm.networks.units.unit import Unit
from edadm.nn.insert import activation_quantizers, quantize_network, quantized_layers

from .families import PUBLISHED, published


@dataclass(frozen=True)
class Facts:
    parameters: int
    quantized_weights: int
    modules: int  # query, key and value of an unconditional LDM attention are one module in the original
    units: int
    kinds: dict[str, int]
    splits: int
    attentions: int


FACTS = {
    "ddim_cifar10": Facts(
        35_746_307, 35_691_264, 113, 38, {"res_block": 22, "attention": 6, "layer": 10}, 12, 6
    ),
    "ldm4_bedroom": Facts(
        274_056_163, 273_872_704, 123, 48, {"res_block": 22, "attention": 16, "layer": 10}, 12, 16
    ),
    "ldm8_church": Facts(
        294_966_916, 294_741_504, 168, 60, {"res_block": 35, "attention": 21, "layer": 4}, 15, 21
    ),
    "ldm4_imagenet": Facts(
        400_920_579, 400_586_880, 283, 80, {"res_block": 22, "transformer": 16, "layer": 42}, 12, 32
    ),
    "sd14_coco": Facts(
        859_520_964, 859_077_120, 282, 80, {"res_block": 22, "transformer": 16, "layer": 42}, 12, 32
    ),
}


@pytest.fixture(scope="module", params=PUBLISHED)
def network(request: pytest.FixtureRequest) -> tuple[str, UNet, list[Unit]]:
    with torch.device("meta"):
        unet = build_network(published(request.param).architecture)
        return request.param, unet, trace_units(unet)


Network = tuple[str, UNet, list[Unit]]


def test_parameters_and_quantized_weights_are_the_published_ones(network: Network) -> None:
    name, unet, _ = network
    layers = [module for module in unet.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert sum(parameter.numel() for parameter in unet.parameters()) == FACTS[name].parameters
    assert sum(layer.weight.numel() for layer in layers) == FACTS[name].quantized_weights
    joined = 2 * FACTS[name].attentions if name in ("ldm4_bedroom", "ldm8_church") else 0
    assert len(layers) - joined == FACTS[name].modules


def test_units_of_each_kind_are_as_many_as_published(network: Network) -> None:
    name, unet, units = network
    assert len(units) == FACTS[name].units
    assert Counter(unit.kind for unit in units) == FACTS[name].kinds
    layers = [layer for unit in units for layer in unit.layers]
    assert (
        len(layers)
        == len(set(layers))
        == sum(isinstance(module, nn.Conv2d | nn.Linear) for module in unet.modules())
    )


def units_of(architecture: Architecture) -> list[str]:
    """All units in the order of method, 4.1, from the configuration alone."""
    levels, per_level = len(architecture.multipliers), architecture.blocks_per_level
    has_attention = [
        architecture.image_size // 2**level in architecture.attention_resolutions for level in range(levels)
    ]
    parts = ["", ".proj_in", ".transformer_blocks.0", ".proj_out"]
    parts = parts[1:] if architecture.family == "transformer" else parts[:1]
    resampling = "" if architecture.resample == "res_block" else ".conv"

    def blocks(side: str, count: int, attention: bool) -> list[str]:
        names = []
        for block in range(count):
            names.append(f"{side}.resnets.{block}")
            names += [f"{side}.attentions.{block}{part}" for part in parts] if attention else []
        return names

    names = ["time_embedding.linear_1", "time_embedding.linear_2", "conv_in"]
    for level in range(levels):
        names += blocks(f"down_blocks.{level}", per_level, has_attention[level])
        names += [f"down_blocks.{level}.downsamplers.0{resampling}"] * (level < levels - 1)
    names += [*blocks("mid_block", 1, True), "mid_block.resnets.1"]
    for level in range(levels):
        names += blocks(f"up_blocks.{level}", per_level + 1, has_attention[levels - 1 - level])
        names += [f"up_blocks.{level}.upsamplers.0{resampling}"] * (level < levels - 1)
    return [*names, "conv_out"]


def test_units_come_in_the_published_order(network: Network) -> None:
    name, _, units = network
    assert [unit.name for unit in units] == units_of(published(name).architecture)


def test_a_shortcut_is_split_wherever_the_network_concatenates(network: Network) -> None:
    name, unet, _ = network
    splits = shortcut_splits(unet)
    assert len(splits) == FACTS[name].splits
    for shortcut, main in splits.items():
        assert 0 < main < unet.get_submodule(shortcut).in_channels


def test_every_attention_has_the_published_heads(network: Network) -> None:
    name, unet, _ = network
    attentions = [module for module in unet.modules() if isinstance(module, Attention)]
    assert len(attentions) == FACTS[name].attentions
    heads = {
        "ddim_cifar10": {1},
        "ldm4_bedroom": {14, 21, 28},
        "ldm8_church": {8},
        "ldm4_imagenet": {1},
        "sd14_coco": {8},
    }[name]
    assert {attention.heads for attention in attentions} == heads
    assert all(
        attention.scale == (attention.inner_dim // attention.heads) ** -0.5 for attention in attentions
    )


def test_operands_and_exceptions_are_quantized_as_published(network: Network) -> None:
    name, unet, _ = network
    with torch.device("meta"):
        quantized = build_network(published(name).architecture)
        bits = Bits(weights=4, activations=8, split_shortcuts=name != "sd14_coco")
        quantize_network(quantized, bits, trace(unet).sites)
    layers = quantized_layers(quantized)
    eight = {layer for layer, module in layers.items() if module.weight_quantizer.bits == 8}
    assert eight == {"time_embedding.linear_1", "conv_out"}
    assert {layer for layer, module in layers.items() if module.input_quantizer is None} == {"conv_out"}
    operands = [q for q in activation_quantizers(quantized) if ".processor." in q]
    assert len(operands) == 4 * FACTS[name].attentions
    split = [layer for layer, module in layers.items() if len(module.weight_quantizer.segments) == 2]
    assert len(split) == (0 if name == "sd14_coco" else FACTS[name].splits)


@pytest.mark.parametrize(
    ("name", "parameters"), [("ldm4_bedroom", 55.32e6), ("ldm8_church", 83.65e6), ("sd14_coco", 83.65e6)]
)
def test_autoencoders_have_the_size_of_the_originals(name: str, parameters: float) -> None:
    settings = published(name).autoencoder
    assert settings is not None
    with torch.device("meta"):
        autoencoder = build_autoencoder(settings)
    assert sum(parameter.numel() for parameter in autoencoder.parameters()) == pytest.approx(
        parameters, abs=5e3
    )


@pytest.mark.parametrize(
    ("exclude", "block", "transformer"),
    [("last_registered", "conv_shortcut", "attn2.to_out.0"), ("true_last", "conv2", "ff.net.2")],
)
def test_the_layer_without_an_error_of_its_own(exclude: str, block: str, transformer: str) -> None:
    with torch.device("meta"):
        units = trace_units(build_network(published("sd14_coco").architecture), exclude=exclude)
    last = {unit.name: unit.layers[-1].removeprefix(f"{unit.name}.") for unit in units}
    assert last["up_blocks.0.resnets.0"] == block
    assert last["mid_block.resnets.0"] == "conv2"
    assert last["mid_block.attentions.0.transformer_blocks.0"] == transformer
    kept = next(unit for unit in units if unit.kind == "transformer")
    assert len(kept.layers) == 10
