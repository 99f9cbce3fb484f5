"""A diffusers pipeline, or the folder of one network, as an entry under `models:`."""

from __future__ import annotations

from pathlib import Path

from edadm.config.described.conditions import about_classes, condition_kind, describe_condition, refine
from edadm.config.described.entry import Description
from edadm.config.described.pixart import describe_t5
from edadm.config.described.scheduler import flow_sampler, sampler_settings, schedule_settings
from edadm.networks.settings.configs.network import network_architecture
from edadm.networks.settings.configs.parts import autoencoder_settings
from edadm.networks.settings.reading import (
    TRANSFORMERS,
    UNETS,
    DescriptionError,
    Settings,
    read_json,
    refuse,
)

CONFIG = "config.json"
PIPELINE = "model_index.json"
SCHEDULER = "scheduler_config.json"
FLOWS = ("mmdit",)  # families that predict a flow
_USUAL_FLOW = {"method": "flow_euler", "steps": 28, "spacing": "linspace", "shift": 3.0}
_ZEROS = "force_zeros_for_empty_prompt"
_WITHOUT_T5 = (
    "text_encoder_3 (T5) is left out: the network is told zeros in its place, as diffusers' pipeline tells "
    "it with text_encoder_3=None"
)
PARTS = {
    "unet": ("unet", "transformer"),
    "autoencoder": ("vae", "vqvae"),
    "condition": ("text_encoder",),
    "second_condition": ("text_encoder_2",),
}
_KINDS = {
    "unet": {*UNETS, *TRANSFORMERS},
    "autoencoder": {"AutoencoderKL", "VQModel"},
    "condition": {"clip_text_model", "clip", "t5"},
    "second_condition": {"clip_text_model", "clip"},
}


def has_description(path: Path) -> bool:
    """Whether a checkpoint is a diffusers folder that says what its U-Net is."""
    return path.is_dir() and config_of(path, "unet") is not None


def config_of(path: Path, part: str) -> Path | None:
    """The `config.json` that speaks of a part of a checkpoint.

    It lies in a pipeline's folder for the part, in the folder itself, or beside a file.

    Beside a file lies what it will: there, only one of the part's own kind counts.
    """
    if path.is_dir():
        for name in PARTS[part]:
            if (path / name).is_dir():
                file = path / name / CONFIG
                return file if file.is_file() else None
    folder = path if path.is_dir() else path.parent
    file = folder / CONFIG
    if not file.is_file():
        return None
    return file if path.is_dir() or _KINDS[part] & set(map(str, _kinds(read_json(file)))) else None


def _kinds(config: Settings) -> tuple[object, ...]:
    return config.get("_class_name"), config.get("model_type")


def scheduler_of(path: Path) -> Path | None:
    """The `scheduler_config.json` of a pipeline.

    Looked for in the pipeline, around a network's folder, and beside the weights.
    """
    folder = path if path.is_dir() else path.parent
    candidates = [folder / "scheduler" / SCHEDULER, folder / SCHEDULER]
    if folder.name.startswith(PARTS["unet"]):
        candidates.append(folder.parent / "scheduler" / SCHEDULER)
    return next((file for file in candidates if file.is_file()), None)


def refuse_empty_prompts(path: Path) -> None:
    """Refuses a pipeline of two text encoders in which an image without a condition has an empty prompt.

    Args:
        path: of the pipeline, of its U-Net's folder or of weights in either.

    Raises:
        DescriptionError: its `model_index.json` says so.
    """
    folder = path if path.is_dir() else path.parent
    file = (folder.parent if folder.name.startswith(PARTS["unet"]) else folder) / PIPELINE
    if file.is_file() and not (said := read_json(file).get(_ZEROS, True)):
        reason = "an image without a prompt is told zeros here, not an empty prompt; use another checkpoint"
        raise refuse(file, _ZEROS, said, reason)


def describe_folder(path: Path) -> Description:
    """What a diffusers folder says of itself.

    Raises:
        DescriptionError: it holds no U-Net that is built here; names the setting.
    """
    file = config_of(path, "unet")
    if file is None:
        other = next(
            (name for name in ("transformer", "prior", "controlnet") if (path / name).is_dir()), None
        )
        found = f"a '{other}' and no U-Net" if other else f"no {CONFIG} of a U-Net"
        raise DescriptionError(
            f"{path} holds {found}; give the folder of a pipeline with a U-Net, a DiT or a PixArt, or "
            "the network's own"
        )
    architecture, left_open = network_architecture(read_json(file), file)
    settings: Settings = {"checkpoint": str(path), "architecture": architecture}
    _describe_autoencoder(path, settings, left_open)
    if "context_channels" in architecture:
        encoders = {part: _encoder_of(path, part) for part in ("condition", "second_condition")}
        if (path / "text_encoder_3").is_dir():
            left_open.append(_WITHOUT_T5)
        if condition_kind(architecture) == "t5":
            settings["layout"] = architecture["family"]
            describe_t5(path, encoders["condition"], settings, left_open)
        else:
            describe_condition(path, encoders, settings, left_open)
        if settings["conditioning"]["kind"] == "sdxl":
            refuse_empty_prompts(path)
    if "classes" in architecture:
        settings |= {"layout": "dit", "conditioning": about_classes(architecture["classes"], left_open)}
    _describe_sampling(path, settings, left_open)
    refine(settings, left_open)
    return Description(settings, left_open)


def _encoder_of(path: Path, part: str) -> Path | None:
    """The `config.json` of a pipeline's text encoder, if it has a folder for it."""
    return config_of(path, part) if (path / PARTS[part][0]).is_dir() else None


def _describe_autoencoder(path: Path, settings: Settings, left_open: list[str]) -> None:
    channels = settings["architecture"]["in_channels"]
    file = config_of(path, "autoencoder")
    if file is not None and any((path / name).is_dir() for name in PARTS["autoencoder"]):
        config = read_json(file)
        settings["autoencoder"] = autoencoder_settings(config, file)
        if "scaling_factor" not in config:
            scale = settings["autoencoder"]["scale"]
            left_open.append(
                f"scaling_factor is not set in {file.parent.name}/{file.name}: {scale} is diffusers' default"
            )
        elif config["scaling_factor"] is None:
            left_open.append(
                f"scaling_factor is null in {file.parent.name}/{file.name}: set autoencoder.scale to the "
                "number that the model was trained with"
            )
    elif channels not in (1, 3):
        left_open.append(
            f"there is no vae folder: images of {channels} channels are latents; give the whole pipeline to "
            "decode them"
        )


def _describe_sampling(path: Path, settings: Settings, left_open: list[str]) -> None:
    file = scheduler_of(path)
    if file is None and settings["architecture"]["family"] in FLOWS:
        left_open.append(f"there is no {SCHEDULER}: the sampler's shift is a guess; give the whole pipeline")
        settings |= {"prediction": "flow", "schedule": {"kind": "flow"}, "sampler": dict(_USUAL_FLOW)}
        return
    if file is None:
        left_open.append(
            f"there is no {SCHEDULER}: prediction and schedule are guesses; mend them if the training had "
            "others"
        )
        sizes = settings["architecture"]
        latent = "context_channels" in sizes and "patch" not in sizes  # as of CompVis, whose betas they share
        ends = (
            {"kind": "sqrt_linear", "start": 0.00085, "end": 0.012}
            if latent
            else {"kind": "linear", "start": 1e-4, "end": 0.02}
        )
        settings |= {
            "prediction": "eps",
            "schedule": ends,
            "sampler": {"method": "ddim", "steps": 50, "spacing": "uniform"},
        }
        return
    config = read_json(file)
    settings["schedule"], settings["prediction"] = schedule_settings(config, file)
    if settings["prediction"] == "flow":
        sizes = settings["architecture"]
        tokens = (sizes["image_size"] // sizes.get("patch", 1)) ** 2
        settings["sampler"] = flow_sampler(config, file, tokens, "linspace")
        left_open.append("sampler.steps stands in no file; 28 are usual for Stable Diffusion 3 and 3.5")
        return
    settings["sampler"], sentences = sampler_settings(config, settings["schedule"]["timesteps"])
    left_open += sentences
