"""A checkpoint in any known layout -> the state dicts of our modules, checked against the preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from edadm.config.networks import UNetArchitecture
from edadm.config.schema import Model
from edadm.config.sources import locate
from edadm.models.autoencoder import LatentDecoder, build_autoencoder
from edadm.models.condition import build_condition_network
from edadm.models.converters import clip, ddim, ldm_autoencoder, ldm_unet
from edadm.models.unet import UNet, build_unet
from edadm.models.weights import CheckpointError, check_fit, read_state

State = dict[str, Tensor]
SCALE = "scale_factor"
_FOLDERS = {"unet": ("unet",), "autoencoder": ("vae", "vqvae"), "condition": ("text_encoder",)}
_PREFIXES = {"unet": "model.diffusion_model.", "autoencoder": "first_stage_model.", "condition": "cond_stage_model."}


def convert_checkpoint(model: Model, part: str = "unet") -> State:
    """One part of the preset's checkpoint as fp32 tensors in the layout of our modules.

    Args:
        model: the preset.
        part: `unet`; `autoencoder`, with a further tensor `scale_factor`; or `condition`, the class embedding or text encoder.

    Raises:
        CheckpointError: absent, damaged, or of another network than the preset's.
    """
    if part not in model.parts:
        raise CheckpointError(f"the preset's model has no {part}; it has {', '.join(model.parts)}")
    path = locate(model.checkpoint)
    if path.is_dir():
        path = next((path / name for name in _FOLDERS[part] if (path / name).is_dir()), path)
    state = read_state(path, model.ema if part == "unet" else "auto")
    with torch.device("meta"):
        expected = _network(model, part).state_dict()
    own = {name: tensor for name, tensor in state.items() if name != SCALE}
    own = own if set(own) == set(expected) else _translated(state, model, part, path)
    check_fit(own, expected, path)
    converted = {name: own[name].float().contiguous() for name in sorted(expected)}
    if part == "autoencoder":
        converted[SCALE] = _scale(model, state, path)
    return converted


def _network(model: Model, part: str) -> nn.Module:
    """The module that holds a part."""
    if part == "unet":
        return build_unet(model.architecture)
    if part == "autoencoder":
        assert model.autoencoder is not None
        return build_autoencoder(model.autoencoder)
    assert model.conditioning is not None and model.architecture.context_channels is not None
    return build_condition_network(model.conditioning, model.architecture.context_channels)


def _translated(state: State, model: Model, part: str, path: Path) -> State:
    """The part's tensors from an original checkpoint."""
    try:
        if model.layout == "ddim":
            return ddim.to_diffusers(state)
        own = _part_of(state, model, part, path)
        if part == "unet":
            return ldm_unet.to_diffusers(own, model.architecture)
        if part == "autoencoder":
            return ldm_autoencoder.to_diffusers({name: tensor for name, tensor in own.items() if not name.startswith("loss.")})
        return clip.to_transformers(own) if model.conditioning and model.conditioning.kind == "text" else own
    except KeyError as error:
        raise CheckpointError(f"{path} is not in the '{model.layout}' layout: {error.args[0]}") from None


def _part_of(state: State, model: Model, part: str, path: Path) -> State:
    """The tensors of a part without its prefix."""
    prefix = _PREFIXES[part]
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not own and part == "unet":
        return state  # a U-Net by itself
    if not own:
        raise CheckpointError(f"{path} holds no {part} (no tensor '{prefix}...'); point to the whole original checkpoint")
    return own


def _scale(model: Model, state: State, path: Path) -> Tensor:
    """By what the network's latents are larger than the autoencoder's."""
    assert model.autoencoder is not None
    if model.autoencoder.scale is not None:
        return torch.tensor(model.autoencoder.scale)
    if SCALE not in state:
        raise CheckpointError(f"{path} holds no tensor '{SCALE}'; set autoencoder.scale to the number the model was trained with")
    return state[SCALE].float().reshape(())


def load_unet(architecture: UNetArchitecture, weights: Path, device: torch.device | str = "cpu") -> UNet:
    """The float network with converted weights, in inference mode, frozen, in the channels-last memory format.

    Raises:
        CheckpointError: absent, damaged, or of another network.
    """
    with torch.device("meta"):
        unet = build_unet(architecture)
    return _filled(unet, read_state(weights), weights).to(device, memory_format=torch.channels_last)


def load_decoder(model: Model, weights: Path, device: torch.device | str = "cpu") -> LatentDecoder:
    """From latents to images, with converted weights.

    Raises:
        CheckpointError: absent, damaged, or of another network.
    """
    with torch.device("meta"):
        autoencoder = _network(model, "autoencoder")
    state = read_state(weights)
    scale = state.pop(SCALE, torch.ones(())).item()
    return LatentDecoder(_filled(autoencoder, state, weights).to(device), scale)


def load_condition_network(model: Model, weights: Path, device: torch.device | str = "cpu") -> Any:
    """The class embedding or text encoder with converted weights.

    Raises:
        CheckpointError: absent, damaged, or of another network.
    """
    return _filled(_network(model, "condition"), read_state(weights), weights).to(device)


def _filled(network: Any, state: State, path: Path) -> Any:
    """The network with the weights of a file, in inference mode and frozen."""
    check_fit(state, network.state_dict(), path)
    network.load_state_dict(state, assign=True)
    if isinstance(network, CLIPTextModel):  # the one buffer that no file holds
        network.embeddings.position_ids = torch.arange(network.config.max_position_embeddings)[None]
    return network.eval().requires_grad_(False)
