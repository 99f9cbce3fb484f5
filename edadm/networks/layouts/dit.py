"""The checkpoint layout of DiT's original code, to diffusers' `DiTTransformer2DModel`.

There one pair of embeddings, of timestep and class, is given to all blocks; in diffusers each block has a
copy. Query, key and value are one layer there. Positions follow from sizes; no file of diffusers holds them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from torch import Tensor

from edadm.networks.settings.architecture import Architecture

State = dict[str, Tensor]
POSITIONS = "pos_embed.pos_embed"
_ONCE = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
_OF_EACH = {
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}
_IN_BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}


def to_diffusers(state: State, architecture: Architecture) -> State:
    """A state dict of the original code by diffusers' names.

    Raises:
        KeyError: a name that the layout does not have.
    """
    found = (pair for name, tensor in state.items() for pair in _renamed(name, tensor, architecture))
    return dict(found)


def _renamed(name: str, tensor: Tensor, architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
    """What one tensor becomes."""
    module, _, kind = name.rpartition(".")
    if module in _ONCE:
        yield f"{_ONCE[module]}.{kind}", tensor
    elif module in _OF_EACH:
        for index in range(architecture.blocks or 0):
            yield f"transformer_blocks.{index}.{_OF_EACH[module]}.{kind}", tensor.clone()
    else:
        of_blocks, _, inner = module.partition(".")
        block, _, part = inner.partition(".")
        place = f"transformer_blocks.{block}"
        if of_blocks != "blocks" or (part != "attn.qkv" and part not in _IN_BLOCK):
            raise KeyError(f"no tensor of it is named '{name}'")
        if part == "attn.qkv":
            for role, third in zip(("to_q", "to_k", "to_v"), tensor.chunk(3), strict=True):
                yield f"{place}.attn1.{role}.{kind}", third
        else:
            yield f"{place}.{_IN_BLOCK[part]}.{kind}", tensor


def with_positions(state: State, architecture: Architecture) -> State:
    """The same with the embedding of each patch's place, which diffusers computes from the sizes."""
    if POSITIONS in state or architecture.patch is None:
        return state
    side, scale = architecture.image_size // architecture.patch, architecture.position_scale or 1.0
    with torch.device("cpu"):
        places = get_2d_sincos_pos_embed(
            architecture.channels, side, base_size=side, interpolation_scale=scale, output_type="pt"
        )
    return state | {POSITIONS: places.float()[None]}
