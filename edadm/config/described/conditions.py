"""What a diffusers pipeline's network is told, as settings: text encoders, and what stands in no file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.configs.parts import encoder_settings, projected_channels
from edadm.networks.settings.families import FAMILIES
from edadm.networks.settings.parts import Autoencoder
from edadm.networks.settings.reading import DescriptionError, Settings, read_json

USUAL_GUIDANCE = {
    "text": (7.5, "Stable Diffusion"),
    "sd3": (4.5, "Stable Diffusion 3.5 Medium"),
    "sdxl": (5.0, "Stable Diffusion XL"),
    "sdxl_refiner": (5.0, "Stable Diffusion XL"),
    "inpainting": (7.5, "Stable Diffusion"),
    "instruct_pix2pix": (7.5, "InstructPix2Pix"),
}
_IMAGE_GUIDANCE = 1.5
_CLASS_GUIDANCE = 4.0
_SCORES = (6.0, 2.5)  # of an image's looks, with a prompt and without
REFINED = 200  # timesteps of 1000 below which SDXL's refiner was trained
IMAGES = {  # sentences on the images that a network is given
    "inpainting": "conditioning.image_folder: set it to a folder of images, of which masks hide a part; in "
    "the order of their paths they belong to the prompts, which say what they show",
    "sdxl_refiner": "conditioning.image_folder: set it to a folder of images to refine; in the order of "
    "their paths they belong to the prompts, which say what they show",
    "instruct_pix2pix": "conditioning.image_folder: set it to a folder of images to change; in the order of "
    "their paths they belong to the prompts, which say what to do",
}
_EMPTY = 256  # tokens of zeros that diffusers' pipeline tells Stable Diffusion 3 in place of T5's
_FACTOR = 8  # of an image's height to its latents', where no autoencoder says so
FIRST = 768  # channels of ViT-L/14
SECOND: Settings = {  # OpenCLIP's ViT-bigG/14
    "channels": 1280,
    "hidden_channels": 5120,
    "layers": 32,
    "heads": 20,
    "activation": "gelu",
    "padding": "zero",
}


def describe_condition(
    path: Path, encoders: Mapping[str, Path | None], settings: Settings, left_open: list[str]
) -> None:
    """Adds the conditioning of a U-Net that attends to a context.

    Args:
        path: of the pipeline, for sentences.
        encoders: the `config.json` of the text encoder, `condition`, and of a second one.
        settings: of the model so far, with the architecture.
        left_open: sentences on what no file decides.

    Raises:
        DescriptionError: text encoders of other widths than the context's.
    """
    kind = condition_kind(settings["architecture"])
    guidance, usual = USUAL_GUIDANCE[kind]
    settings["conditioning"] = {"kind": kind, "guidance": guidance, "prompts": "prompts.txt"}
    left_open.append(
        "conditioning.prompts: set it to your captions (COCO's JSON) or to a text file, a prompt per line"
    )
    left_open.append(f"conditioning.guidance stands in no file; {guidance:g} is usual for {usual}")
    settings["conditioning"] |= about_images(kind, left_open)
    if kind == "sd3":
        _describe_both(path, encoders, settings, left_open)
        return
    if kind in ("sdxl", "sdxl_refiner"):
        _describe_pooled(path, encoders, settings, left_open)
        return
    file = encoders["condition"]
    if file is None:
        left_open.append("there is no text_encoder folder: conditioning is a guess; give the whole pipeline")
        return
    encoder = encoder_settings(read_json(file), file)
    if encoder["channels"] != (width := settings["architecture"]["context_channels"]):
        raise DescriptionError(
            f"{file} says hidden_size: {encoder['channels']}, and the U-Net's cross_attention_dim is "
            f"{width}; give a pipeline whose "
            "parts belong together"
        )
    _pad(encoder, "encoder", left_open)
    settings["conditioning"]["encoder"] = encoder


def about_classes(classes: int, left_open: list[str]) -> Settings:
    """The conditioning of a network that embeds so many classes by itself.

    Args:
        classes: how many.
        left_open: sentences on what no file says.
    """
    left_open.append(
        f"conditioning.guidance stands in no file; {_CLASS_GUIDANCE:g} is what DiT's makers show images with"
    )
    left_open.append(
        "conditioning.images_per_class: of each class so many labels are drawn; raise it for more images"
    )
    return {"kind": "classes", "classes": classes, "guidance": _CLASS_GUIDANCE, "images_per_class": 50}


def refine(settings: Settings, left_open: list[str]) -> None:
    """Lets the sampler of SDXL's refiner begin where that was trained, from images."""
    if settings.get("conditioning", {}).get("kind") != "sdxl_refiner":
        return
    own: Settings = {"method": "ddim", "spacing": "uniform_from_one", "below": REFINED}
    settings["sampler"] = {"steps": 50, **settings.get("sampler", {}), **own}
    left_open.append(
        f"sampler.below: runs begin from images with the noise of timestep {REFINED}, below which the "
        "refiner was trained"
    )


def about_images(kind: str, left_open: list[str]) -> Settings:
    """Settings of the images that a network is given; none for other kinds of conditions."""
    if kind not in IMAGES:
        return {}
    left_open.append(IMAGES[kind])
    settings: Settings = {"image_folder": "images"}
    if kind == "instruct_pix2pix":
        settings["image_guidance"] = _IMAGE_GUIDANCE
        left_open.append(
            f"conditioning.image_guidance stands in no file; {_IMAGE_GUIDANCE:g} is usual for InstructPix2Pix"
        )
    return settings


def condition_kind(settings: Settings) -> str:
    """The kind of condition that a network with a context is told, by its architecture's settings."""
    known = FAMILIES[settings["family"]].conditions
    if "sdxl_refiner" in known:
        return "sdxl_refiner" if Architecture.model_validate(settings).is_refiner else "sdxl"
    return "text" if "text" in known else known[0]


def about_sizes(architecture: Architecture, factor: int, left_open: list[str]) -> Settings:
    """The sizes that SDXL or its refiner is told, and the refiner's scores.

    Args:
        architecture: of the network.
        factor: of an image's height to its latents'.
        left_open: sentences on what no file says.
    """
    side = architecture.image_size * factor
    left_open.append(f"conditioning.time_ids: images are said to be whole and of {side} pixels")
    if architecture.is_refiner:
        left_open.append(
            f"conditioning.scores stand in no file; {_SCORES[0]:g} and {_SCORES[1]:g} are diffusers'"
        )
        return {"time_ids": [side, side, 0, 0], "scores": list(_SCORES)}
    return {"time_ids": [side, side, 0, 0, side, side]}


def _describe_both(
    path: Path, encoders: Mapping[str, Path | None], settings: Settings, left_open: list[str]
) -> None:
    """Adds the two CLIP text encoders of Stable Diffusion 3."""
    told, sizes = settings["conditioning"], settings["architecture"]
    told["empty_tokens"] = _EMPTY
    files = [encoders[part] for part in ("condition", "second_condition")]
    if None in files:
        left_open.append(
            "there are no folders text_encoder and text_encoder_2: conditioning is a guess; give the whole "
            "pipeline"
        )
        told |= {"encoder": {"channels": FIRST}, "second_encoder": dict(SECOND)}
    for name, file in zip(("encoder", "second_encoder"), files, strict=True):
        if file is None:
            continue
        said = read_json(file)
        told[name] = encoder_settings(said, file)
        _pad(told[name], name, left_open)
        if (projected := projected_channels(said, file)) != told[name]["channels"]:
            raise DescriptionError(
                f"{file} says projection_dim: {projected}, and only projections as wide as hidden_size are "
                "built here; use another checkpoint"
            )
    told["pooled_channels"] = told["encoder"]["channels"] + told["second_encoder"]["channels"]
    if told["pooled_channels"] != sizes["text_channels"]:
        raise DescriptionError(
            f"{path}: a pooled text has {told['pooled_channels']} channels, and the transformer's "
            f"pooled_projection_dim is {sizes['text_channels']}; give a whole pipeline whose parts belong "
            "together"
        )


def _describe_pooled(
    path: Path, encoders: Mapping[str, Path | None], settings: Settings, left_open: list[str]
) -> None:
    """Adds the text encoders of SDXL or its refiner, and the sizes of images."""
    architecture = Architecture.model_validate(settings["architecture"])
    first, second = encoders["condition"], encoders["second_condition"]
    told = settings["conditioning"]
    if second is None or (first is None and not architecture.is_refiner):
        folders = "is no folder" if architecture.is_refiner else "are no folders text_encoder and"
        left_open.append(f"there {folders} text_encoder_2: conditioning is a guess; give the whole pipeline")
        told |= {} if architecture.is_refiner else {"encoder": {"channels": FIRST}}
        told |= {"second_encoder": dict(SECOND), "pooled_channels": SECOND["channels"]}
    else:
        said = read_json(second)
        told |= {"encoder": encoder_settings(read_json(first), first)} if first else {}
        told |= {"second_encoder": encoder_settings(said, second)}
        _pad(told["second_encoder"], "second_encoder", left_open)
        told["pooled_channels"] = projected_channels(said, second)
    _check_widths(path, told, architecture)
    parts = settings.get("autoencoder")
    factor = Autoencoder.model_validate(parts).factor if parts else _FACTOR
    told |= about_sizes(architecture, factor, left_open)


def _pad(encoder: Settings, name: str, left_open: list[str]) -> None:
    """Says what pads prompts where no tokenizer does: zeros for OpenCLIP's encoders, known by their GELU."""
    if "padding" in encoder or encoder["activation"] != "gelu":
        return
    encoder["padding"] = SECOND["padding"]
    folder = "tokenizer" if name == "encoder" else "tokenizer_2"
    left_open.append(
        f"conditioning.{name}.padding: there is no {folder}/tokenizer_config.json; {encoder['padding']} is "
        "usual for OpenCLIP's text encoders (Stable Diffusion 2 and XL)"
    )


def _check_widths(path: Path, told: Settings, architecture: Architecture) -> None:
    context = told.get("encoder", {}).get("channels", 0) + told["second_encoder"]["channels"]
    if context != architecture.context_channels:
        raise DescriptionError(
            f"{path}: text encoders give {context} channels together, and the U-Net's cross_attention_dim is "
            f"{architecture.context_channels}; give a whole pipeline whose parts belong together"
        )
    if told["pooled_channels"] != architecture.pooled_channels:
        raise DescriptionError(
            f"{path}: a pooled text has {told['pooled_channels']} channels, and the U-Net adds "
            f"{architecture.pooled_channels}; give a whole pipeline whose parts belong together"
        )
