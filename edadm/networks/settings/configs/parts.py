"""The `config.json` of a diffusers autoencoder, and of a CLIP text encoder, as settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edadm.networks.settings.parts import Autoencoder, TextEncoder
from edadm.networks.settings.reading import (
    QUANTIZED_ALREADY,
    Settings,
    checked,
    read_json,
    refuse,
    understood,
)

_CHANNELS: Settings = {"AutoencoderKL": 4, "VQModel": 3}
_AUTOENCODER: Settings = {
    "act_fn": ("silu", "swish"),
    "norm_type": "group",
    "force_upcast": True,
    "mid_block_add_attention": True,
}
_AUTOENCODER_READ = (
    "in_channels",
    "out_channels",
    "latent_channels",
    "block_out_channels",
    "layers_per_block",
    "norm_num_groups",
    "num_vq_embeddings",
    "vq_embed_dim",
    "scaling_factor",
    "down_block_types",
    "up_block_types",
    "sample_size",
    "shift_factor",
    "use_quant_conv",
    "use_post_quant_conv",
)
_AUTOENCODER_ON = ("mid_block_add_attention",)
_ONLY_SCALED = "latents are only scaled and shifted as a whole here"
_AUTOENCODER_REASONS = {
    "act_fn": "only silu is built here",
    "norm_type": "only group norms are built here",
    "lookup_from_codebook": "codes are looked up from latents here",
    "latents_mean": _ONLY_SCALED,
    "latents_std": _ONLY_SCALED,
}


@understood
def autoencoder_settings(config: Settings, where: Path) -> Settings:
    """Settings of the autoencoder.

    Raises:
        DescriptionError: one that is not built here; names the key.
    """
    kind = config.get("_class_name")
    if kind not in _CHANNELS:
        raise refuse(
            where,
            "_class_name",
            kind,
            "only AutoencoderKL and VQModel are built here; use another checkpoint",
        )
    checked(
        where,
        {key: value for key, value in config.items() if key not in _AUTOENCODER_READ},
        _AUTOENCODER,
        _AUTOENCODER_REASONS,
    )
    for key in _AUTOENCODER_ON:
        if config.get(key, True) is not True:
            raise refuse(
                where, key, config[key], "autoencoders without it are not built here; use another checkpoint"
            )
    channels = config.get("block_out_channels", [64])
    _check_blocks(config, where, len(channels))
    if any(width % channels[0] for width in channels):
        raise refuse(
            where,
            "block_out_channels",
            channels,
            "each must be a multiple of the first here; use another checkpoint",
        )
    latent = config.get("latent_channels", _CHANNELS[kind])
    if config.get("vq_embed_dim") not in (None, latent):
        raise refuse(
            where,
            "vq_embed_dim",
            config["vq_embed_dim"],
            f"only that of latent_channels ({latent}) is built here",
        )
    pixels = config.get("in_channels", 3)
    if config.get("out_channels", 3) != pixels:
        raise refuse(
            where,
            "out_channels",
            config.get("out_channels", 3),
            f"in_channels is {pixels}; only equal ones are built here",
        )
    settings = {
        "kind": "kl" if kind == "AutoencoderKL" else "vq",
        "latent_channels": latent,
        "image_channels": pixels,
        "channels": channels[0],
        "multipliers": [width // channels[0] for width in channels],
        "blocks_per_level": config.get("layers_per_block", 1),
        "norm_groups": config.get("norm_num_groups", 32),
        "scale": config.get("scaling_factor", 0.18215),
    }
    settings |= _around(config, where)
    if kind == "VQModel":
        settings["codes"] = config.get("num_vq_embeddings", 256)
    Autoencoder.model_validate(settings)
    return settings


def _around(config: Settings, where: Path) -> Settings:
    """What stands between latents and the two networks, where it is not the usual."""
    found: Settings = {}
    if config.get("shift_factor"):
        found["shift"] = float(config["shift_factor"])
    behind, before = (config.get(key, True) for key in ("use_quant_conv", "use_post_quant_conv"))
    if behind is not before:
        reason = f"use_quant_conv is {behind}; only both or neither are built here; use another checkpoint"
        raise refuse(where, "use_post_quant_conv", before, reason)
    if not behind:
        found["quant_conv"] = False
    return found


def _check_blocks(config: Settings, where: Path, levels: int) -> None:
    for key, block in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        blocks = config.get(key, [block])
        if blocks != [block] * levels:
            raise refuse(
                where, key, blocks, f"only {levels} times {block} is built here; use another checkpoint"
            )


# Of transformers' many keys, those that change the last hidden states; which others there are depends on its
# version.
_ENCODER: Settings = {"layer_norm_eps": 1e-5, "vocab_size": 49408, "quantization_config": None}
_ENCODER_REASONS = {
    "quantization_config": QUANTIZED_ALREADY,
    "layer_norm_eps": "only 1e-05 is built here",
    "vocab_size": "prompts are cut into CLIP's 49408 tokens here",
}


@understood
def encoder_settings(config: Settings, where: Path) -> Settings:
    """Settings of the text encoder; its tokenizer's folder, if beside it, says what prompts are padded with.

    Raises:
        DescriptionError: one that is not built here; names the key.
    """
    if "hidden_size" not in config and isinstance(config.get("text_config"), dict):
        config = config["text_config"]
    if (kind := config.get("model_type", "clip_text_model")) not in ("clip_text_model", "clip"):
        raise refuse(
            where, "model_type", kind, "only CLIP's text encoder is built here; use another checkpoint"
        )
    read = {key: value for key, value in config.items() if key in _ENCODER}
    checked(where, read, _ENCODER, _ENCODER_REASONS)
    activation = config.get("hidden_act", "quick_gelu")
    if activation not in ("quick_gelu", "gelu"):
        raise refuse(
            where, "hidden_act", activation, "only quick_gelu and gelu are built here; use another checkpoint"
        )
    settings = {
        "channels": config.get("hidden_size", 512),
        "hidden_channels": config.get("intermediate_size", 2048),
        "layers": config.get("num_hidden_layers", 12),
        "heads": config.get("num_attention_heads", 8),
        "tokens": config.get("max_position_embeddings", 77),
        "activation": activation,
    }
    if (tokenizer := _tokenizer(where.parent) / "tokenizer_config.json").is_file():
        settings["padding"] = _padding(tokenizer)
    TextEncoder.model_validate(settings)
    return settings


@understood
def projected_channels(config: Settings, where: Path) -> int:
    """Channels of a text encoder's projection of the whole text.

    Raises:
        DescriptionError: no number.
    """
    return int(config.get("projection_dim", 512))


def _tokenizer(encoder: Path) -> Path:
    """The folder of the tokenizer that belongs to a text encoder's: `tokenizer_2` to `text_encoder_2`."""
    name = encoder.name
    own = name.replace("text_encoder", "tokenizer") if name.startswith("text_encoder_") else "tokenizer"
    return encoder.parent / own


def _padding(file: Path) -> str:
    """What the tokenizer pads prompts with; Stable Diffusion 2 says "!", the token 0."""
    token: Any = read_json(file).get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    if token in (None, "<|endoftext|>"):
        return "end_of_text"
    if token == "!":
        return "zero"
    raise refuse(
        file,
        "pad_token",
        token,
        'prompts are padded with "<|endoftext|>" or "!" here; use another checkpoint',
    )
