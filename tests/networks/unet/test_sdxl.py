"""Stable Diffusion XL's U-Net: what it is made of at full size, and what it computes when it is tiny."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from edadm.config.described.folder import describe_folder
from edadm.config.load import load_config
from edadm.config.schema import Bits
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.families import FAMILIES, family_of, network_call
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.families import FAMILIES as ENTRIES
from edadm.networks.unet.base import UNet
from edadm.networks.units.trace import Trace, trace
from edadm.nn.insert import quantize_network, quantized_layers
from edadm.stages.cost.networks import Networks

from ..sdxl import PUBLISHED, TINY, described, told, write_pipeline

ARCHITECTURE = load_config().models["sdxl_base"].architecture


def layers_of(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


@pytest.fixture(scope="module")
def theirs() -> UNet2DConditionModel:
    """diffusers' own network of the published configuration."""
    settings = {key: value for key, value in PUBLISHED.items() if not key.startswith("_")}
    with torch.device("meta"):
        return UNet2DConditionModel(**settings)


@pytest.fixture(scope="module")
def ours() -> tuple[UNet, Trace]:
    with torch.device("meta"):
        unet = build_network(ARCHITECTURE)
    return unet, trace(unet)


def test_a_row_of_the_registry_names_a_family_and_settings_that_there_are() -> None:
    assert {name: family.name for name, family in FAMILIES.items()} == {name: name for name in ENTRIES}
    assert all(set(entry.settings) <= set(Architecture.model_fields) for entry in ENTRIES.values())


def test_the_preset_is_what_the_published_file_says(
    theirs: UNet2DConditionModel, ours: tuple[UNet, Trace], tmp_path: Path
) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(PUBLISHED))
    said = describe_folder(tmp_path).settings
    assert Architecture.model_validate(said["architecture"]) == ARCHITECTURE
    assert said["conditioning"]["time_ids"] == [1024, 1024, 0, 0, 1024, 1024]
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours[0].state_dict().items()} == shapes
    assert sum(parameter.numel() for parameter in ours[0].parameters()) == 2_567_463_684


def test_units_cover_every_layer_once_in_the_order_of_execution(
    theirs: UNet2DConditionModel, ours: tuple[UNet, Trace]
) -> None:
    units = ours[1].units
    # 2 levels down with 2 and 2 transformers, 1 in the middle, 3 and 3 up, each of 2, 10, 10, 10 and 2 blocks
    assert Counter(unit.kind for unit in units) == {"res_block": 17, "transformer": 70, "layer": 32}
    names = [layer for unit in units for layer in unit.layers]
    assert len(names) == len(set(names)) == len(layers_of(theirs)) == 794
    embedding = ["time_embedding.linear_1", "time_embedding.linear_2"]
    embedding += ["add_embedding.linear_1", "add_embedding.linear_2"]
    assert [unit.name for unit in units[:6]] == [*embedding, "conv_in", "down_blocks.0.resnets.0"]
    middle = "mid_block.attentions.0"
    blocks = [f"{middle}.transformer_blocks.{block}" for block in range(10)]
    start = next(place for place, unit in enumerate(units) if unit.name == "mid_block.resnets.0")
    found = [unit.name for unit in units[start : start + 14]]
    assert found[:-1] == ["mid_block.resnets.0", f"{middle}.proj_in", *blocks, f"{middle}.proj_out"]
    assert found[-1] == "mid_block.resnets.1"
    assert [unit.name for unit in units[-2:]] == ["up_blocks.2.resnets.2", "conv_out"]


def test_sites_are_the_operands_of_every_product(
    theirs: UNet2DConditionModel, ours: tuple[UNet, Trace]
) -> None:
    layers = len(layers_of(theirs))
    roles = Counter(site.role for site in ours[1].sites)
    assert roles == {"weight": layers, "input": layers} | dict.fromkeys(("q", "k", "v", "probabilities"), 140)
    split = {site.module: site.segments for site in ours[1].sites if len(site.segments) > 1}
    assert len(split) == 9  # every block on the way up
    assert split["up_blocks.0.resnets.2.conv_shortcut"] == (1280, 640)
    assert split["up_blocks.2.resnets.0.conv_shortcut"] == (640, 320)


def test_the_published_exceptions_are_quantized_as_in_other_networks(ours: tuple[UNet, Trace]) -> None:
    with torch.device("meta"):
        unet = build_network(ARCHITECTURE)
        quantize_network(unet, Bits(weights=4, activations=8), ours[1].sites)
    layers = quantized_layers(unet)
    eight = {name for name, layer in layers.items() if layer.weight_quantizer.bits == 8}
    assert eight == {"time_embedding.linear_1", "conv_out"}
    assert len(layers) == 794


def test_text_encoders_have_the_published_sizes() -> None:
    networks = Networks(load_config().models["sdxl_base"])
    assert (
        networks.condition_parameters == 123_060_480 + 694_659_840
    )  # ViT-L/14's, and ViT-bigG/14's with its projection
    shapes = InputSpec.of(networks.model).shapes
    assert (shapes["context"], shapes["pooled"], shapes["time_ids"]) == ((77, 2048), (1280,), (6,))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, UNet]:
    """diffusers' tiny network, and ours with its weights."""
    folder = tmp_path_factory.mktemp("sdxl")
    parts = write_pipeline(folder)
    unet = build_network(described(folder, folder / "prompts.txt").architecture)
    unet.load_state_dict(parts["unet"].state_dict())
    return parts["unet"], unet.eval()


@torch.no_grad()
def test_the_network_computes_what_diffusers_does(tiny: tuple[nn.Module, UNet]) -> None:
    theirs, ours = tiny
    rows = {
        "latents": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
        "timesteps": torch.tensor([20, 900]),
        **told(2),
    }
    added = {"text_embeds": rows["pooled"], "time_ids": rows["time_ids"].float()}
    expected = theirs(rows["latents"], rows["timesteps"], rows["context"], added_cond_kwargs=added).sample
    assert expected.std() > 0.1
    found = network_call(ours, Rows(rows))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for name in ("context", "pooled", "time_ids"):
        changed = network_call(ours, Rows(rows | {name: rows[name].flip(0)}))
        assert (changed - expected).abs().max() > 1e-3, name


@torch.no_grad()
def test_a_network_of_diffusers_is_of_the_family(tiny: tuple[nn.Module, UNet]) -> None:
    theirs, ours = tiny
    assert family_of(theirs) is family_of(ours) is FAMILIES["sdxl"]
    plain = {
        key: value for key, value in TINY.items() if "addition" not in key and "projection_class" not in key
    }
    with torch.device("meta"):
        assert family_of(UNet2DConditionModel(**plain)) is FAMILIES["diffusers"]
    spec = family_of(theirs).inputs(theirs)
    assert spec.shapes == {
        "latents": (4, 8, 8),
        "timesteps": (),
        "context": (1, 20),
        "pooled": (10,),
        "time_ids": (6,),
    }
    assert network_call(theirs, spec.zeros()).shape == (1, 4, 8, 8)
    assert not spec.random(2, "cpu").tensors["time_ids"].is_floating_point()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"size_channels": None},
            "the family 'sdxl' needs context_channels, added_channels and size_channels",
        ),
        ({"added_channels": 1536}, "added_channels 1536 leaves none for a pooled text beside 6 sizes of 256"),
        ({"family": "diffusers"}, "the family 'diffusers' has no setting 'added_channels'"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Architecture.model_validate(ARCHITECTURE.model_dump() | changes)


# unet/config.json of huggingface.co/stabilityai/stable-diffusion-xl-refiner-1.0
REFINER = {
    "attention_head_dim": [6, 12, 24, 24],
    "block_out_channels": [384, 768, 1536, 1536],
    "cross_attention_dim": 1280,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "projection_class_embeddings_input_dim": 2560,
    "transformer_layers_per_block": 4,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}


def test_the_refiner_is_told_a_score_and_begins_from_images(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(PUBLISHED | REFINER))
    found = describe_folder(tmp_path)
    settings = found.settings
    architecture = Architecture.model_validate(settings["architecture"])
    assert architecture.is_refiner
    assert not ARCHITECTURE.is_refiner
    assert (architecture.family, architecture.pooled_channels) == ("sdxl", 1280)
    told = settings["conditioning"]
    assert (told["kind"], told["time_ids"], told["scores"]) == (
        "sdxl_refiner",
        [1024, 1024, 0, 0],
        [6.0, 2.5],
    )
    assert settings["sampler"]["below"] == 200
    assert any(
        "sampler.below: runs begin from images with the noise of timestep 200" in said
        for said in found.left_open
    )
    with torch.device("meta"):
        unet = build_network(architecture)
    assert sum(parameter.numel() for parameter in unet.parameters()) == 2_259_526_660
    units = trace(unet).units
    assert Counter(unit.kind for unit in units) == {"res_block": 22, "transformer": 44, "layer": 34}
    assert family_of(unet).inputs(unet).shapes["score"] == (1,)


def test_other_added_embeddings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    cases = {
        "text encoders give 2048 channels together": {"cross_attention_dim": 1664},
        'addition_embed_type: "image", and such networks': {"addition_embed_type": "image"},
        "such a network needs addition_time_embed_dim": {"addition_time_embed_dim": None},
    }
    for said, changes in cases.items():
        (tmp_path / "unet" / "config.json").write_text(json.dumps(PUBLISHED | changes))
        with pytest.raises(EdadmError, match=said):
            describe_folder(tmp_path)
