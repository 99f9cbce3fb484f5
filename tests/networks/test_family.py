"""What families say of their networks, against what the networks do."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.families import FAMILIES, family_of, network_call
from edadm.networks.family import Coupling

from .families import PUBLISHED, published, random_network, tiny

TINY = ("ldm8_church", "sd14_coco")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_knows_the_family_that_built_it(name: str) -> None:
    architecture = published(name).architecture
    with torch.device("meta"):
        unet = build_network(architecture)
    family = family_of(copy.deepcopy(unet))
    assert family is FAMILIES[architecture.family]
    assert type(unet) in family.classes
    assert published(name).layout in family.layouts
    assert published(name).prediction in family.predictions


def test_a_network_from_elsewhere_is_what_its_class_says(float_unet: UNet2DModel) -> None:
    with torch.device("meta"):
        assert family_of(UNet2DModel(**float_unet.config)) is FAMILIES["diffusers"]
    with pytest.raises(EdadmError, match="a Linear is of no family that edadm knows; take one of ddim, ldm"):
        family_of(nn.Linear(1, 1))


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_the_smallest_inputs_are_taken(name: str) -> None:
    unet = random_network(build_network(tiny(name).architecture), 1)
    rows = family_of(unet).inputs(unet).zeros()
    assert len(rows) == 1
    assert ("context" in rows.tensors) == (name == "sd14_coco")
    assert network_call(unet, rows).shape == rows.latents.shape


def seen(unet: nn.Module, names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """The input and output of modules in one evaluation."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    handles = [
        unet.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, n=name: found.__setitem__(n, (inputs[0], output))
        )
        for name in names
    ]
    with torch.no_grad():
        network_call(unet, family_of(unet).inputs(unet).random(2, "cpu"))
    for handle in handles:
        handle.remove()
    return found


def values(tensor: Tensor) -> Tensor:
    """The numbers of each row in order of size, in whatever layout a tensor has them."""
    return tensor.reshape(len(tensor), -1).sort(dim=1).values


@pytest.mark.parametrize("name", TINY)
def test_layers_are_given_what_the_norm_coupled_to_them_puts_out(name: str) -> None:
    unet = random_network(build_network(tiny(name).architecture), 1)
    couplings = family_of(unet).couplings(unet)
    linear = [coupling for coupling in couplings if coupling.is_linear]
    activated = [couplings[-1], *(c for c in couplings if name == "sd14_coco" and c.norm.endswith("norm1"))]
    found = seen(unet, [part for c in couplings for part in (c.norm, *c.layers)])
    for coupling in linear:
        for layer in coupling.layers:
            assert torch.equal(values(found[layer][0]), values(found[coupling.norm][1])), coupling
    for coupling in (c for c in activated if not c.is_linear):
        expected = F.silu(found[coupling.norm][1])
        assert torch.equal(found[coupling.layers[0]][0], expected), coupling
    norms = {n for n, module in unet.named_modules() if isinstance(module, nn.GroupNorm | nn.LayerNorm)}
    assert {coupling.norm for coupling in couplings} == norms


def test_keys_and_values_of_a_context_are_fed_by_no_norm() -> None:
    unet = random_network(build_network(tiny("sd14_coco").architecture), 1)
    block = "mid_block.attentions.0.transformer_blocks.0"
    couplings = {coupling.norm: coupling for coupling in family_of(unet).couplings(unet)}
    assert couplings[f"{block}.norm2"] == Coupling(f"{block}.norm2", (f"{block}.attn2.to_q",))
    assert couplings[f"{block}.norm1"].layers == tuple(f"{block}.attn1.to_{part}" for part in "qkv")


@pytest.mark.parametrize("name", TINY)
def test_parts_of_concatenated_channels_add_up(name: str) -> None:
    unet = random_network(build_network(tiny(name).architecture), 1)
    parts = family_of(unet).concatenations(unet)
    assert parts
    for layer, sizes in parts.items():
        assert sum(sizes) == unet.get_submodule(layer).weight.shape[1]
        assert min(sizes) > 0


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_features_are_what_the_middle_attends_to(name: str) -> None:
    unet = random_network(build_network(tiny(name).architecture), 1)
    assert family_of(unet).feature_module(unet) is unet.mid_block.attentions[0]
