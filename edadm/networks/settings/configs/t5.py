"""The `config.json` of T5's encoder of transformers as settings."""

from __future__ import annotations

from pathlib import Path

from edadm.networks.settings.parts import T5Encoder
from edadm.networks.settings.reading import QUANTIZED_ALREADY, Settings, checked, refuse, understood

_KEYS = {  # settings by transformers' names, with what its configuration takes where the file has none
    "d_model": ("channels", 512),
    "d_ff": ("hidden_channels", 2048),
    "num_layers": ("layers", 6),
    "num_heads": ("heads", 8),
    "d_kv": ("head_channels", 64),
    "vocab_size": ("vocabulary", 32128),
    "relative_attention_num_buckets": ("buckets", 32),
    "feed_forward_proj": ("feed_forward", "relu"),
}
_NEUTRAL: Settings = {
    "model_type": "t5",
    "layer_norm_epsilon": 1e-6,
    "relative_attention_max_distance": 128,
    "quantization_config": None,
}
_REASONS = {
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
    checked(where, {k: value for k, value in config.items() if k in _NEUTRAL}, _NEUTRAL, _REASONS)
    settings = {own: config.get(key, default) for key, (own, default) in _KEYS.items()}
    if settings["feed_forward"] not in _FEED_FORWARDS:
        reason = f"only {' and '.join(_FEED_FORWARDS)} are built here"
        raise refuse(
            where, "feed_forward_proj", settings["feed_forward"], reason + "; use another checkpoint"
        )
    T5Encoder.model_validate(settings)
    return settings
