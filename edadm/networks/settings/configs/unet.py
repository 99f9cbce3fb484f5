"""The `config.json` of a diffusers U-Net as an architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.diffusers_unet import DiffusersUNet
from edadm.networks.settings.families import described_family
from edadm.networks.settings.reading import (
    QUANTIZED_ALREADY,
    TRANSFORMERS,
    UNETS,
    DescriptionError,
    Settings,
    checked,
    refuse,
    understood,
)

# What a constructor takes where the file has no such key, as far as `DiffusersUNet` has no default for both
# classes.
_DEFAULTS: dict[str, Settings] = {
    "UNet2DModel": {
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [224, 448, 672, 896],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    },
    "UNet2DConditionModel": {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "DownBlock2D",
        ],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 1280,
    },
}
# Keys whose other values make networks that are not built here. Null and false switch nothing on.
_NEUTRAL: Settings = {
    "time_embedding_type": "positional",
    "attention_type": "default",
    "addition_embed_type_num_heads": 64,
}
_MIDDLE = {"UNet2DModel": "UNetMidBlock2D", "UNet2DConditionModel": "UNetMidBlock2DCrossAttn"}
# What diffusers' `EMAModel` adds to the configuration of the averaged network that it saves.
AVERAGING = (
    "decay",
    "min_decay",
    "optimization_step",
    "update_after_step",
    "use_ema_warmup",
    "inv_gamma",
    "power",
)
_IRRELEVANT = (
    "sample_size",
    "in_channels",
    "out_channels",
    "cross_attention_dim",
    "dropout",
    "num_train_timesteps",
    *AVERAGING,
)
_CLASSES = "its time embedding adds a class or a size, which no stage here gives to a network"
_REASONS = {
    "class_embed_type": _CLASSES,
    "num_class_embeds": _CLASSES,
    "projection_class_embeddings_input_dim": _CLASSES,
    "addition_embed_type": "such networks (Kandinsky, DeepFloyd IF) take a second condition, which no stage "
    "here gives them",
    "addition_time_embed_dim": "only networks with the addition_embed_type text_time (SDXL) are told sizes",
    "time_cond_proj_dim": "such networks (LCM) are told the guidance scale, which no stage here tells them",
    "encoder_hid_dim": "such networks project their context first, which is not built here",
    "encoder_hid_dim_type": "such networks project their context first, which is not built here",
    "dual_cross_attention": "such networks attend to two conditions, which is not built here",
    "num_attention_heads": "diffusers itself refuses that key and reads attention_head_dim in its place",
    "time_embedding_type": "only positional embeddings of time are built here",
    "attention_type": "gated attention (GLIGEN) is not built here",
    "quantization_config": QUANTIZED_ALREADY,
}


@understood
def unet_architecture(config: Settings, where: Path) -> tuple[Settings, list[str]]:
    """The settings of the architecture, and what the file leaves open.

    Args:
        config: content of the file.
        where: the file, for sentences.

    Raises:
        DescriptionError: of no U-Net, or of one that is not built here; names the key.
    """
    kind = config.get("_class_name")
    if kind not in _DEFAULTS:
        raise refuse(
            where,
            "_class_name",
            kind,
            f"only {', '.join((*UNETS, *TRANSFORMERS[:-1]))} and {TRANSFORMERS[-1]} are built here; use "
            "another checkpoint",
        )
    config = _DEFAULTS[kind] | config
    across = kind == "UNet2DConditionModel"
    entry = described_family(config)
    _check_channels(config, where, entry.image(config["out_channels"]))
    own = {name for name in DiffusersUNet.model_fields if name in config and _belongs(name, kind)}
    read = {*own, *_IRRELEVANT, *entry.marks, *entry.keys}
    rest = {key: value for key, value in config.items() if key not in read}
    if (middle := rest.pop("mid_block_type", _MIDDLE[kind])) != _MIDDLE[kind]:
        raise refuse(
            where, "mid_block_type", middle, f"only {_MIDDLE[kind]} is built here; use another checkpoint"
        )
    if rest.get("time_embedding_type", "") is None:
        raise refuse(
            where, "time_embedding_type", None, _REASONS["time_embedding_type"] + "; use another checkpoint"
        )
    checked(where, rest, _NEUTRAL, _REASONS)
    size, left_open = _image_size(config, where)
    settings: Settings = {"family": entry.name, "image_size": size, "in_channels": config["out_channels"]}
    for key, setting in entry.keys.items():
        if config.get(key) is None:
            mark, value = next(iter(entry.marks.items()))
            raise refuse(where, mark, value, f"such a network needs {key}, which is not set; fetch it again")
        settings[setting] = config[key]
    if across:
        settings["context_channels"] = _context(config, where)
    fields = DiffusersUNet.model_fields
    settings["diffusers"] = {"class_name": kind}
    settings["diffusers"] |= {
        name: config[name]
        for name in fields
        if name in own and config[name] != fields[name].default and not _is_off(config[name], fields[name])
    }
    try:
        Architecture.model_validate(settings)
    except ValidationError as error:
        raise _sentence(error, config, where) from None
    return settings, left_open


def _is_off(value: object, setting: FieldInfo) -> bool:
    """Whether a null stands for the false that a setting has by itself."""
    return value is None and setting.default is False


def _belongs(name: str, kind: str) -> bool:
    """Whether the class has a setting; the other class's are checked like unknown ones."""
    sizes: Any = {
        "class_name": kind,
        "block_out_channels": (32,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
    }
    return name in DiffusersUNet(**sizes).own


def _check_channels(config: Settings, where: Path, image: int) -> None:
    given, predicted = config["in_channels"], config["out_channels"]
    if given == predicted + image:
        return
    what = "an upscaler" if (given, predicted) == (7, 4) else "another kind of network"
    if predicted == 2 * given:
        what = "a network that predicts a variance, too"
    reason = (
        f"in_channels is {given}: that is {what}, and only networks that predict what they are given are "
        "built here"
    )
    raise refuse(where, "out_channels", predicted, reason)


def _image_size(config: Settings, where: Path) -> tuple[int, list[str]]:
    size = config.get("sample_size")
    if isinstance(size, list) and len(set(size)) == 1:
        size = size[0]
    if isinstance(size, list):
        raise refuse(where, "sample_size", size, "images here are square; use another checkpoint")
    if isinstance(size, int) and size > 0:
        return size, []
    default = 32 if config["_class_name"] == "UNet2DModel" else 64
    return default, [
        f"sample_size is not set in {where.name}: set architecture.image_size; {default} is a guess"
    ]


def _context(config: Settings, where: Path) -> Any:
    width = config["cross_attention_dim"]
    if isinstance(width, list) and len(set(width)) == 1:
        return width[0]
    if not isinstance(width, int):
        raise refuse(
            where,
            "cross_attention_dim",
            width,
            "one context of one width is given to all blocks here; use another checkpoint",
        )
    return width


def _sentence(error: ValidationError, config: Settings, where: Path) -> DescriptionError:
    problem = error.errors()[0]
    place = [str(part) for part in problem["loc"] if part != "diffusers"]
    if not place:
        return DescriptionError(
            f"{where} describes no network that can be built: {problem['msg'].removeprefix('Value error, ')}"
        )
    key = place[0]
    reason = (
        f"that is not built here ({problem['msg'][0].lower()}{problem['msg'][1:]}); use another checkpoint"
    )
    return refuse(where, key, config.get(key), reason)
