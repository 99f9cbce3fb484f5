"""U-Nets that are given an image: what they are made of at full size, and which files are of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from edadm.config.described.folder import describe_folder
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.described.compvis import compvis_unet
from edadm.networks.families import FAMILIES, family_of, network_call
from edadm.networks.inputs import Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.units.trace import trace

from ..edited import CHANNELS
from ..single_file import FIRST, in_compvis, unet_of

# of huggingface.co/stable-diffusion-v1-5/stable-diffusion-inpainting and timbrooks/instruct-pix2pix
PUBLISHED: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
PARAMETERS = {"inpainting": 859_535_364, "instruct_pix2pix": 859_532_484}


@pytest.mark.parametrize("kind", CHANNELS)
def test_the_published_network_is_built_from_its_folder_and_from_its_shapes(
    kind: str, tmp_path: Path
) -> None:
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**PUBLISHED, in_channels=CHANNELS[kind])
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(theirs.to_json_string())
    said = describe_folder(tmp_path).settings
    assert said["conditioning"]["kind"] == said["architecture"]["family"] == kind
    architecture = Architecture.model_validate(said["architecture"])
    assert architecture.in_channels == 4
    shapes = {name: tuple(tensor.shape) for name, tensor in in_compvis(theirs).items()}
    alone, left_open = compvis_unet(shapes, Path("x.ckpt"), {})
    assert Architecture.model_validate(alone) == architecture
    assert any("8 is Stable Diffusion 1's, and other numbers give other images" in said for said in left_open)
    with torch.device("meta"):
        ours = build_network(architecture)
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == {
        name: tensor.shape for name, tensor in theirs.state_dict().items()
    }
    assert sum(parameter.numel() for parameter in ours.parameters()) == PARAMETERS[kind]
    found = trace(ours)
    assert Counter(unit.kind for unit in found.units) == {"res_block": 22, "transformer": 16, "layer": 42}
    split = {site.module: site.segments for site in found.sites if len(site.segments) > 1}
    assert split["conv_in"] == (4, CHANNELS[kind] - 4)
    assert len(split) == 13


@pytest.mark.parametrize("kind", CHANNELS)
@torch.no_grad()
def test_the_network_computes_what_diffusers_does(kind: str) -> None:
    theirs = unet_of({"in_channels": CHANNELS[kind]})
    assert family_of(theirs) is FAMILIES[kind]
    own = {key: value for key, value in FIRST.items() if key not in ("sample_size", "cross_attention_dim")}
    sizes = {"family": kind, "image_size": 8, "in_channels": 4, "context_channels": 24}
    settings = sizes | {"diffusers": {"class_name": "UNet2DConditionModel", **own}}
    ours = build_network(Architecture.model_validate(settings))
    ours.load_state_dict(theirs.state_dict())
    spec = FAMILIES[kind].inputs(ours)
    assert spec.shapes["latents"] == (4, 8, 8)
    assert spec.shapes["image"] == (CHANNELS[kind] - 4, 8, 8)
    rows = spec.random(2, "cpu")
    both = torch.cat([rows.latents, rows.tensors["image"]], dim=1)
    expected = theirs(both, rows.timesteps, rows.tensors["context"]).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(network_call(ours.eval(), rows), expected, rtol=1e-4, atol=1e-5)
    flipped = Rows({**rows.tensors, "image": rows.tensors["image"].flip(0)})
    assert (network_call(ours, flipped) - expected).abs().max() > 1e-3
    with pytest.raises(ValueError, match=f"the family '{kind}' is told a text; set class_name"):
        Architecture.model_validate(
            {"family": kind, "in_channels": 4, "image_size": 8}
            | {
                "diffusers": {
                    "class_name": "UNet2DModel",
                    "block_out_channels": [32],
                    "down_block_types": ["DownBlock2D"],
                    "up_block_types": ["UpBlock2D"],
                }
            }
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"in_channels": 7}, "in_channels is 7: that is an upscaler"),
        (
            {"in_channels": 4, "out_channels": 8},
            "in_channels is 4: that is a network that predicts a variance, too",
        ),
        (
            {
                "in_channels": 9,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 4,
                "projection_class_embeddings_input_dim": 34,
            },
            "in_channels is 9: that is another kind of network",
        ),
    ],
)
def test_other_networks_with_more_channels_are_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    config = {"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768, "sample_size": 64} | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EdadmError, match=said):
        describe_folder(tmp_path)
