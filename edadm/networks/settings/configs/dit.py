"""The `config.json` of a DiT of diffusers as an architecture."""

from __future__ import annotations

from pathlib import Path

from edadm.networks.settings.configs.transformer import (
    NEUTRAL,
    WITHOUT_EFFECT,
    reasons_of,
    transformer_settings,
)
from edadm.networks.settings.reading import Settings, buildable, understood

_KEYS = {  # settings by diffusers' names, with what its constructor takes where the file has none
    "in_channels": ("in_channels", 4),
    "num_attention_heads": ("heads", 16),
    "num_layers": ("blocks", 28),
    "sample_size": ("image_size", 32),
    "patch_size": ("patch", 2),
    "num_embeds_ada_norm": ("classes", 1000),
}
_OUT = "out_channels"
_NEUTRAL = NEUTRAL | {"norm_type": "ada_norm_zero", "norm_eps": 1e-5}


@understood
def dit_architecture(config: Settings, where: Path) -> tuple[Settings, list[str]]:
    """The settings of the architecture, and what the file leaves open, which is nothing.

    Args:
        config: content of the file.
        where: the file, for sentences.

    Raises:
        DescriptionError: of a network that is not built here; names the key.
    """
    settings = transformer_settings(
        "dit",
        config,
        where,
        keys=_KEYS,
        head=72,
        read=(_OUT, *WITHOUT_EFFECT),
        neutral=_NEUTRAL,
        reasons=reasons_of("DiT"),
    )
    if (predicted := config.get(_OUT)) not in (None, settings["in_channels"]):
        settings["out_channels"] = predicted
    return buildable(settings, where), []
