"""A checkpoint in any known layout -> the state dicts of our modules, checked against the preset."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from edadm.config.files.sources import locate, source_of
from edadm.config.schema import Model
from edadm.networks.described.agreement import described_scale, refuse_disagreement
from edadm.networks.families import FAMILIES
from edadm.networks.layouts import (
    clip,
    compvis_autoencoder,
    compvis_unet,
    dit,
    ermongroup,
    open_clip,
    pixart,
    t5,
)
from edadm.networks.layouts.diffusers import are_diffusers, to_current
from edadm.networks.layouts.numbers import as_fp32
from edadm.networks.layouts.parts import own_tensors
from edadm.networks.load import SCALE, State, build_part
from edadm.networks.weights import CheckpointError, check_fit
from edadm.networks.weights.folders import Averaged, find_weights, read_weights
from edadm.networks.weights.known.identify import refuse_other, said_of

_ENCODERS = {"text": "encoder", "second_text": "second_encoder"}  # settings of what is told, by kind
_ENCODING = ("encoder.", "quant_conv.")  # of an autoencoder whose latents a network is given
_OF_PATCHES = {"dit": dit.to_diffusers, "pixart": pixart.to_diffusers}
_TIME = {
    "pixart": "t_block.1.weight",
    "ddim": "temb.dense.0.weight",
    "compvis": "time_embed.0.weight",
    "dit": "t_embedder.mlp.0.weight",
}


def convert_checkpoint(model: Model, part: str = "unet") -> State:
    """One part of the preset's checkpoint as fp32 tensors in the layout of our modules.

    Args:
        model: the preset.
        part: `unet`; `autoencoder`, with a further tensor `scale_factor`; or `condition`, the class embedding
            or text encoder.

    Raises:
        CheckpointError: absent, damaged, of another network than the preset's, or with numbers that no
            network can have.
    """
    if part not in model.parts:
        raise CheckpointError(f"the preset's model has no {part}; it has {', '.join(model.parts)}")
    with torch.device("meta"):
        expected = build_part(model, part).state_dict()
    converted: State = {}
    for component, prefix in _components(model, part).items():
        own = {name.removeprefix(prefix): size for name, size in expected.items() if name.startswith(prefix)}
        found = _converted(model, component, own)
        converted |= {f"{prefix}{name}": tensor for name, tensor in found.items()}
    if part == "condition" and _kind(model, part) == "t5":
        converted[t5.TOKENIZER] = t5.as_tensor(t5.tokenizer_file(locate(source_of(model, part))))
    return converted


def _components(model: Model, part: str) -> dict[str, str]:
    """The networks of a part by their place in a checkpoint, and what precedes their tensors' names."""
    told = model.conditioning
    if part != "condition" or told is None:
        return {part: ""}
    if told.encodes_images:
        return {"second_condition" if told.second_encoder else "condition": "text.", "autoencoder": "image."}
    return {"condition": "first.", "second_condition": "second."} if told.second_encoder else {part: ""}


def _converted(model: Model, part: str, expected: State) -> State:
    """The tensors of one network of the preset's checkpoint."""
    checkpoint = locate(source_of(model, part))
    found = find_weights(checkpoint, part, _wanted(model, part))
    state = read_weights(found.path, _wanted(model, part) if found.averaged is None else "auto")
    refuse_other(state, _role(part), found.path)
    refuse_disagreement(model, part, checkpoint, found.path, state)
    if part == "unet":
        _check_layout(state, model, found.path)
    own = own_tensors(state, _kind(model, part), found.path)
    own = _translated(as_fp32(own, found.path), model, part, found.path)
    if part == "autoencoder" and (expected := _without_scale(expected)) and not _decodes(expected):
        own = {name: tensor for name, tensor in own.items() if name.startswith(_ENCODING)}
    check_fit(own, expected, found.path, state, model.architecture.diffusers is not None)
    converted = {name: own[name] for name in sorted(expected)}
    if part == "autoencoder":
        converted[SCALE] = _scale(model, state, found.path)
    return converted


def _without_scale(expected: State) -> State:
    """The tensors of an autoencoder without the scale of its latents, which is found elsewhere."""
    return {name: tensor for name, tensor in expected.items() if name != SCALE}


def _decodes(expected: State) -> bool:
    """Whether the decoder of an autoencoder is wanted, and not its encoder alone."""
    return any(name.startswith("decoder.") for name in expected)


def _check_layout(state: State, model: Model, path: Path) -> None:
    """Refuses a network whose names are of another original code than the preset says."""
    if any(name.endswith(_TIME[model.layout]) for name in state):
        return
    for layout, anchor in _TIME.items():
        if any(name.endswith(anchor) for name in state):
            raise CheckpointError(
                f"{path} is not in the '{model.layout}' layout but in '{layout}'; set layout: {layout} and "
                "the "
                "`architecture` that `edadm describe` prints for it, or name another file"
            )


def _wanted(model: Model, part: str) -> Averaged:
    """Which weights of a part to take; the setting speaks of the network's."""
    return model.ema if part == "unet" else "auto"


def _role(part: str) -> str:
    """The part of a model that a network is or belongs to."""
    return "condition" if part == "second_condition" else part


def _kind(model: Model, part: str) -> str:
    """A network by what it is."""
    if part == "condition" and model.conditioning:
        if model.conditioning.kind == "sd3":  # whose first text encoder has a projection, too
            return "second_text"
        if model.conditioning.t5 is not None:
            return "t5"
        return "text" if model.conditioning.has_prompts else "classes"
    return "second_text" if part == "second_condition" else part


def _translated(own: State, model: Model, part: str, path: Path) -> State:
    """A part's tensors by the names of our modules."""
    kind = _kind(model, part)
    try:
        if kind in _ENCODERS:
            own = _as_transformers(own, model, _ENCODERS[kind])
            return clip.to_transformers(own) if kind == "text" else clip.to_projected(own)
        if kind == "classes":
            return own
        if kind == "t5":
            return t5.to_encoder(own)
        if are_diffusers(own):
            own = to_current(own)
            return dit.with_positions(own, model.architecture) if part == "unet" else own
        if kind == "autoencoder":
            return compvis_autoencoder.to_diffusers(own)
        if model.layout not in FAMILIES[model.architecture.family].layouts:
            fix = "choose the family that `edadm describe` prints for it"
            raise ValueError(f"its names are an original code's; {fix}")
        if model.layout in _OF_PATCHES:
            renamed = _OF_PATCHES[model.layout](own, model.architecture)
            return dit.with_positions(renamed, model.architecture)
        return (
            ermongroup.to_diffusers(own)
            if model.layout == "ddim"
            else compvis_unet.to_diffusers(own, model.architecture)
        )
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit `architecture`: {error}") from None
    except KeyError as error:
        layout = "transformers" if kind in (*_ENCODERS, "t5") else model.layout
        raise CheckpointError(
            f"{path} is not in the '{layout}' layout: {error.args[0]}{said_of(own, _role(part))}"
        ) from None


def _as_transformers(own: State, model: Model, name: str) -> State:
    """A text encoder's tensors by the names of transformers; a preset may leave out the last layers."""
    if open_clip.TOKENS not in own:
        return own
    encoder = getattr(model.conditioning, name)
    found = open_clip.to_transformers(own, encoder.layers)
    if name == "encoder":
        found.pop("text_projection.weight", None)
    return found


def _scale(model: Model, state: State, path: Path) -> Tensor:
    """By what the network's latents are larger than the autoencoder's."""
    assert model.autoencoder is not None
    if model.autoencoder.scale is not None:
        return torch.tensor(model.autoencoder.scale)
    if (said := described_scale(path)) is not None:
        return torch.tensor(said)
    if SCALE not in state and model.autoencoder.checkpoint:
        path = find_weights(locate(model.checkpoint), "unet").path
        state = read_weights(path)
    if SCALE not in state:
        raise CheckpointError(
            f"{path} holds no tensor '{SCALE}'; set autoencoder.scale to the number the model was trained "
            "with"
        )
    scale = as_fp32({SCALE: state[SCALE]}, path)[SCALE]
    if scale.numel() != 1 or not scale > 0:
        fix = "set autoencoder.scale to the one the model was trained with"
        raise CheckpointError(f"{path}: '{SCALE}' is no positive number; {fix}")
    return scale.reshape(())
