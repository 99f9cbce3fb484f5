"""Stable Diffusion XL as its publishers describe it, and a tiny pipeline of the same kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from edadm.config.schema import Bits, Model, Trajectories
from edadm.deploy.grids import quantized_copy
from edadm.networks.inputs import Rows
from edadm.nn.insert import quantized_layers
from edadm.passes.prepare import prepare

from .families import random_network

# unet/config.json of huggingface.co/stabilityai/stable-diffusion-xl-base-1.0
PUBLISHED: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.19.0.dev0",
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 2048,
    "cross_attention_norm": None,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "sample_size": 128,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "upcast_attention": None,
    "use_linear_projection": True,
}
TOKENS = 16
TINY: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": [1, 2],
    "transformer_layers_per_block": [1, 2],
    "use_linear_projection": True,
    "cross_attention_dim": 20,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 34,  # a pooled text of 10, and six sizes of 4
}


def encoder(channels: int, act: str, projection: int) -> CLIPTextConfig:
    """A tiny text encoder with CLIP's vocabulary, as public folders describe theirs."""
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=channels,
        intermediate_size=2 * channels,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        hidden_act=act,
        projection_dim=projection,
        bos_token_id=49406,
        eos_token_id=49407,
    )


def tiny_parts() -> dict[str, nn.Module]:
    """The networks of a pipeline with random weights, by their folder's name."""
    sides = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    sizes = {"block_out_channels": [8, 16], "norm_num_groups": 4, "scaling_factor": 0.25}
    parts = {
        "unet": UNet2DConditionModel(**TINY),
        "vae": AutoencoderKL(latent_channels=4, **sides, **sizes),
        "text_encoder": CLIPTextModel(encoder(8, "quick_gelu", 8)),
        "text_encoder_2": CLIPTextModelWithProjection(encoder(12, "gelu", 10)),
    }
    return {name: random_network(part, seed) for seed, (name, part) in enumerate(parts.items(), 1)}


def scheduler() -> DDIMScheduler:
    """The betas of Stable Diffusion, visited as its sampler does."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def write_pipeline(folder: Path) -> dict[str, nn.Module]:
    """The tiny pipeline as diffusers saves one; returns its networks."""
    parts = tiny_parts()
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    scheduler().save_pretrained(folder / "scheduler")
    for name, padding in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        (folder / name).mkdir()
        (folder / name / "tokenizer_config.json").write_text(f'{{"pad_token": "{padding}"}}')
    return parts


def described(folder: Path, prompts: Path) -> Model:
    """The preset that the folder's own files make, with few and short runs."""
    from edadm.config.described.folder import describe_folder

    settings = describe_folder(folder).settings
    settings["conditioning"]["prompts"] = str(prompts)
    settings["sampler"]["steps"] = 3
    settings["trajectories"] = Trajectories(count=3, batch_size=3, feature_rows=3, shards=1).model_dump()
    return Model.model_validate(settings)


def told(rows: int) -> dict[str, torch.Tensor]:
    """Inputs of the tiny U-Net beside its latents and timesteps."""
    generator = torch.Generator().manual_seed(7)
    return {
        "context": torch.randn(rows, TOKENS, 20, generator=generator),
        "pooled": torch.randn(rows, 10, generator=generator),
        "time_ids": torch.tensor([[16, 16, 0, 0, 16, 16], [32, 20, 4, 1, 16, 16]])[:rows],
    }


@torch.no_grad()
def calibrated_sdxl(bits: Bits, outliers: float = 1) -> tuple[nn.Module, nn.Module, Rows]:
    """As `families.calibrated`: the tiny U-Net, the same quantized to nearest, and the rows it was calibrated with."""
    unet = tiny_parts()["unet"]
    for module in unet.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight[::8] *= outliers
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    rows = Rows({"latents": latents, "timesteps": torch.tensor([9, 700]), **told(2)})
    quantized = quantized_copy(unet, bits)
    prepare(quantized, rows, bits)
    for layer in quantized_layers(quantized).values():
        layer.set_codes(layer.nearest_codes())
    return unet, quantized.eval(), rows
