"""The `config.json` of Stable Diffusion 3's transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edadm.networks.settings.configs.transformer import transformer_settings
from edadm.networks.settings.reading import (
    QUANTIZED_ALREADY,
    Settings,
    buildable,
    refuse,
    understood,
)

_KEYS = {  # settings by diffusers' names, with what its constructor takes where the file has none
    "in_channels": ("in_channels", 16),
    "num_attention_heads": ("heads", 18),
    "num_layers": ("blocks", 18),
    "sample_size": ("image_size", 128),
    "patch_size": ("patch", 2),
    "joint_attention_dim": ("context_channels", 4096),
    "pooled_projection_dim": ("text_channels", 2048),
    "pos_embed_max_size": ("places", 96),
}
_CAPTION = ("caption_projection_dim", 1152)
_OUT = ("out_channels", 16)
_DUAL = "dual_attention_layers"
_NORM = "qk_norm"
_REASONS = {"quantization_config": QUANTIZED_ALREADY}


@understood
def mmdit_architecture(config: Settings, where: Path) -> tuple[Settings, list[str]]:
    """The settings of the architecture, and what the file leaves open, which is nothing.

    Args:
        config: content of the file.
        where: the file, for sentences.

    Raises:
        DescriptionError: of a network that is not built here; names the key.
    """
    settings = transformer_settings(
        "mmdit",
        config,
        where,
        keys=_KEYS,
        head=64,
        read=(_CAPTION[0], _OUT[0], _DUAL, _NORM),
        neutral={},
        reasons=_REASONS,
    )
    if dual := config.get(_DUAL):
        settings["dual_blocks"] = list(dual)
    if (norm := config.get(_NORM)) is not None:
        if norm != "rms_norm":
            raise refuse(where, _NORM, norm, "only rms_norm is built here; use another checkpoint")
        settings["qk_norm"] = norm
    _refuse_other(where, config, _CAPTION, settings["channels"], "tokens of a text are as wide as patches")
    _refuse_other(where, config, _OUT, settings["in_channels"], "a flow has the channels of the latents")
    return buildable(settings, where), []


def _refuse_other(where: Path, config: Settings, key: tuple[str, int], wanted: Any, reason: str) -> None:
    value = config.get(*key)
    if value not in (None, wanted):
        raise refuse(where, key[0], value, f"{reason} here, {wanted}; use another checkpoint")
