"""What PixArt is told, as settings: a prompt by T5's encoder, and the size of the image in some variants."""

from __future__ import annotations

from pathlib import Path

from edadm.networks.settings.configs.t5 import t5_settings
from edadm.networks.settings.parts import Autoencoder, T5Encoder
from edadm.networks.settings.reading import DescriptionError, Settings, read_json

_GUIDANCE = 4.5
_TOKENS = {"PixArtSigmaPipeline": 300}
_USUAL = 120
_FACTOR = 8  # of an image's height to its latents', where no autoencoder says so
_PIPELINE = "model_index.json"


def describe_t5(path: Path, encoder: Path | None, settings: Settings, left_open: list[str]) -> None:
    """Adds the conditioning of a network that is told a text by T5's encoder.

    Args:
        path: of the pipeline.
        encoder: the `config.json` of its text encoder.
        settings: of the model so far, with the architecture.
        left_open: sentences on what no file decides.

    Raises:
        DescriptionError: the text encoder is another one, or of another width than the network takes.
    """
    told, width = about_t5(settings, left_open), settings["architecture"]["context_channels"]
    index = path / _PIPELINE
    tokens = _TOKENS.get(str(read_json(index).get("_class_name")), _USUAL) if index.is_file() else _USUAL
    left_open.append(
        f"conditioning.t5.tokens stands in no file; {tokens} is diffusers' for this pipeline "
        f"({_USUAL} of PixArt-alpha, {_TOKENS['PixArtSigmaPipeline']} of PixArt-Sigma)"
    )
    if encoder is None:
        left_open.append(
            "there is no text_encoder folder: conditioning.t5 is a guess; give the whole pipeline"
        )
    else:
        told["t5"] = t5_settings(read_json(encoder), encoder)
        if (given := told["t5"]["channels"]) != width:
            raise DescriptionError(
                f"{encoder} says d_model: {given}, and the network's caption_channels is {width}; give a "
                "pipeline whose parts belong together"
            )
    told["t5"] |= {"tokens": tokens}
    settings["conditioning"] = told


def about_t5(settings: Settings, left_open: list[str]) -> Settings:
    """The conditioning by the encoder of T5 version 1.1, XXL, for so many channels.

    Args:
        settings: of the model so far, with the architecture.
        left_open: sentences on what no file decides.
    """
    sizes, parts = settings["architecture"], settings.get("autoencoder")
    left_open.append(
        "conditioning.prompts: set it to your captions (COCO's JSON) or to a text file, a prompt per line"
    )
    left_open.append(f"conditioning.guidance stands in no file; {_GUIDANCE:g} is diffusers' for PixArt")
    usual = T5Encoder.model_validate({"channels": sizes["context_channels"], "tokens": _USUAL})
    told: Settings = {"kind": "t5", "guidance": _GUIDANCE, "prompts": "prompts.txt"}
    told["t5"] = usual.model_dump()
    if sizes.get("size_told"):
        side = sizes["image_size"] * (Autoencoder.model_validate(parts).factor if parts else _FACTOR)
        told["time_ids"] = [side, side]
        left_open.append(f"conditioning.time_ids: images are said to be of {side} pixels")
    return told
