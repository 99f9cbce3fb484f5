"""Units and their order (acceptance check 1), and sites."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from edadm.networks.build import build_network
from edadm.networks.settings.architecture import Architecture
from edadm.networks.units.trace import trace, trace_units
from edadm.networks.units.unit import Unit


@pytest.fixture(scope="module")
def cifar_units() -> list[Unit]:
    with torch.device("meta"):
        return trace_units(build_network(Architecture()))


def expected_order() -> list[str]:
    """The CIFAR-10 network: attention at the second level (16x16), 2 res-blocks per level down, 3 up."""
    names = ["time_embedding.linear_1", "time_embedding.linear_2", "conv_in"]
    for level in range(4):
        for block in range(2):
            names += [f"down_blocks.{level}.resnets.{block}"] + [
                f"down_blocks.{level}.attentions.{block}"
            ] * (level == 1)
        names += [f"down_blocks.{level}.downsamplers.0.conv"] * (level < 3)
    names += ["mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"]
    for level in range(4):
        for block in range(3):
            names += [f"up_blocks.{level}.resnets.{block}"] + [f"up_blocks.{level}.attentions.{block}"] * (
                level == 2
            )
        names += [f"up_blocks.{level}.upsamplers.0.conv"] * (level < 3)
    return [*names, "conv_out"]


def test_the_cifar_network_has_the_published_number_of_units_of_each_kind(cifar_units: list[Unit]) -> None:
    assert Counter(unit.kind for unit in cifar_units) == {"res_block": 22, "attention": 6, "layer": 10}


def test_units_come_in_the_order_of_execution(cifar_units: list[Unit]) -> None:
    assert [unit.name for unit in cifar_units] == expected_order()


def test_every_layer_belongs_to_exactly_one_unit(cifar_units: list[Unit]) -> None:
    layers = [layer for unit in cifar_units for layer in unit.layers]
    assert len(layers) == len(set(layers)) == 113


def test_layers_of_a_unit_come_in_the_registration_order_of_the_original(cifar_units: list[Unit]) -> None:
    by_name = {unit.name: unit for unit in cifar_units}

    def inner(name: str) -> list[str]:
        return [layer.removeprefix(f"{name}.") for layer in by_name[name].layers]

    assert inner("mid_block.resnets.0") == ["conv1", "time_emb_proj", "conv2"]
    assert inner("up_blocks.0.resnets.0") == ["conv1", "time_emb_proj", "conv2", "conv_shortcut"]
    assert inner("mid_block.attentions.0") == ["to_q", "to_k", "to_v", "to_out.0"]
    assert by_name["conv_out"].layers == ("conv_out",)


def test_the_trace_is_the_order_in_which_a_real_forward_calls_the_modules(
    float_unet: UNet2DModel, calibration: tuple[Tensor, Tensor]
) -> None:
    units, called = trace_units(float_unet), []
    handles = [
        float_unet.get_submodule(unit.name).register_forward_pre_hook(
            lambda *_, n=unit.name: called.append(n)
        )
        for unit in units
    ]
    float_unet(*calibration)
    for handle in handles:
        handle.remove()
    assert called == [unit.name for unit in units]


def test_tracing_leaves_no_hooks_behind(float_unet: UNet2DModel) -> None:
    trace_units(float_unet)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in float_unet.modules())


def test_units_say_where_channels_stand_in_the_original(cifar_units: list[Unit]) -> None:
    axes = {unit.kind: unit.channel_axis for unit in cifar_units}
    assert axes == {"res_block": 1, "attention": -1, "layer": 1}
    assert {unit.main_input for unit in cifar_units} == {0}


def test_every_product_has_a_site_for_each_of_its_operands() -> None:
    with torch.device("meta"):
        found = trace(build_network(Architecture()))
    roles = Counter(site.role for site in found.sites)
    assert roles == {"weight": 113, "input": 113, "q": 6, "k": 6, "v": 6, "probabilities": 6}
    assert len({site.name for site in found.sites}) == len(found.sites)
    layers = {layer for unit in found.units for layer in unit.layers}
    assert {site.module for site in found.sites if site.role == "weight"} == layers
    assert sum(len(site.segments) == 2 for site in found.sites) == 2 * 12
    by_name = {site.name: site for site in found.sites}
    assert by_name["up_blocks.0.resnets.0.conv_shortcut.input"].segments == (256, 256)
    assert by_name["conv_in.weight"].segments == (3,)
    assert (by_name["conv_in.input"].axis, by_name["time_embedding.linear_1.input"].axis) == (1, -1)
    assert by_name["mid_block.attentions.0.q"].segments == (256,)
    assert by_name["mid_block.attentions.0.probabilities"].segments == ()


def test_a_trace_by_layer_has_the_same_sites(float_unet: UNet2DModel) -> None:
    blocks, layers = trace(float_unet), trace(float_unet, by_layer=True)
    assert layers.sites == blocks.sites
    assert {unit.kind for unit in layers.units} == {"layer"}
    assert {unit.name for unit in layers.units} == {name for unit in blocks.units for name in unit.layers}
