"""What the `config.json` of diffusers' transformers of patches say in the same words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edadm.networks.settings.configs.unet import AVERAGING
from edadm.networks.settings.reading import QUANTIZED_ALREADY, Settings, checked, refuse

HEAD = "attention_head_dim"
ELSE = "; use another checkpoint"
# Of DiT's and PixArt's blocks, which are one class in diffusers.
NEUTRAL: Settings = {"activation_fn": "gelu-approximate", "attention_bias": True}
WITHOUT_EFFECT = ("dropout", "norm_num_groups", "upcast_attention", *AVERAGING)
_BIAS = "attention_bias"


def reasons_of(name: str) -> dict[str, str]:
    """Why other settings of such blocks are refused in a network of this name."""
    return {
        "activation_fn": f"only {name}'s own GELU is built here",
        _BIAS: "only attention with biases is built here",
        "norm_eps": f"only norms with the epsilon of {name}'s published networks are built here",
        "quantization_config": QUANTIZED_ALREADY,
    }


def transformer_settings(
    family: str,
    config: Settings,
    where: Path,
    *,
    keys: Mapping[str, tuple[str, Any]],
    head: int,
    read: Collection[str],
    neutral: Settings,
    reasons: Mapping[str, str],
) -> Settings:
    """The settings that have a name of their own, and the channels, of heads and their width.

    Args:
        family: of the network.
        config: content of the file.
        where: the file, for sentences.
        keys: settings by diffusers' names, with what its constructor takes where the file has none.
        head: channels of a head where the file says none.
        read: what the caller reads, or what has no effect.
        neutral, reasons: of `checked`, for everything else.

    Raises:
        DescriptionError: something else is not neutral; names the key.
    """
    rest = {key: value for key, value in config.items() if key not in {*keys, HEAD, *read}}
    if _BIAS in neutral and rest.get(_BIAS) is False:
        raise refuse(where, _BIAS, False, reasons[_BIAS] + ELSE)
    checked(where, rest, neutral, reasons)
    settings = {"family": family} | {own: config.get(key, default) for key, (own, default) in keys.items()}
    return settings | {"channels": settings["heads"] * config.get(HEAD, head)}
