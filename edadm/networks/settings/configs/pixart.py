"""The `config.json` of a PixArt transformer of diffusers as an architecture."""

from __future__ import annotations

from pathlib import Path

from edadm.networks.settings.configs.transformer import (
    ELSE,
    NEUTRAL,
    WITHOUT_EFFECT,
    reasons_of,
    transformer_settings,
)
from edadm.networks.settings.reading import Settings, buildable, refuse, understood

_KEYS = {  # settings by diffusers' names, with what its constructor takes where the file has none
    "in_channels": ("in_channels", 4),
    "num_attention_heads": ("heads", 16),
    "num_layers": ("blocks", 28),
    "sample_size": ("image_size", 128),
    "patch_size": ("patch", 2),
}
_OUT = ("out_channels", 8)
_ATTENDED = ("cross_attention_dim", 1152)
_NEUTRAL = NEUTRAL | {"attention_type": "default", "norm_type": "ada_norm_single", "norm_eps": 1e-6}
_REASONS = reasons_of("PixArt") | {"attention_type": "only attention without GLIGEN's layers is built here"}
_TOLD = "use_additional_conditions"
_LARGE = 128  # height of latents at which diffusers tells the size if a file is silent
_UNSCALED = 64  # height of latents up to which positions are not scaled if a file is silent


@understood
def pixart_architecture(config: Settings, where: Path) -> tuple[Settings, list[str]]:
    """The settings of the architecture, and what the file leaves open, which is nothing.

    Args:
        config: content of the file.
        where: the file, for sentences.

    Raises:
        DescriptionError: of a network that is not built here; names the key.
    """
    settings = transformer_settings(
        "pixart",
        config,
        where,
        keys=_KEYS,
        head=72,
        read=(
            *(_OUT[0], _ATTENDED[0], "caption_channels", "interpolation_scale", _TOLD),
            *("num_embeds_ada_norm", *WITHOUT_EFFECT),
        ),
        neutral=_NEUTRAL,
        reasons=_REASONS,
    )
    if (attended := config.get(*_ATTENDED)) != settings["channels"]:
        reason = (
            f"only that of a text projected to the network's {settings['channels']} channels is built here"
        )
        raise refuse(where, _ATTENDED[0], attended, reason + ELSE)
    if (captions := config.get("caption_channels")) is None:
        raise refuse(
            where, "caption_channels", None, "only networks that project a text are built here" + ELSE
        )
    settings["context_channels"] = captions
    if (predicted := config.get(*_OUT)) not in (None, settings["in_channels"]):
        settings["out_channels"] = predicted
    side, scale, told = settings["image_size"], config.get("interpolation_scale"), config.get(_TOLD)
    scale = max(side // _UNSCALED, 1) if scale is None else scale
    if scale != 1:
        settings["position_scale"] = scale
    if side == _LARGE if told is None else told:
        settings["size_told"] = True
    return buildable(settings, where), []
