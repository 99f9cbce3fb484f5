"""The text encoder keys of open_clip, in single files of Stable Diffusion 2 and XL, to transformers'."""

from __future__ import annotations

import re

from torch import Tensor

TOKENS = "token_embedding.weight"  # a tensor of every text encoder of open_clip
_POSITIONS = "positional_embedding"
_PROJECTION = "text_projection"
_NAMES = {
    TOKENS: "embeddings.token_embedding.weight",
    _POSITIONS: "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)")


def to_transformers(state: dict[str, Tensor], layers: int | None = None) -> dict[str, Tensor]:
    """Tensors of an open_clip text encoder -> those of a CLIP text encoder by transformers' names.

    One matrix holds query, key and value; the projection of the whole text is applied from the right.

    Args:
        state: by the encoder's own names.
        layers: how many are taken; Stable Diffusion 2 was trained with the states before the last one. None
            takes all.

    Raises:
        KeyError: a key does not belong to the layout.
    """
    converted: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key in _NAMES:
            converted[_NAMES[key]] = tensor
        elif key == _PROJECTION:
            converted[f"{_PROJECTION}.weight"] = tensor.T.contiguous()
        elif match := _LAYER.fullmatch(key):
            index, part, kind = match.groups()
            place = f"encoder.layers.{index}"
            if layers is not None and int(index) >= layers:
                continue
            if part == "attn.in_proj":
                for role, rows in zip("qkv", tensor.chunk(3), strict=True):
                    converted[f"{place}.self_attn.{role}_proj.{kind}"] = rows.contiguous()
            elif part in _PARTS:
                converted[f"{place}.{_PARTS[part]}.{kind}"] = tensor
            else:
                raise KeyError(f"'{key}' is not a tensor of an open_clip text encoder")
        else:
            raise KeyError(f"'{key}' is not a tensor of an open_clip text encoder")
    return converted
