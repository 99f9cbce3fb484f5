"""Stable Diffusion 3.5 as its publishers describe it, and a tiny pipeline of the same kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import nn
from transformers import CLIPTextModelWithProjection

from edadm.config.schema import Model, Trajectories
from edadm.networks.inputs import Rows

from .families import random_network
from .sdxl import TOKENS, encoder

# transformer/config.json of huggingface.co/stabilityai/stable-diffusion-3.5-medium
MEDIUM: dict[str, Any] = {
    "_class_name": "SD3Transformer2DModel",
    "_diffusers_version": "0.31.0.dev0",
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "dual_attention_layers": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 24,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "qk_norm": "rms_norm",
    "sample_size": 128,
}
# ... of huggingface.co/stabilityai/stable-diffusion-3.5-large
LARGE = MEDIUM | {
    "caption_projection_dim": 2432,
    "dual_attention_layers": [],
    "num_attention_heads": 38,
    "num_layers": 38,
    "pos_embed_max_size": 192,
}
TINY: dict[str, Any] = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 20,  # texts of 8 and 12
    "pos_embed_max_size": 6,
    "dual_attention_layers": (0,),
    "qk_norm": "rms_norm",
}


def tiny_mmdit(seed: int = 1, **changes: Any) -> nn.Module:
    """The transformer with random weights: a second attention in its first block, none of the last's context."""
    return random_network(SD3Transformer2DModel(**TINY | changes), seed)


def rows_of(count: int, tokens: int = 5) -> Rows:
    """Inputs of the tiny transformer."""
    generator = torch.Generator().manual_seed(4)
    return Rows(
        {
            "latents": torch.randn(count, 4, 8, 8, generator=generator),
            "timesteps": torch.linspace(20.5, 1000, count),
            "context": torch.randn(count, tokens, 24, generator=generator),
            "pooled": torch.randn(count, 20, generator=generator),
        }
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """As Stable Diffusion 3.5's."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def write_pipeline(folder: Path) -> dict[str, nn.Module]:
    """The tiny pipeline as diffusers saves one, with a third text encoder's folder; returns its networks."""
    sides = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    sizes = {"block_out_channels": [8, 16], "norm_num_groups": 4, "scaling_factor": 1.5, "shift_factor": 0.25}
    around = {"use_quant_conv": False, "use_post_quant_conv": False}
    made = {
        "vae": AutoencoderKL(latent_channels=4, **sides, **sizes, **around),
        "text_encoder": CLIPTextModelWithProjection(encoder(8, "quick_gelu", 8)),
        "text_encoder_2": CLIPTextModelWithProjection(encoder(12, "gelu", 12)),
    }
    parts = {name: random_network(part, seed) for seed, (name, part) in enumerate(made.items(), 2)}
    parts = {"transformer": tiny_mmdit(), **parts}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    scheduler().save_pretrained(folder / "scheduler")
    for name, padding in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        (folder / name).mkdir()
        (folder / name / "tokenizer_config.json").write_text(json.dumps({"pad_token": padding}))
    (folder / "text_encoder_3").mkdir()
    return parts


def described(folder: Path, prompts: Path) -> Model:
    """The preset that the folder's own files make, with few and short runs."""
    from edadm.config.described.folder import describe_folder

    settings = describe_folder(folder).settings
    settings["conditioning"] |= {"prompts": str(prompts), "empty_tokens": TOKENS}
    settings["sampler"]["steps"] = 3
    settings["trajectories"] = Trajectories(count=3, batch_size=3, feature_rows=3, shards=1).model_dump()
    return Model.model_validate(settings)
