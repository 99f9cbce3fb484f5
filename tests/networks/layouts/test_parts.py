"""Parts under every name that people's files have for them; the right tensors are the network's own, or transformers'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

from edadm.conditions.condition import build_condition_network
from edadm.config.schema import Model
from edadm.networks.autoencoder import build_autoencoder
from edadm.networks.build import build_network
from edadm.networks.convert import convert_checkpoint
from edadm.networks.load import SCALE
from edadm.networks.weights import CheckpointError

from ..families import original_autoencoder, original_checkpoint, random_network, tiny

State = dict[str, Tensor]
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
TEXT = "cond_stage_model.transformer.text_model."


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("sd14_coco")


@pytest.fixture(scope="module")
def single(model: Model) -> State:
    """A single file as people share them: fp16, no averaged weights, no schedule, no loss."""
    whole = {
        name: tensor
        for name, tensor in original_checkpoint(model).items()
        if not name.startswith("model_ema.")
    }
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in whole.items()}
    return {name: tensor for name, tensor in halves.items() if ".loss." not in name and "." in name}


def at(model: Model, path: Path) -> Model:
    return model.model_copy(update={"checkpoint": str(path), "ema": False})


def written(state: State, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def old_names(state: State, convolved: bool, mixed: bool = False) -> State:
    """As diffusers named the weights of attentions over pixels until 0.14."""
    changed = {}
    for name, tensor in state.items():
        for new, old in OLD.items():
            if f".{new}." in name and "transformer_blocks" not in name and not (mixed and new == "to_k"):
                name = name.replace(f".{new}.", f".{old}.")
                tensor = tensor[:, :, None, None] if convolved and name.endswith("weight") else tensor
        changed[name] = tensor
    return changed


def renamed(before: str, after: str) -> Callable[[State], State]:
    return lambda state: {name.replace(before, after): tensor for name, tensor in state.items()}


def beside(**extra: Tensor) -> Callable[[State], State]:
    return lambda state: state | {name.replace("__", "."): tensor for name, tensor in extra.items()}


@pytest.mark.parametrize(
    "change",
    [
        renamed("", ""),
        renamed("text_model.", ""),
        renamed("transformer.", ""),
        renamed("cond_stage_model.", ""),
        renamed(TEXT, ""),
        renamed(TEXT, "text_encoder.text_model."),
        renamed("cond_stage_model.", "cond_stage_model.clip_l."),
        renamed("cond_stage_model.", "cond_stage_model._orig_mod."),
        beside(cond_stage_model__logit_scale=torch.ones(())),
        beside(cond_stage_model__transformer__text_projection__weight=torch.ones(24, 24)),
        beside(cond_stage_model__embedding_manager__a__b=torch.ones(1)),
        beside(cond_stage_model__transformer__embeddings__position_ids=torch.arange(16)[None]),
    ],
)
def test_a_text_encoder_is_found_under_every_name(
    change: Callable[[State], State], model: Model, single: State, tmp_path: Path
) -> None:
    encoder = {name: tensor for name, tensor in single.items() if name.startswith("cond_stage_model.")}
    path = written(change(encoder), tmp_path / "sd.safetensors")
    converted = convert_checkpoint(at(model, path), "condition")
    expected = {
        name.removeprefix(TEXT): tensor.float()
        for name, tensor in encoder.items()
        if "position_ids" not in name
    }
    assert set(converted) == set(expected)
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


@torch.no_grad()
@pytest.mark.parametrize("whole", [False, True], ids=["CLIPTextModel", "CLIPModel"])
@pytest.mark.parametrize("shard", ["1GB", "1MB"], ids=["whole", "shards"])
def test_a_text_encoder_of_transformers_is_the_one_that_transformers_reads(
    whole: bool, shard: str, model: Model, tmp_path: Path
) -> None:
    assert model.conditioning is not None
    encoder = random_network(build_condition_network(model.conditioning, 24), 6)
    if whole:
        vision = {
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "image_size": 8,
            "patch_size": 8,
        }
        clip = CLIPModel(
            CLIPConfig(text_config=encoder.config.to_dict(), vision_config=vision, projection_dim=24)
        )
        clip.text_model.load_state_dict(encoder.state_dict())
        clip.save_pretrained(tmp_path / "text_encoder", max_shard_size=shard)
    else:
        encoder.save_pretrained(tmp_path / "text_encoder", max_shard_size=shard)
    converted = convert_checkpoint(at(model, tmp_path), "condition")
    theirs = CLIPTextModel.from_pretrained(tmp_path / "text_encoder").state_dict()
    assert all(torch.equal(converted[name], theirs[name]) for name in converted)
    assert all(
        torch.equal(converted[name], tensor)
        for name, tensor in encoder.state_dict().items()
        if "position_ids" not in name
    )


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("text_encoders.clip_l.transformer.text_model.a.weight", "several text encoders"),
        ("cond_stage_model.transformer.token_emb.weight", "BERT"),
    ],
)
def test_other_text_encoders_are_refused_by_name(name: str, what: str, model: Model, tmp_path: Path) -> None:
    path = written({name: torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=what):
        convert_checkpoint(at(model, path), "condition")


@pytest.mark.parametrize("convolved", [False, True], ids=["matrices", "convolutions"])
@pytest.mark.parametrize("mixed", [False, True], ids=["old", "mixed"])
@pytest.mark.parametrize(
    ("name", "part"),
    [("sd14_coco", "autoencoder"), ("ldm4_bedroom", "autoencoder"), ("ldm4_bedroom", "unet")],
)
def test_old_names_of_attentions_are_taken(
    name: str, part: str, convolved: bool, mixed: bool, tmp_path: Path
) -> None:
    preset = tiny(name, tmp_path, ema=False)
    assert preset.autoencoder is not None
    network = build_network(preset.architecture) if part == "unet" else build_autoencoder(preset.autoencoder)
    expected = random_network(network, 2).state_dict()
    folder = {"sd14_coco": "vae", "ldm4_bedroom": "vqvae"}[name] if part == "autoencoder" else "unet"
    state = old_names(expected, convolved, mixed)
    assert sum(".query." in key for key in state) >= 2
    written(state, tmp_path / folder / "diffusion_pytorch_model.safetensors")
    converted = convert_checkpoint(preset, part)
    assert all(torch.equal(converted[key], tensor) for key, tensor in expected.items())


def test_an_attention_with_both_names_and_two_values_is_refused(tmp_path: Path) -> None:
    preset = tiny("ldm4_bedroom", tmp_path / "unet.safetensors", ema=False)
    state = random_network(build_network(preset.architecture), 2).state_dict()
    written(
        state | {name: tensor + 1 for name, tensor in old_names(state, False).items() if ".query." in name},
        tmp_path / "unet.safetensors",
    )
    with pytest.raises(
        CheckpointError,
        match=r"two different tensors are named 'mid_block\.attentions\.0\.to_q|two different tensors are named",
    ):
        convert_checkpoint(preset)


@pytest.mark.parametrize(
    "change",
    [
        renamed("", ""),
        renamed("model.diffusion_model.", "model.diffusion_model._orig_mod."),
        renamed("model.diffusion_model.", "module.model.diffusion_model."),
        renamed("model.diffusion_model.", ""),
        renamed("model.diffusion_model.", "diffusion_model."),
        beside(
            betas=torch.ones(4),
            alphas_cumprod=torch.ones(4),
            model_ema__decay=torch.ones(()),
            control_model__time_embed__0__weight=torch.ones(1),
        ),
    ],
)
def test_a_unet_is_found_under_every_name(
    change: Callable[[State], State], model: Model, single: State, tmp_path: Path
) -> None:
    unet = {name: tensor for name, tensor in single.items() if name.startswith("model.diffusion_model.")}
    expected = convert_checkpoint(at(model, written(unet, tmp_path / "plain.safetensors")))
    converted = convert_checkpoint(at(model, written(change(unet), tmp_path / "changed.safetensors")))
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


def test_two_unets_under_unknown_names_are_refused(model: Model, single: State, tmp_path: Path) -> None:
    path = written(single | {"student.time_embed.0.weight": torch.zeros(1)}, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointError, match=r"more than one U-Net \(model\.diffusion_model\., student\.\)"):
        convert_checkpoint(at(model, path))


def vae_of(model: Model, form: str, path: Path) -> Path:
    """The autoencoder of `original_checkpoint` in a file or folder of its own."""
    network: nn.Module = original_autoencoder(model)
    state = network.state_dict() | {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.ones(())}
    if form == "original":
        return written(state, path / "vae-ft-mse-840000.safetensors")
    if form == "lightning":
        torch.save({"state_dict": state, "epoch": 1}, path / "vae.ckpt")
        return path / "vae.ckpt"
    converted = convert_checkpoint(at(model, written(state, path / "once.safetensors")), "autoencoder")
    del converted[SCALE]
    return written(converted, path / "vae" / "diffusion_pytorch_model.fp16.safetensors").parent


@pytest.mark.parametrize("form", ["original", "lightning", "diffusers"])
def test_a_vae_may_have_a_file_of_its_own(form: str, model: Model, single: State, tmp_path: Path) -> None:
    without = {name: tensor for name, tensor in single.items() if not name.startswith("first_stage_model.")}
    preset = at(model, written(without, tmp_path / "sd.safetensors"))
    with pytest.raises(
        CheckpointError,
        match=r"holds no autoencoder .*set autoencoder\.checkpoint to the file or folder of a VAE",
    ):
        convert_checkpoint(preset, "autoencoder")
    assert model.autoencoder is not None
    own = model.autoencoder.model_copy(update={"checkpoint": str(vae_of(model, form, tmp_path))})
    converted = convert_checkpoint(preset.model_copy(update={"autoencoder": own}), "autoencoder")
    expected = original_autoencoder(model).state_dict()["decoder.up.0.block.0.conv1.weight"]
    assert torch.equal(converted["decoder.up_blocks.1.resnets.0.conv1.weight"], expected)
    assert converted[SCALE] == pytest.approx(model.autoencoder.scale)


def test_a_text_encoder_may_have_a_file_of_its_own(model: Model, single: State, tmp_path: Path) -> None:
    encoder = {name: tensor for name, tensor in single.items() if name.startswith("cond_stage_model.")}
    rest = {name: tensor for name, tensor in single.items() if name not in encoder}
    preset = at(model, written(rest, tmp_path / "sd.safetensors"))
    with pytest.raises(CheckpointError, match=r"holds no CLIP text encoder .*set conditioning\.checkpoint"):
        convert_checkpoint(preset, "condition")
    assert model.conditioning is not None
    clip = written(
        {name.removeprefix("cond_stage_model."): tensor for name, tensor in encoder.items()},
        tmp_path / "clip_l.safetensors",
    )
    own = model.conditioning.model_copy(update={"checkpoint": str(clip)})
    converted = convert_checkpoint(preset.model_copy(update={"conditioning": own}), "condition")
    assert torch.equal(
        converted["final_layer_norm.weight"], encoder[f"{TEXT}final_layer_norm.weight"].float()
    )


def test_a_scale_that_is_null_comes_from_the_models_own_file(tmp_path: Path) -> None:
    preset: Any = tiny("ldm8_church", tmp_path / "model.ckpt")
    torch.save({"state_dict": original_checkpoint(preset)}, tmp_path / "model.ckpt")
    own = preset.autoencoder.model_copy(update={"checkpoint": str(vae_of(preset, "original", tmp_path))})
    assert own.scale is None
    assert convert_checkpoint(preset.model_copy(update={"autoencoder": own}), "autoencoder")[SCALE] == 0.25
