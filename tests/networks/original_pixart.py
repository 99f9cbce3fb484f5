"""A state of PixArt's original layout, from diffusers' names by the table of diffusers' own conversion script."""

from __future__ import annotations

import torch
from torch import Tensor

_AROUND = {  # scripts/convert_pixart_alpha_to_diffusers.py of diffusers
    "x_embedder.proj": "pos_embed.proj",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "csize_embedder.mlp.0": "adaln_single.emb.resolution_embedder.linear_1",
    "csize_embedder.mlp.2": "adaln_single.emb.resolution_embedder.linear_2",
    "ar_embedder.mlp.0": "adaln_single.emb.aspect_ratio_embedder.linear_1",
    "ar_embedder.mlp.2": "adaln_single.emb.aspect_ratio_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "final_layer.linear": "proj_out",
}


def original_state(state: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The tensors as the makers' file has them, with what only its training needs."""
    found = {
        "final_layer.scale_shift_table": state["scale_shift_table"],
        "y_embedder.y_embedding": torch.ones(12, 16),
    }
    found["pos_embed"] = torch.zeros(1, 16, 48)
    for kind in ("weight", "bias"):
        found |= {
            f"{own}.{kind}": state[f"{n}.{kind}"] for own, n in _AROUND.items() if f"{n}.{kind}" in state
        }
        for block in range(blocks):
            own, theirs = f"blocks.{block}", f"transformer_blocks.{block}"
            attention = {name: state[f"{theirs}.{name}.{kind}"] for name in _LAYERS}
            found[f"{own}.attn.qkv.{kind}"] = torch.cat([attention[f"attn1.to_{role}"] for role in "qkv"])
            found[f"{own}.cross_attn.kv_linear.{kind}"] = torch.cat(
                [attention[f"attn2.to_{role}"] for role in "kv"]
            )
            found[f"{own}.attn.proj.{kind}"] = attention["attn1.to_out.0"]
            found[f"{own}.cross_attn.q_linear.{kind}"] = attention["attn2.to_q"]
            found[f"{own}.cross_attn.proj.{kind}"] = attention["attn2.to_out.0"]
            found[f"{own}.mlp.fc1.{kind}"] = attention["ff.net.0.proj"]
            found[f"{own}.mlp.fc2.{kind}"] = attention["ff.net.2"]
            found[f"{own}.scale_shift_table"] = state[f"{theirs}.scale_shift_table"]
    return found


_LAYERS = (
    *(f"attn1.to_{role}" for role in ("q", "k", "v", "out.0")),
    *(f"attn2.to_{role}" for role in ("q", "k", "v", "out.0")),
    *("ff.net.0.proj", "ff.net.2"),
)
