"""A tiny DiT: as diffusers saves a pipeline, and in the original layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel
from torch import nn

from edadm.config.schema import Model, Trajectories
from edadm.networks.inputs import Rows

from .families import random_network

# transformer/config.json of huggingface.co/facebook/DiT-XL-2-256
PUBLISHED: dict[str, Any] = {
    "_class_name": "DiTTransformer2DModel",
    "_diffusers_version": "0.12.0.dev0",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "dropout": 0.0,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_zero",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 32,
    "upcast_attention": False,
}
CLASSES = 10
TINY: dict[str, Any] = {
    "sample_size": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "out_channels": 8,
    "num_embeds_ada_norm": CLASSES,
}


def tiny_dit(seed: int = 1) -> nn.Module:
    """The transformer with random weights, each block's embeddings copies of the first one's, as published."""
    network = random_network(DiTTransformer2DModel(**TINY), seed)
    first = network.transformer_blocks[0].norm1.emb.state_dict()
    for block in network.transformer_blocks:
        block.norm1.emb.load_state_dict(first)
    return network


def write_pipeline(folder: Path) -> nn.Module:
    """The pipeline's folder; returns its transformer."""
    network = tiny_dit()
    network.save_pretrained(folder / "transformer")
    sides = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    vae = AutoencoderKL(latent_channels=4, block_out_channels=[8, 16], norm_num_groups=4, **sides)
    random_network(vae, 2).save_pretrained(folder / "vae")
    DDIMScheduler(clip_sample=False).save_pretrained(folder / "scheduler")
    index = {"transformer": DiTTransformer2DModel, "vae": AutoencoderKL, "scheduler": DDIMScheduler}
    entries = {name: ["diffusers", kind.__name__] for name, kind in index.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DiTPipeline"} | entries))
    return network


def described(folder: Path, **changes: Any) -> Model:
    """The preset that the folder's own files make, with few and short runs."""
    from edadm.config.described.folder import describe_folder

    settings = describe_folder(folder).settings
    settings["sampler"] |= {"steps": 3}
    settings["trajectories"] = Trajectories(count=3, batch_size=3, feature_rows=3, shards=1).model_dump()
    return Model.model_validate(settings | changes)


def rows_of(count: int) -> Rows:
    """Inputs of the tiny transformer; the last row is told no class."""
    latents = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    labels = [*range(count - 1), CLASSES]
    timesteps = torch.linspace(20, 900, count).long()
    return Rows({"latents": latents, "timesteps": timesteps, "labels": torch.tensor(labels)[:, None]})
