"""The checkpoint layout of PixArt's original code, to diffusers' `PixArtTransformer2DModel`.

Query, key and value of a block are one layer there, and so are key and value of its attention to the text.
Positions follow from sizes; an embedding of no text is of its training alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from edadm.networks.settings.architecture import Architecture

State = dict[str, Tensor]
NO_TEXT = "y_embedder.y_embedding"
_ONCE = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "csize_embedder.mlp.0": "adaln_single.emb.resolution_embedder.linear_1",
    "csize_embedder.mlp.2": "adaln_single.emb.resolution_embedder.linear_2",
    "ar_embedder.mlp.0": "adaln_single.emb.aspect_ratio_embedder.linear_1",
    "ar_embedder.mlp.2": "adaln_single.emb.aspect_ratio_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "final_layer.linear": "proj_out",
}
_TABLES = {"final_layer.scale_shift_table": "scale_shift_table"}
_IN_BLOCK = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": ("attn1.to_out.0",),
    "cross_attn.q_linear": ("attn2.to_q",),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
    "cross_attn.proj": ("attn2.to_out.0",),
    "mlp.fc1": ("ff.net.0.proj",),
    "mlp.fc2": ("ff.net.2",),
}


def to_diffusers(state: State, architecture: Architecture) -> State:
    """A state dict of the original code by diffusers' names.

    Args:
        state: of the original code.
        architecture: has no part in it.

    Raises:
        KeyError: a name that the layout does not have.
    """
    return dict(pair for name, tensor in state.items() if name != NO_TEXT for pair in _renamed(name, tensor))


def _renamed(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What one tensor becomes."""
    module, _, kind = name.rpartition(".")
    if name in _TABLES:
        yield _TABLES[name], tensor
    elif module in _ONCE:
        yield f"{_ONCE[module]}.{kind}", tensor
    else:
        of_blocks, _, inner = module.partition(".")
        block, _, part = inner.partition(".")
        place = f"transformer_blocks.{block}"
        if of_blocks == "blocks" and not part and kind == "scale_shift_table":
            yield f"{place}.{kind}", tensor
        elif of_blocks == "blocks" and part in _IN_BLOCK:
            own = _IN_BLOCK[part]
            for role, piece in zip(own, tensor.chunk(len(own)), strict=True):
                yield f"{place}.{role}.{kind}", piece
        else:
            raise KeyError(f"no tensor of it is named '{name}'")
