"""The modules of a model with the weights that `convert-checkpoint` wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.conditions.condition import build_condition_network
from edadm.config.schema import Model
from edadm.networks.build import build_network
from edadm.networks.family import Network
from edadm.networks.layouts.numbers import as_fp32
from edadm.networks.layouts.t5 import TOKENIZER
from edadm.networks.settings.architecture import Architecture
from edadm.networks.weights import check_fit, read_state

State = dict[str, Tensor]
SCALE = "scale_factor"  # of latents, a tensor beside those of the autoencoder


def build_part(model: Model, part: str) -> nn.Module:
    """The module that holds a part of the model: `unet`, `autoencoder` or `condition`."""
    if part == "unet":
        return build_network(model.architecture)
    if part == "autoencoder":
        from edadm.networks.autoencoder import build_autoencoder

        assert model.autoencoder is not None
        return build_autoencoder(model.autoencoder)
    channels = model.architecture.context_channels
    assert model.conditioning is not None and channels is not None
    if not model.conditioning.encodes_images:
        return build_condition_network(model.conditioning, channels)
    autoencoder = build_part(model, "autoencoder")
    return build_condition_network(model.conditioning, channels, autoencoder, model.architecture.image_size)


def load_network(architecture: Architecture, weights: Path, device: torch.device | str = "cpu") -> Network:
    """The float network with converted weights, frozen, in inference mode, in the channels-last format.

    Raises:
        CheckpointError: absent, damaged, or of another network.
    """
    with torch.device("meta"):
        unet = build_network(architecture)
    return _filled(unet, read_state(weights), weights).to(device, memory_format=torch.channels_last)


def load_decoder(
    model: Model, weights: Path, device: torch.device | str = "cpu"
) -> Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n 3 i j"]]:
    """From latents to images, with converted weights.

    Raises:
        CheckpointError: absent, damaged, or of another network.
    """
    from edadm.networks.autoencoder import LatentDecoder

    with torch.device("meta"):
        autoencoder = build_part(model, "autoencoder")
    state = read_state(weights)
    scale = state.pop(SCALE, torch.ones(())).item()
    assert model.autoencoder is not None
    return LatentDecoder(_filled(autoencoder, state, weights).to(device), scale, model.autoencoder.shift)


def load_condition_network(model: Model, weights: Path, device: torch.device | str = "cpu") -> Any:
    """The class embedding or text encoder with converted weights, T5's with its tokenizer.

    Raises:
        CheckpointError: absent, damaged, or of another network.
    """
    state = read_state(weights)
    tokenizer = state.pop(TOKENIZER, None)
    network = _filled(build_part(model, "condition"), state, weights)
    if tokenizer is not None:
        network.tokenizer = bytes(tokenizer.tolist())
    for name, buffer in network.named_buffers():
        if name.endswith("position_ids"):  # the one buffer of text encoders, which no file holds
            owner, _, own = name.rpartition(".")
            setattr(network.get_submodule(owner), own, torch.arange(buffer.shape[1])[None])
    return network.to(device)


def _filled(network: Any, state: State, path: Path) -> Any:
    """The network with the weights of a file, in inference mode and frozen."""
    state = as_fp32(state, path)
    check_fit(state, network.state_dict(), path)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)
