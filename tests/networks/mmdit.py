"""Stable Diffusion 3.5 as its publishers describe it, and a tiny pipeline of the same kind."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from edadm.networks.inputs import Rows

from .families import random_network

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
TOKENS = 16
TINY: dict[str, Any] = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 18,  # texts of 8 and 10
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
            "pooled": torch.randn(count, 18, generator=generator),
        }
    )
