"""Networks of the right size with random weights, where only time and memory matter."""

from __future__ import annotations

from typing import TypeVar

import torch
from diffusers import AutoencoderKL, VQModel
from torch import nn

from edadm.config.schema import Model
from edadm.networks.autoencoder import build_autoencoder
from edadm.networks.build import build_network
from edadm.networks.family import Network

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def randomised(network: Module, device: torch.device | str, seed: int = 0) -> Module:
    """A network from the device `meta` with memory and random values, frozen, in inference mode.

    Matrices have unit gain, which keeps activations finite in half precision, too; norms are one, biases
    zero. Values are drawn on the device, so they differ between kinds of device.
    """
    generator = torch.Generator(device).manual_seed(seed)
    network = network.to_empty(device=device)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return network.eval().requires_grad_(False)


def random_network(model: Model, device: torch.device | str, seed: int = 0) -> Network:
    """The preset's U-Net, in the channels-last memory format."""
    with torch.device("meta"):
        unet = build_network(model.architecture)
    return randomised(unet, device, seed).to(memory_format=torch.channels_last)


def random_autoencoder(model: Model, device: torch.device | str, seed: int = 0) -> VQModel | AutoencoderKL:
    """The preset's autoencoder, which it must have."""
    assert model.autoencoder is not None
    with torch.device("meta"):
        autoencoder = build_autoencoder(model.autoencoder)
    return randomised(autoencoder, device, seed)
