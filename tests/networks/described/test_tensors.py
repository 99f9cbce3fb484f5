"""What tensors and training configurations say of a file is enough to convert that file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from edadm.config.described.entry import Description
from edadm.config.described.foreign import describe_with
from edadm.config.described.published import completed
from edadm.config.load import load_config
from edadm.config.schema import Model, NoiseSchedule
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.convert import convert_checkpoint
from edadm.networks.described.tensors import describe_tensors
from edadm.networks.layouts import ermongroup
from edadm.networks.load import load_network
from edadm.networks.settings.architecture import Architecture
from edadm.sampling.schedule import alphas_cumprod

from ..families import FAMILIES, original_checkpoint, original_unet, random_network, tiny

TARGETS = {"vq": "ldm.models.autoencoder.VQModelInterface", "kl": "ldm.models.autoencoder.AutoencoderKL"}


def saved(model: Model, folder: Path) -> Path:
    """The original file of a tiny model, with the betas it would have been trained with, and the raw weights alone."""
    kept = alphas_cumprod(model.schedule)
    whole = torch.cat([torch.ones(1, dtype=torch.float64), kept])
    state = original_checkpoint(model) | {"betas": (1 - whole[1:] / whole[:-1]).float()}
    state = {name: tensor.contiguous() for name, tensor in state.items() if not name.startswith("model_ema.")}
    if model.autoencoder is not None and model.autoencoder.scale is not None:
        del state["scale_factor"]
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors"


def project(model: Model) -> dict[str, Any]:
    """CompVis' configuration of a tiny model, as its authors write it."""
    sizes, autoencoder, conditioning = model.architecture, model.autoencoder, model.conditioning
    assert autoencoder is not None
    unet = {
        "image_size": 32,
        "in_channels": sizes.in_channels,
        "out_channels": sizes.in_channels,
        "model_channels": sizes.channels,
    }
    unet |= {
        "num_res_blocks": sizes.blocks_per_level,
        "channel_mult": list(sizes.multipliers),
        "use_checkpoint": True,
        "legacy": False,
    }
    unet |= {"attention_resolutions": [sizes.image_size // height for height in sizes.attention_resolutions]}
    unet |= {"num_head_channels": sizes.head_channels} if sizes.head_channels else {"num_heads": sizes.heads}
    unet |= {"use_scale_shift_norm": True, "resblock_updown": True} if sizes.scale_shift else {}
    if sizes.context_channels:
        unet |= {
            "use_spatial_transformer": True,
            "transformer_depth": 1,
            "context_dim": sizes.context_channels,
        }
    ddconfig = {
        "z_channels": autoencoder.latent_channels,
        "ch": autoencoder.channels,
        "ch_mult": list(autoencoder.multipliers),
    }
    ddconfig |= {
        "num_res_blocks": autoencoder.blocks_per_level,
        "attn_resolutions": [],
        "in_channels": 3,
        "out_ch": 3,
        "dropout": 0.0,
    }
    first = {
        "embed_dim": autoencoder.latent_channels,
        "ddconfig": ddconfig,
        "lossconfig": {"target": "torch.nn.Identity"},
    }
    first |= {"n_embed": autoencoder.codes} if autoencoder.kind == "vq" else {"monitor": "val/rec_loss"}
    params = {
        "linear_start": model.schedule.start,
        "linear_end": model.schedule.end,
        "timesteps": 1000,
        "image_size": sizes.image_size,
    }
    params |= {
        "channels": sizes.in_channels,
        "monitor": "val/loss_simple_ema",
        "unet_config": {"target": "x.UNetModel", "params": unet},
    }
    params |= {"first_stage_config": {"target": TARGETS[autoencoder.kind], "params": first}}
    params |= {"scale_by_std": True} if autoencoder.scale is None else {"scale_factor": autoencoder.scale}
    if conditioning is None:
        params["cond_stage_config"] = "__is_unconditional__"
    elif conditioning.kind == "classes":
        stage = {
            "n_classes": conditioning.classes + 1,
            "embed_dim": sizes.context_channels,
            "key": "class_label",
        }
        params["cond_stage_config"] = {
            "target": "ldm.modules.encoders.modules.ClassEmbedder",
            "params": stage,
        }
    else:
        params["cond_stage_config"] = {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder"}
    return {
        "model": {
            "base_learning_rate": 1e-6,
            "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": params,
        }
    }


def as_model(description: Description, **changes: Any) -> Model:
    """The printed entry, read back as a user's configuration would be."""
    settings = yaml.safe_load(completed(description, load_config().models).as_yaml("mine"))
    return load_config(settings | {"models": {"mine": settings["models"]["mine"] | changes}}).models["mine"]


def same_output(model: Model, original: torch.nn.Module, folder: Path) -> float:
    save_file(convert_checkpoint(model), folder / "unet.safetensors")
    generator = torch.Generator().manual_seed(0)
    inputs = (torch.randn(2, *model.latent_shape, generator=generator), torch.tensor([5, 800]))
    if width := model.architecture.context_channels:
        inputs = (*inputs, torch.randn(2, 5, width, generator=generator))
    ours, theirs = (
        load_network(model.architecture, folder / "unet.safetensors")(*inputs).sample,
        original(*inputs),
    )
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_projects_configuration_builds_its_file(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    file, config = saved(model, tmp_path), tmp_path / "project.yaml"
    config.write_text(yaml.safe_dump(project(model)))
    described = describe_with(config, file)
    described.settings["architecture"]["norm_groups"] = (
        4  # 32 in the original code, a guess in networks this small
    )
    described.settings["autoencoder"]["norm_groups"] = 4
    read = as_model(described)
    assert read.architecture == model.architecture
    assert read.schedule == model.schedule
    assert read.autoencoder is not None
    assert model.autoencoder is not None
    assert read.autoencoder.model_dump(exclude={"codes"}) == model.autoencoder.model_dump(exclude={"codes"})
    assert same_output(read, original_unet(model), tmp_path) < 1e-5
    if model.conditioning and model.conditioning.kind == "text":
        return  # of this size it is no CLIP that any configuration names
    for part in read.parts[1:]:
        assert (
            convert_checkpoint(read, part).keys()
            == convert_checkpoint(tiny(name, file, ema=False), part).keys()
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_tensors_alone_say_all_but_sizes_of_images_and_heads(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    described = describe_tensors(saved(model, tmp_path), {})
    said = " ".join(described.left_open)
    assert "image_size stands in no tensor: 64 is a guess" in said
    assert "heads (or head_channels) stands in no tensor" in said
    read = as_model(described)
    known = (
        "family",
        "in_channels",
        "channels",
        "multipliers",
        "blocks_per_level",
        "scale_shift",
        "resample",
        "context_channels",
    )
    assert all(getattr(read.architecture, key) == getattr(model.architecture, key) for key in known)
    heights = [height * 8 for height in model.architecture.attention_resolutions]
    assert list(read.architecture.attention_resolutions) == heights
    assert read.schedule == model.schedule
    assert "schedule stands in no tensor" not in said
    sizes = {key: getattr(model.architecture, key) for key in ("heads", "head_channels", "norm_groups")}
    left = (
        read.architecture.model_dump()
        | sizes
        | {"image_size": 8, "attention_resolutions": model.architecture.attention_resolutions}
    )
    filled = read.model_copy(update={"architecture": Architecture.model_validate(left)})
    assert same_output(filled, original_unet(model), tmp_path) < 1e-5
    for part in read.parts[1:]:
        assert convert_checkpoint(read, part)


def test_a_published_networks_sizes_are_known_with_its_tensors(tmp_path: Path) -> None:
    model = tiny("sd14_coco")
    described = describe_tensors(saved(model, tmp_path), {"tiny": model})
    read = as_model(described)
    assert read.architecture == model.architecture
    assert any("those of the preset tiny" in sentence for sentence in described.left_open)


def test_a_file_of_ermongroups_code_is_described(tmp_path: Path) -> None:
    architecture = Architecture(
        channels=16, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(16,), norm_groups=16
    )
    network = random_network(build_network(architecture), 1)
    file = tmp_path / "model.ckpt"
    torch.save([ermongroup.from_diffusers(network.state_dict()), {}, 0, 0], file)
    read = as_model(describe_tensors(file, {}))
    assert read.architecture == architecture  # attention at one level: at 16, as in all of DDPM's
    inputs = (torch.randn(1, 3, 32, 32), torch.tensor([300]))
    save_file(convert_checkpoint(read), tmp_path / "unet.safetensors")
    ours = load_network(read.architecture, tmp_path / "unet.safetensors")(*inputs).sample
    assert torch.allclose(ours, network(*inputs).sample, atol=1e-4)
    config = tmp_path / "cifar10.yml"
    sizes = {
        "in_channels": 3,
        "out_ch": 3,
        "ch": 16,
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [16],
        "type": "simple",
    }
    betas = {
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "beta_end": 0.03,
        "num_diffusion_timesteps": 500,
    }
    config.write_text(
        yaml.safe_dump(
            {"model": sizes | {"resamp_with_conv": True}, "diffusion": betas, "data": {"image_size": 32}}
        )
    )
    said = as_model(describe_with(config, file))
    assert said.architecture.model_copy(update={"norm_groups": 16}) == architecture
    assert said.schedule == NoiseSchedule(end=0.03, timesteps=500)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (
            ("unet_config", "params", "num_classes"),
            1000,
            "num_classes: 1000, and its time embedding adds a class",
        ),
        (("unet_config", "params", "use_new_attention_order"), True, "in another order"),
        (("unet_config", "params", "out_channels"), 6, "out_channels: 6"),
        (("unet_config", "params", "some_new_key"), 3, "some_new_key: 3"),
        (("parameterization",), "mu", "parameterization"),
        (("beta_schedule",), "sqrt", "beta_schedule"),
        (("conditioning_key",), "concat", "conditioning_key"),
        (("first_stage_config", "params", "ddconfig", "attn_resolutions"), [16], "attn_resolutions"),
        (("first_stage_config", "params", "embed_dim"), 8, "embed_dim: 8"),
    ],
)
def test_what_is_not_built_is_refused_by_its_key(
    place: tuple[str, ...], value: object, said: str, tmp_path: Path
) -> None:
    content = project(tiny("ldm4_bedroom"))
    at = content["model"]["params"]
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    (tmp_path / "project.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(EdadmError, match=said):
        describe_with(tmp_path / "project.yaml", tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: 1",
        "model: {params: {unet_config: 3}}",
        "model: {ch: x}",
        "- 1",
        "model: {params: {unet_config: {params: {in_channels: [1]}}}}",
        "{model: {ch: 32, ch_mult: [1], num_res_blocks: 0}, data: {image_size: 32}}",
        "{model: {ch: 32, ch_mult: [1]}, data: {image_size: [32]}}",
    ],
)
def test_other_files_are_no_configurations(text: str, tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text(text)
    with pytest.raises(EdadmError, match=r"project\.yaml.*\Z"):
        describe_with(tmp_path / "project.yaml", tmp_path / "model.ckpt")


def test_other_networks_tensors_are_refused_in_words(tmp_path: Path) -> None:
    model = tiny("sd14_coco")
    state = {
        f"model.diffusion_model.{name}": tensor.contiguous()
        for name, tensor in original_unet(model).state_dict().items()
    }
    first = "model.diffusion_model.input_blocks.0.0.weight"
    cases = {
        "an upscaler": state | {first: torch.zeros(16, 7, 3, 3)},
        "adds classes": state | {"model.diffusion_model.label_emb.weight": torch.zeros(64, 32)},
        "of Stable Diffusion XL that is given an image": state
        | {
            first: torch.zeros(16, 9, 3, 3),
            "model.diffusion_model.label_emb.0.0.weight": torch.zeros(64, 32),
        },
        "names its tensors as diffusers does": build_network(model.architecture).state_dict(),
        "holds no U-Net": {"one.weight": torch.zeros(2)},
        "is a LoRA .*, not a U-Net; merge it": {"lora_unet_mid_block_0.lora_down.weight": torch.zeros(4, 16)},
    }
    for said, tensors in cases.items():
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "x.safetensors")
        with pytest.raises(EdadmError, match=said):
            describe_tensors(tmp_path / "x.safetensors", {})
    save_file(
        {"conv_in.codes": torch.zeros(2)}, tmp_path / "x.safetensors", {"edadm": '{"format_version": 3}'}
    )
    with pytest.raises(
        EdadmError, match=r"x\.safetensors is a quantized checkpoint of edadm; name the float"
    ):
        describe_tensors(tmp_path / "x.safetensors", {})
