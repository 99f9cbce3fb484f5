"""The layout of ermongroup/ddim: equal outputs on both layouts, and there and back."""

from __future__ import annotations

import pytest
import torch

from edadm.networks.build import build_network
from edadm.networks.layouts.ermongroup import diffusers_module, from_diffusers, to_diffusers
from edadm.networks.settings.architecture import Architecture

from ...conftest import reinitialise
from ..original import OriginalUNet

ARCHITECTURES = [
    Architecture(
        image_size=16,
        channels=32,
        multipliers=(1, 2),
        blocks_per_level=1,
        attention_resolutions=(8,),
        norm_groups=8,
    ),
    Architecture(
        image_size=16,
        channels=16,
        multipliers=(1, 2, 2),
        blocks_per_level=2,
        attention_resolutions=(16, 4),
        norm_groups=4,
    ),
]


def original(architecture: Architecture, seed: int = 5) -> OriginalUNet:
    network = OriginalUNet(architecture)
    reinitialise(network, seed)
    return network.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=["two levels", "three levels"])
@torch.no_grad()
def test_both_layouts_compute_the_same(architecture: Architecture) -> None:
    network = original(architecture)
    unet = build_network(architecture).eval()
    unet.load_state_dict(to_diffusers(network.state_dict()))
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    t = torch.tensor([0, 417, 999])
    ours, theirs = unet(x, t).sample, network(x, t)
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=["two levels", "three levels"])
def test_there_and_back_is_the_same_state(architecture: Architecture) -> None:
    state = original(architecture).state_dict()
    back = from_diffusers(to_diffusers(state))
    assert set(back) == set(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_the_full_size_layouts_fit_each_other() -> None:
    with torch.device("meta"):
        state = OriginalUNet(Architecture()).state_dict()
        expected = build_network(Architecture()).state_dict()
    assert {name: t.shape for name, t in to_diffusers(state).items()} == {
        name: t.shape for name, t in expected.items()
    }


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("temb.dense.0", "time_embedding.linear_1"),
        ("down.1.attn.0.proj_out", "down_blocks.1.attentions.0.to_out.0"),
        ("down.0.downsample.conv", "down_blocks.0.downsamplers.0.conv"),
        ("mid.block_2.nin_shortcut", "mid_block.resnets.1.conv_shortcut"),
        ("up.3.block.0.conv1", "up_blocks.0.resnets.0.conv1"),
        ("up.1.upsample.conv", "up_blocks.2.upsamplers.0.conv"),
        ("norm_out", "conv_norm_out"),
    ],
)
def test_decoder_levels_count_the_other_way_round(module: str, name: str) -> None:
    assert diffusers_module(module, levels=4) == name


def test_a_foreign_name_is_refused() -> None:
    with pytest.raises(KeyError, match=r"'input_blocks\.0\.0' is not a module of the ermongroup/ddim layout"):
        to_diffusers({"input_blocks.0.0.weight": torch.zeros(1)})
