"""Every family computes what the original network does, on the original's own weights (fp32, rounding level)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from edadm.conditions.condition import make_condition
from edadm.conditions.text import token_ids
from edadm.config.schema import Model
from edadm.networks.build import build_network
from edadm.networks.convert import convert_checkpoint
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.networks.layouts import compvis_unet
from edadm.networks.load import SCALE, load_condition_network, load_decoder, load_network
from edadm.networks.settings.architecture import Architecture

from .families import FAMILIES, original_autoencoder, original_checkpoint, original_unet, random_network, tiny
from .original_autoencoder import OriginalTextEncoder

Converted = tuple[Model, Path]


@pytest.fixture(scope="module", params=FAMILIES)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """A family's preset, and the folder with the converted parts of a checkpoint in the original layout."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "prompts.txt").write_text("a puppy wearing a hat\n\ntwo boats “at sea”\n")
    model = tiny(request.param, folder / "model.ckpt", prompts=str(folder / "prompts.txt"))
    torch.save({"state_dict": original_checkpoint(model), "epoch": 3}, folder / "model.ckpt")
    for part in model.parts:
        save_file(convert_checkpoint(model, part), folder / f"{part}.safetensors")
    return model, folder


@torch.no_grad()
def test_the_unet_predicts_what_the_original_predicts(converted: Converted) -> None:
    model, folder = converted
    unet = load_network(model.architecture, folder / "unet.safetensors")
    generator = torch.Generator().manual_seed(7)
    rows = {
        "latents": torch.randn(3, *model.latent_shape, generator=generator),
        "timesteps": torch.tensor([1, 417, 999]),
    }
    if model.architecture.context_channels:
        rows["context"] = torch.randn(3, 5, model.architecture.context_channels, generator=generator)
    original = original_unet(model, seed=30 if model.ema else 3)
    expected = original(rows["latents"], rows["timesteps"], rows.get("context"))
    assert isinstance(unet, UNet2DConditionModel) == (model.architecture.family == "transformer")
    assert expected.std() > 0.1
    assert (network_call(unet, Rows(rows)) - expected).abs().max() < 1e-5


@torch.no_grad()
def test_the_autoencoder_decodes_and_encodes_what_the_original_does(converted: Converted) -> None:
    model, folder = converted
    decode, original = load_decoder(model, folder / "autoencoder.safetensors"), original_autoencoder(model)
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(8))
    assert model.autoencoder is not None
    scale = 0.25 if model.autoencoder.scale is None else model.autoencoder.scale
    assert decode.scale == pytest.approx(scale)
    images, expected = decode(latents), original.decode(latents / scale)
    assert images.shape == (2, 3, 8 * model.autoencoder.factor, 8 * model.autoencoder.factor)
    assert (images - expected).abs().max() < 2e-5
    if model.autoencoder.kind == "vq":
        snapped = original.snap(latents)
        assert (snapped - latents).abs().max() > 0.1, "the codebook must matter"
        assert (images - original.decode(snapped)).abs().max() < 2e-5
    encoder = decode.autoencoder
    hidden = encoder.quant_conv(encoder.encoder(expected))
    assert (hidden - original.encode(expected)).abs().max() < 2e-5


@torch.no_grad()
def test_the_condition_is_the_originals(converted: Converted) -> None:
    model, folder = converted
    if model.conditioning is None:
        assert "condition" not in model.parts
        return
    condition = make_condition(
        load_condition_network(model, folder / "condition.safetensors"), model.conditioning, 2
    )
    rows, nothing = condition.rows([0, 1])["context"], condition.unconditional()["context"]
    state = original_checkpoint(model)
    if model.conditioning.kind == "classes":
        table = state["cond_stage_model.embedding.weight"]
        assert torch.equal(rows[:, 0], table[condition.labels[:2]])
        assert torch.equal(nothing[0], table[10:])
        assert sorted(condition.labels) == sorted([*range(10)] * 2)
    else:
        encoder = random_network(OriginalTextEncoder(model.conditioning.encoder), 6)
        ids = token_ids(["a puppy wearing a hat", "two boats “at sea”", ""], 16)
        expected = encoder(ids)
        assert expected.std() > 0.1
        assert (torch.cat([rows, nothing]) - expected).abs().max() < 1e-5


def test_prompts_are_padded_with_the_end_of_text() -> None:
    ids = token_ids(["a puppy wearing a hat", ""], 8)
    assert ids.tolist() == [[49406, 320, 6829, 3309, 320, 3801, 49407, 49407], [49406, *[49407] * 7]]


def test_the_scale_factor_travels_with_the_autoencoder(converted: Converted) -> None:
    model, _ = converted
    scale = convert_checkpoint(model, "autoencoder")[SCALE].item()
    assert scale == pytest.approx({"kl": model.autoencoder.scale or 0.25, "vq": 1.0}[model.autoencoder.kind])


def test_prompts_are_padded_with_zeros_where_the_model_was_trained_so() -> None:
    assert token_ids(["a puppy", ""], 6, "zero").tolist() == [
        [49406, 320, 6829, 49407, 0, 0],
        [49406, 49407, 0, 0, 0, 0],
    ]


@torch.no_grad()
def test_heads_of_a_transformer_may_be_given_by_their_channels() -> None:
    model = tiny("ldm4_imagenet")
    sizes = model.architecture.model_dump() | {
        "heads": None,
        "head_channels": 8,
        "attention_resolutions": (8, 4),
    }
    model = model.model_copy(update={"architecture": Architecture.model_validate(sizes)})
    original, unet = original_unet(model), build_network(model.architecture)
    unet.load_state_dict(compvis_unet.to_diffusers(original.state_dict(), model.architecture))
    inputs = (torch.randn(2, 3, 8, 8), torch.tensor([5, 800]), torch.randn(2, 3, 12))
    found, expected = unet.eval()(*inputs).sample, original(*inputs)
    assert ((found - expected).norm() / expected.norm()).item() < 1e-5
    assert unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.heads == 2
    assert unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.heads == 4
