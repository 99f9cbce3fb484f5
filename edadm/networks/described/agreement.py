"""A preset against what stands in, beside and around its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edadm.config.betas import betas_of, same_betas, schedule_in_words
from edadm.config.described.folder import config_of, refuse_empty_prompts, scheduler_of
from edadm.config.described.scheduler import schedule_settings
from edadm.config.schema import Model, NoiseSchedule
from edadm.networks.build import build_network
from edadm.networks.described.markers import refuse_markers
from edadm.networks.family import Network
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.configs.network import network_architecture
from edadm.networks.settings.configs.parts import autoencoder_settings, encoder_settings
from edadm.networks.settings.configs.t5 import t5_settings
from edadm.networks.settings.parts import Autoencoder, T5Encoder, TextEncoder
from edadm.networks.settings.reading import Settings, read_json
from edadm.networks.weights import CheckpointError

_READ_ELSEWHERE = (
    "center_input_sample",
    "time_embedding_type",
)  # by the network's forward pass, from its configuration
_WITHOUT_EFFECT = ("sample_size", "dropout", "upcast_attention")
_ENCODERS = {"condition": "encoder", "second_condition": "second_encoder"}  # settings, by part
_PLAIN = (bool, int, float, str, tuple, type(None))


def refuse_disagreement(model: Model, part: str, path: Path, weights: Path, state: dict[str, Tensor]) -> None:
    """Refuses weights that say they are another network's, or of another training, than the preset.

    Args:
        model: the preset.
        part: of it, that is being read, or `second_condition`, the second text encoder of two.
        path: the checkpoint, as the preset names it.
        weights: the file in it.
        state: its tensors.

    Raises:
        CheckpointError: names the setting, both values and what to do.
        DescriptionError: of a network that is not built here at all.
    """
    folder = weights.parent if path.is_dir() else weights
    file = config_of(folder, part)
    if part == "unet":
        if file is not None:
            _check_network(model.architecture, read_json(file), file, path)
        if (file := scheduler_of(folder)) is not None:
            _check_training(model, *schedule_settings(read_json(file), file), file, path)
        if model.conditioning is not None and model.conditioning.kind == "sdxl":
            refuse_empty_prompts(folder)
        refuse_markers(model, weights, state)
    elif file is not None and part == "autoencoder":
        assert model.autoencoder is not None
        said = Autoencoder.model_validate(autoencoder_settings(read_json(file), file))
        one_is_null = None in (said.scale, model.autoencoder.scale)
        skipped = ("checkpoint", "scale") if one_is_null else ("checkpoint",)
        _check_fields("autoencoder", said, model.autoencoder, file, path, skipped)
    elif file is not None and model.conditioning is not None and model.conditioning.has_prompts:
        if model.conditioning.t5 is not None:
            t5 = T5Encoder.model_validate(t5_settings(read_json(file), file))
            _check_fields("conditioning.t5", t5, model.conditioning.t5, file, path, ("tokens",))
            return
        name = _ENCODERS[part]
        encoder = TextEncoder.model_validate(encoder_settings(read_json(file), file))
        unsaid = tuple({"padding"} - encoder.model_fields_set)  # without a tokenizer beside it
        given = getattr(model.conditioning, name)
        _check_fields(f"conditioning.{name}", encoder, given, file, path, unsaid)


def described_scale(weights: Path) -> float | None:
    """The scale of a network's latents, where an autoencoder's configuration beside its weights says it."""
    file = config_of(weights, "autoencoder")
    said = None if file is None else autoencoder_settings(read_json(file), file)["scale"]
    return None if said is None else float(said)


def _check_network(architecture: Architecture, config: Settings, file: Path, path: Path) -> None:
    settings, _ = network_architecture(config, file)
    said = Architecture.model_validate(settings)
    if said == architecture:
        return
    with torch.device("meta"):
        theirs, ours = build_network(said), build_network(architecture)
    if differing := _differences(theirs, ours):
        raise CheckpointError(
            f"{file} says {'; '.join(differing[:3])}; run `edadm describe {path}`, which prints the entry of "
            "the network that it says"
        )


def _differences(theirs: Network, ours: Network) -> list[str]:
    """Half sentences on the settings by which two networks compute something else.

    Empty where they compute the same.
    """
    if type(theirs) is not type(ours):
        return [f"_class_name: {type(theirs).__name__}, and the preset's network is a {type(ours).__name__}"]
    elsewhere = [key for key in _READ_ELSEWHERE if theirs.config.get(key) != ours.config.get(key)]
    if not elsewhere and _structure(theirs) == _structure(ours):
        return []
    keys = [key for key in theirs.config if not key.startswith("_") and key not in _WITHOUT_EFFECT]
    differing = [key for key in keys if _meant(theirs, key) != _meant(ours, key)]
    values = {key: (_plain(theirs.config[key]), _plain(ours.config.get(key))) for key in differing}
    found = [
        f"{key}: {said} (the preset's network has {given})"
        for key, (said, given) in values.items()
        if said != given  # where both are null, another key gives what they mean
    ]
    return found or ["another number of heads than the preset's network has"]


def _meant(network: Network, key: str) -> Any:
    """The value of a key, or what takes its place where it is null."""
    value = network.config.get(key)
    if (
        key == "attn_norm_num_groups"
        and value is None
        and network.config.get("resnet_time_scale_shift") == "default"
    ):
        value = network.config["norm_num_groups"]
    return _plain(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _structure(network: nn.Module) -> dict[str, Any]:
    """The kind of every module and the numbers it computes with, by name.

    Dropout does nothing in inference.
    """
    found = {}
    for name, module in network.named_modules():
        if name and not isinstance(module, nn.Dropout):
            own = {
                key: value
                for key, value in vars(module).items()
                if isinstance(value, _PLAIN) and not key.startswith("_")
            }
            found[name] = (type(module).__name__, {key: own[key] for key in sorted(set(own) - _BESIDES)})
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return {"modules": found, "shapes": shapes}


_BESIDES = {
    "training",
    "gradient_checkpointing",
    "operands_scaled",
    "upcast_attention",
    "upcast_softmax",
    "dropout",
}


def _check_training(model: Model, schedule: Settings, prediction: str, file: Path, path: Path) -> None:
    describe = f"run `edadm describe {path}`, which prints what the file says"
    if prediction != model.prediction:
        raise CheckpointError(
            f"{file} says that the network predicts {prediction}, the preset {model.prediction}; {describe}"
        )
    said = NoiseSchedule.model_validate(schedule)
    if not same_betas(betas_of(said), betas_of(model.schedule)):
        ours = schedule_in_words(model.schedule)
        raise CheckpointError(
            f"{file} says betas are {schedule_in_words(said)}, the preset's {ours}; {describe}"
        )


def _check_fields(
    where: str,
    said: Autoencoder | TextEncoder | T5Encoder,
    given: Autoencoder | TextEncoder | T5Encoder,
    file: Path,
    path: Path,
    skipped: tuple[str, ...] = (),
) -> None:
    for name, value in said:
        if name in skipped or (name == "codes" and getattr(said, "kind", "") == "kl"):
            continue
        if value != getattr(given, name):
            raise CheckpointError(
                f"{file} says {where}.{name}: {_plain(value)}, the preset {_plain(getattr(given, name))}; "
                "set that, or run "
                f"`edadm describe {path}`"
            )
