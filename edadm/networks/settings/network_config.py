"""The `config.json` of any network of diffusers that is built here as an architecture."""

from __future__ import annotations

from pathlib import Path

from edadm.networks.settings.mmdit_config import mmdit_architecture
from edadm.networks.settings.pixart_config import pixart_architecture
from edadm.networks.settings.reading import (
    QUANTIZED_ALREADY,
    TRANSFORMERS,
    Settings,
    buildable,
    checked,
    refuse,
    understood,
)
from edadm.networks.settings.unet_config import AVERAGING, unet_architecture

_KEYS = {  # settings by diffusers' names, with what its constructor takes where the file has none
    "in_channels": ("in_channels", 4),
    "num_attention_heads": ("heads", 16),
    "num_layers": ("blocks", 28),
    "sample_size": ("image_size", 32),
    "patch_size": ("patch", 2),
    "num_embeds_ada_norm": ("classes", 1000),
}
_HEAD = "attention_head_dim"
_WIDTH_OF_A_HEAD = 72
_NEUTRAL: Settings = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_type": "ada_norm_zero",
    "norm_eps": 1e-5,
}
_WITHOUT_EFFECT = (
    "dropout",
    "norm_num_groups",
    "upcast_attention",
    "out_channels",
    *AVERAGING,
)
_REASONS = {
    "activation_fn": "only DiT's own GELU is built here",
    "attention_bias": "only attention with biases is built here",
    "norm_eps": "only norms with the epsilon of DiT's published networks are built here",
    "quantization_config": QUANTIZED_ALREADY,
}


def network_architecture(config: Settings, where: Path) -> tuple[Settings, list[str]]:
    """The settings of the architecture, and what the file leaves open.

    Args:
        config: content of the file.
        where: the file, for sentences.

    Raises:
        DescriptionError: of a network that is not built here; names the key.
    """
    own = (dit_architecture, pixart_architecture, mmdit_architecture)
    readers = dict(zip(TRANSFORMERS, own, strict=True))
    return readers.get(str(config.get("_class_name")), unet_architecture)(config, where)


@understood
def dit_architecture(config: Settings, where: Path) -> tuple[Settings, list[str]]:
    """The settings of the architecture, and what the file leaves open, which is nothing.

    Args:
        config: content of the file.
        where: the file, for sentences.

    Raises:
        DescriptionError: of a network that is not built here; names the key.
    """
    read = {*_KEYS, _HEAD, *_WITHOUT_EFFECT}
    rest = {key: value for key, value in config.items() if key not in read}
    if config.get("attention_bias", True) is False:
        raise refuse(where, "attention_bias", False, _REASONS["attention_bias"] + "; use another checkpoint")
    checked(where, rest, _NEUTRAL, _REASONS)
    settings: Settings = {"family": "dit"}
    settings |= {own: config.get(key, default) for key, (own, default) in _KEYS.items()}
    settings["channels"] = settings["heads"] * config.get(_HEAD, _WIDTH_OF_A_HEAD)
    predicted = config.get("out_channels")
    if predicted not in (None, settings["in_channels"]):
        settings["out_channels"] = predicted
    return buildable(settings, where), []
