"""Class embeddings and text encoders of CompVis' files from the shapes of their tensors."""

from __future__ import annotations

import re
from pathlib import Path

from edadm.conditions.words import CLIPS
from edadm.config.described.conditions import (
    FIRST,
    SECOND,
    USUAL_GUIDANCE,
    about_images,
    about_sizes,
    condition_kind,
)
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.parts import REFINED, TIME_IDS
from edadm.networks.settings.reading import DescriptionError, Settings

Shapes = dict[str, tuple[int, ...]]
_CLIP = re.compile(r"(.*)embeddings\.token_embedding\.weight$")
_OPEN_CLIP = re.compile(r"((?:.*\.)?)(?<!embeddings\.)token_embedding\.weight$")
_HEAD = 64  # channels of a head in CLIP's text encoders
_FACTOR = 8  # of an image's height to its latents'


def condition_of(shapes: Shapes, architecture: Settings, left_open: list[str], path: Path) -> Settings:
    """The settings of what the network is told: a class embedding's, or a CLIP text encoder's, or two.

    Args:
        shapes: of all tensors of the file.
        architecture: of its U-Net; sizes that text encoders decide are mended.
        left_open: sentences on what no tensor says.
        path: of the file, for sentences.

    Raises:
        DescriptionError: text encoders of another width than the context's.
    """
    embedding = shapes.get("cond_stage_model.embedding.weight")
    if embedding is not None:
        left_open.append(
            f"of the {embedding[0]} embeddings the last one is taken for no class, as in cin256-v2"
        )
        left_open.append("conditioning.guidance stands in no file; 3 is that of the published run")
        return {"kind": "classes", "classes": embedding[0] - 1, "guidance": 3.0}
    pooled = next((shape[1] for name, shape in shapes.items() if name.endswith(".text_projection")), None)
    if "added_channels" in architecture and pooled is not None:
        sizes = REFINED + 1 if pooled == architecture["context_channels"] else TIME_IDS
        architecture["size_channels"] = (architecture["added_channels"] - pooled) // sizes
    kind = condition_kind(architecture)
    guidance, usual = USUAL_GUIDANCE[kind]
    left_open.append(
        "conditioning.prompts: set it to your captions (COCO's JSON) or to a text file, a prompt per line"
    )
    left_open.append(f"conditioning.guidance stands in no file; {guidance:g} is usual for {usual}")
    settings: Settings = {"kind": kind, "guidance": guidance, "prompts": "prompts.txt"}
    settings |= about_images(kind, left_open)
    if kind in ("sdxl", "sdxl_refiner"):
        return settings | _pooled(shapes, architecture, left_open, path)
    encoder = _clip(shapes, left_open) or _open_clip(shapes, left_open, 1)
    if encoder is None:
        left_open.append("the file holds no CLIP text encoder: set conditioning.checkpoint to one")
        width = architecture["context_channels"]
        return settings if width == FIRST else settings | {"encoder": {"channels": width, **_guess(width)}}
    _check_width(encoder["channels"], architecture["context_channels"], path)
    return settings | {"encoder": encoder}


def _guess(width: int) -> Settings:
    """Sizes of the text encoder of Stable Diffusion 2 where a context is as wide as its states."""
    if width != 1024:
        return {}
    return {"hidden_channels": 4096, "layers": 23, "heads": 16, "activation": "gelu", "padding": "zero"}


def _check_width(given: int, wanted: int, path: Path) -> None:
    if given != wanted:
        raise DescriptionError(
            f"{path} holds a text encoder of {given} channels and a U-Net with a context of {wanted}; "
            "which belong to different models"
        )


def _pooled(shapes: Shapes, settings: Settings, left_open: list[str], path: Path) -> Settings:
    """The text encoders of Stable Diffusion XL or its refiner, and the sizes that it is told."""
    architecture = Architecture.model_validate(settings)
    first, second = _clip(shapes, left_open), _open_clip(shapes, left_open, 0)
    if second is None or (first is None and not architecture.is_refiner):
        left_open.append("the file lacks text encoders: set conditioning.checkpoint to the model's own file")
        first, second = {"channels": FIRST}, dict(SECOND)
    told: Settings = {} if architecture.is_refiner else {"encoder": first}
    widths = [encoder["channels"] for encoder in (*told.values(), second)]
    _check_width(sum(widths), settings["context_channels"], path)
    told |= {"second_encoder": second, "pooled_channels": architecture.pooled_channels}
    return told | about_sizes(architecture, _FACTOR, left_open)


def _clip(shapes: Shapes, left_open: list[str]) -> Settings | None:
    """A text encoder in transformers' layout."""
    prefix = next((match.group(1) for name in shapes if (match := _CLIP.match(name))), None)
    if prefix is None:
        return None
    vocabulary, channels = shapes[f"{prefix}embeddings.token_embedding.weight"]
    if vocabulary != CLIPS:
        left_open.append(
            f"conditioning.encoder.words: set it to those of the training; the file has {vocabulary} tokens, "
            f"CLIP's vocabulary {CLIPS}"
        )
    return {
        "channels": channels,
        "hidden_channels": shapes[f"{prefix}encoder.layers.0.mlp.fc1.weight"][0],
        "layers": _layers(shapes, prefix + r"encoder\.layers"),
        "heads": _heads(channels, "encoder", left_open),
        "tokens": shapes[f"{prefix}embeddings.position_embedding.weight"][0],
    }


def _open_clip(shapes: Shapes, left_open: list[str], unused: int) -> Settings | None:
    """A text encoder in open_clip's layout, without its last layers that are unused."""
    prefix = next((match.group(1) for name in shapes if (match := _OPEN_CLIP.match(name))), None)
    if prefix is None:
        return None
    channels = shapes[f"{prefix}token_embedding.weight"][1]
    if unused:
        left_open.append(
            "conditioning.encoder.layers is one less than the file has: Stable Diffusion 2 was trained with "
            "the states before the last layer"
        )
    return {
        "channels": channels,
        "hidden_channels": shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0],
        "layers": _layers(shapes, prefix + r"transformer\.resblocks") - unused,
        "heads": _heads(channels, "encoder" if unused else "second_encoder", left_open),
        "tokens": shapes[f"{prefix}positional_embedding"][0],
        "activation": "gelu",
        "padding": "zero",
    }


def _layers(shapes: Shapes, place: str) -> int:
    return len({match.group(1) for name in shapes if (match := re.match(place + r"\.(\d+)\.", name))})


def _heads(channels: int, name: str, left_open: list[str]) -> int:
    heads = max(1, channels // _HEAD)
    if channels not in (768, 1024, 1280):
        left_open.append(
            f"conditioning.{name}.heads stands in no tensor: {heads} is a guess (64 channels a head, as in "
            "CLIP)"
        )
    return heads
