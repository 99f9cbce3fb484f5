"""The text encoder keys of Stable Diffusion checkpoints, to transformers."""

from __future__ import annotations

from torch import Tensor

_PREFIX = "transformer.text_model."


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of `cond_stage_model` -> state dict of a `CLIPTextModel` (transformers 5: without `text_model.`).

    Raises:
        KeyError: a key does not belong to the layout.
    """
    for key in state:
        if not key.startswith(_PREFIX):
            raise KeyError(f"'{key}' is not a tensor of a CLIP text encoder")
    named = {key.removeprefix(_PREFIX): tensor for key, tensor in state.items()}
    named.pop("embeddings.position_ids", None)  # counts 0, 1, 2, ...
    return named
