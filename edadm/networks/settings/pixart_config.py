"""The `config.json` of a PixArt transformer of diffusers, and of the T5 that it is told by, as settings."""

from __future__ import annotations

from pathlib import Path

from edadm.networks.settings.parts import T5Encoder
from edadm.networks.settings.reading import (
    QUANTIZED_ALREADY,
    Settings,
    buildable,
    checked,
    refuse,
    understood,
)
from edadm.networks.settings.unet_config import AVERAGING

_KEYS = {  # settings by diffusers' names, with what its constructor takes where the file has none
    "in_channels": ("in_channels", 4),
    "num_attention_heads": ("heads", 16),
    "num_layers": ("blocks", 28),
    "sample_size": ("image_size", 128),
    "patch_size": ("patch", 2),
}
_HEAD = ("attention_head_dim", 72)
_OUT = ("out_channels", 8)
_ATTENDED = ("cross_attention_dim", 1152)
_NEUTRAL: Settings = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_type": "default",
    "norm_type": "ada_norm_single",
    "norm_eps": 1e-6,
}
_READ_BELOW = (_HEAD[0], _OUT[0], _ATTENDED[0], "caption_channels", "interpolation_scale")
_WITHOUT_EFFECT = ("dropout", "norm_num_groups", "upcast_attention", "num_embeds_ada_norm", *AVERAGING)
_REASONS = {
    "activation_fn": "only PixArt's own GELU is built here",
    "attention_bias": "only attention with biases is built here",
    "attention_type": "only attention without GLIGEN's layers is built here",
    "norm_eps": "only norms with the epsilon of PixArt's published networks are built here",
    "quantization_config": QUANTIZED_ALREADY,
}
_TOLD = "use_additional_conditions"
_ELSE = "; use another checkpoint"
_LARGE = (
    128  # height of latents from which diffusers tells the size, and moves positions, if a file is silent
)
_UNSCALED = 64


@understood
def pixart_architecture(config: Settings, where: Path) -> tuple[Settings, list[str]]:
    """The settings of the architecture, and what the file leaves open, which is nothing.

    Args:
        config: content of the file.
        where: the file, for sentences.

    Raises:
        DescriptionError: of a network that is not built here; names the key.
    """
    read = {*_KEYS, *_READ_BELOW, *_WITHOUT_EFFECT, _TOLD}
    rest = {key: value for key, value in config.items() if key not in read}
    if config.get("attention_bias", True) is False:
        raise refuse(where, "attention_bias", False, _REASONS["attention_bias"] + _ELSE)
    checked(where, rest, _NEUTRAL, _REASONS)
    settings: Settings = {"family": "pixart"}
    settings |= {own: config.get(key, default) for key, (own, default) in _KEYS.items()}
    settings["channels"] = settings["heads"] * config.get(*_HEAD)
    if (attended := config.get(*_ATTENDED)) != settings["channels"]:
        reason = (
            f"only that of a text projected to the network's {settings['channels']} channels is built here"
        )
        raise refuse(where, _ATTENDED[0], attended, reason + _ELSE)
    if (captions := config.get("caption_channels")) is None:
        raise refuse(
            where, "caption_channels", None, "only networks that project a text are built here" + _ELSE
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


_T5_KEYS = {  # settings by transformers' names, with what its configuration takes where the file has none
    "d_model": ("channels", 512),
    "d_ff": ("hidden_channels", 2048),
    "num_layers": ("layers", 6),
    "num_heads": ("heads", 8),
    "d_kv": ("head_channels", 64),
    "vocab_size": ("vocabulary", 32128),
    "relative_attention_num_buckets": ("buckets", 32),
    "feed_forward_proj": ("feed_forward", "relu"),
}
_T5_NEUTRAL: Settings = {
    "model_type": "t5",
    "layer_norm_epsilon": 1e-6,
    "relative_attention_max_distance": 128,
    "quantization_config": None,
}
_T5_REASONS = {
    "model_type": "PixArt is told a text by T5's encoder here",
    "layer_norm_epsilon": "only 1e-06 is built here",
    "relative_attention_max_distance": "only 128 is built here",
    "quantization_config": QUANTIZED_ALREADY,
}
_FEED_FORWARDS = ("gated-gelu", "relu")


@understood
def t5_settings(config: Settings, where: Path) -> Settings:
    """Settings of T5's encoder, but for the length of prompts.

    Raises:
        DescriptionError: one that is not built here; names the key.
    """
    checked(where, {k: value for k, value in config.items() if k in _T5_NEUTRAL}, _T5_NEUTRAL, _T5_REASONS)
    settings = {own: config.get(key, default) for key, (own, default) in _T5_KEYS.items()}
    if settings["feed_forward"] not in _FEED_FORWARDS:
        reason = f"only {' and '.join(_FEED_FORWARDS)} are built here"
        raise refuse(where, "feed_forward_proj", settings["feed_forward"], reason + _ELSE)
    T5Encoder.model_validate(settings)
    return settings
