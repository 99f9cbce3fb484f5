"""The text encoder keys of Stable Diffusion and of transformers' folders, to and from transformers."""

from __future__ import annotations

import re

from torch import Tensor

from edadm.networks.layouts.diffusers import joined

_FIRST = r"(?:embeddings|encoder|final_layer_norm)\."
_BEFORE = re.compile(rf"(?:clip_l\.)?(?:transformer\.)?(?:text_model\.)?(?={_FIRST})")


_PROJECTION = "text_projection.weight"


def to_projected(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a CLIP text encoder and its projection -> state dict of a `CLIPTextModelWithProjection`.

    Raises:
        KeyError: a key does not belong to the layout.
    """
    inner = to_transformers({name: tensor for name, tensor in state.items() if name != _PROJECTION})
    own = {name: tensor for name, tensor in state.items() if name == _PROJECTION}
    return own | {f"text_model.{name}": tensor for name, tensor in inner.items()}


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a CLIP text encoder, with or without `text_model.` -> state dict of a `CLIPTextModel`.

    Raises:
        KeyError: a key does not belong to the layout.
    """
    for key in state:
        if not _BEFORE.match(key):
            raise KeyError(f"'{key}' is not a tensor of a CLIP text encoder")
    return joined((_BEFORE.sub("", key, count=1), tensor) for key, tensor in state.items())


def from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict of a `CLIPTextModel` -> tensors by Stable Diffusion's names, below `cond_stage_model.`."""
    return {f"transformer.text_model.{_BEFORE.sub('', key, count=1)}": t for key, t in state.items()}
