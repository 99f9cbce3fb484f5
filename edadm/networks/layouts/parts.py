"""Which tensors of a checkpoint are a part's, whatever stands before their names."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from edadm.networks.layouts import open_clip
from edadm.networks.weights import CheckpointError
from edadm.networks.weights.known.identify import said_of

State = dict[str, Tensor]

# A tensor that every network of the kind has and no other kind of network has, in each layout.
_ANCHORS = {
    "unet": (
        *("time_embed.0.weight", "time_embedding.linear_1.weight", "temb.dense.0.weight"),
        *("t_embedder.mlp.0.weight", "pos_embed.proj.weight"),
    ),
    "autoencoder": ("decoder.conv_in.weight",),
    "text": ("embeddings.token_embedding.weight",),
    "second_text": ("embeddings.token_embedding.weight",),
    "classes": ("embedding.weight",),
    "t5": ("encoder.block.0.layer.0.SelfAttention.q.weight",),
}
_PREFIXES = {"classes": ("cond_stage_model.", "")}
_BESIDE_TEXT = "visual_projection|vision_model|visual"
_NO_TEXT = r"(?:.*\.)?(?:position_ids|logit_scale|attn_mask)|.*embedding_manager\..*"
_USELESS = {
    "unet": r"model_ema\..*|(?:.*\.)?loss\..*",
    "autoencoder": r"model_ema\..*|loss\..*|scale_factor",
    "text": rf"{_NO_TEXT}|.*\b(?:text_projection|{_BESIDE_TEXT})\b.*",
    "second_text": rf"{_NO_TEXT}|.*\b(?:{_BESIDE_TEXT})\b.*",
    "classes": "(?!)",
    "t5": "(?!)",
}
_NAMES = {
    "unet": "U-Net",
    "autoencoder": "autoencoder",
    "text": "CLIP text encoder",
    "second_text": "CLIP text encoder",
    "classes": "class embedding",
    "t5": "text encoder of T5",
}
_WHOLE = "point to the whole original checkpoint"
_FIXES = {
    "unet": "point `checkpoint` to the model's own file or folder",
    "autoencoder": f"{_WHOLE}, or set autoencoder.checkpoint to the file or folder of a VAE",
    "text": f"{_WHOLE}, or set conditioning.checkpoint to the file or folder of the text encoder",
    "second_text": "point to a whole checkpoint of Stable Diffusion XL, or the folder of its pipeline",
    "classes": _WHOLE,
    "t5": "set conditioning.checkpoint to the file or folder of the text encoder",
}
_TEXTS = ("text", "second_text")
_CONTROL = "control_model."
_TABLE = "scale_shift_table"  # of PixArt's last layer, in diffusers' names
_TEXT_PREFIX = re.compile(r"(?:clip_l\.)?(?:transformer\.)?(?:text_model\.)?$")
_OTHER_ENCODERS = (
    ("text_encoders.", "a transformer with several text encoders (Stable Diffusion 3, FLUX)"),
    ("cond_stage_model.transformer.token_emb.", "the text-to-image LDM, whose text encoder is BERT's"),
    ("transformer.token_emb.", "the text-to-image LDM, whose text encoder is BERT's"),
)


def own_tensors(state: State, kind: str, path: Path) -> State:
    """The tensors of one part by the names they have inside it.

    Args:
        state: all tensors of a checkpoint.
        kind: `unet`, `autoencoder`, `text`, `second_text`, `t5` or `classes`.
        path: for sentences.

    Raises:
        CheckpointError: the checkpoint has no such part, or more than one.
    """
    if kind in _TEXTS:
        _refuse_other_encoders(state, path)
    prefix, useless = _prefix(state, kind, path), re.compile(_USELESS[kind])
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    own = {name: tensor for name, tensor in inside.items() if not useless.fullmatch(name)}
    if kind in _TEXTS and open_clip.TOKENS in own:
        return own  # some of its names have no dot
    return {name: tensor for name, tensor in own.items() if "." in name or name == _TABLE}


def _prefix(state: State, kind: str, path: Path) -> str:
    """What stands before the part's names."""
    anchors = _ANCHORS[kind]
    pairs = ((name, anchor) for name in state for anchor in anchors)
    found = {name.removesuffix(anchor) for name, anchor in pairs if f".{name}".endswith(f".{anchor}")}
    found -= {prefix for prefix in found if prefix.endswith(_CONTROL)}
    if kind in _PREFIXES:
        found &= set(_PREFIXES[kind])
    if kind in _TEXTS:
        found = {_TEXT_PREFIX.sub("", prefix) for prefix in found}
        others = _of_open_clip(state)
        found = others or found if kind == "second_text" else found or others
    if len(found) > 1:
        all_of_them = ", ".join(sorted(found))
        told = f"{path} holds more than one {_NAMES[kind]} ({all_of_them})"
        raise CheckpointError(f"{told}; export one and point to that")
    if not found:
        told = said_of(state, kind if kind in ("unet", "autoencoder") else "condition")
        lacking = f"no tensor '{anchors[0]}', whatever stands before it"
        raise CheckpointError(f"{path} holds no {_NAMES[kind]} ({lacking}); {_FIXES[kind]}{told}")
    return found.pop()


def _of_open_clip(state: State) -> set[str]:
    """What stands before the names of text encoders in open_clip's layout."""
    ends = (name.removesuffix(open_clip.TOKENS) for name in state if name.endswith(open_clip.TOKENS))
    return {prefix for prefix in ends if prefix[-1:] in ("", ".") and not prefix.endswith("embeddings.")}


def _refuse_other_encoders(state: State, path: Path) -> None:
    for prefix, what in _OTHER_ENCODERS:
        if any(name.startswith(prefix) for name in state):
            built = "CLIP text encoders in transformers' or open_clip's layout (Stable Diffusion 1, 2, XL)"
            raise CheckpointError(f"{path} is of {what}; edadm builds {built}")
