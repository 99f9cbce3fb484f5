"""A checkpoint in any known layout -> the state dict of our diffusers module, checked against the preset."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch import Tensor

from edadm.config.schema import Model, UNetArchitecture
from edadm.config.sources import locate
from edadm.models.converters import ddim
from edadm.models.unet import build_unet
from edadm.models.weights import CheckpointError, check_fit, read_state

LAYOUTS = {"ddim": ddim.to_diffusers}


def convert_checkpoint(model: Model) -> dict[str, Tensor]:
    """The preset's checkpoint as fp32 tensors in the diffusers layout.

    Raises:
        CheckpointError: absent, damaged, or of another network than the preset's.
    """
    path = locate(model.checkpoint)
    state = read_state(path)
    with torch.device("meta"):
        expected = build_unet(model.architecture).state_dict()
    if set(state) != set(expected):
        try:
            state = LAYOUTS[model.layout](state)
        except KeyError as error:
            raise CheckpointError(f"{path} is not in the '{model.layout}' layout: {error.args[0]}") from None
    check_fit(state, expected, path)
    return {name: state[name].float().contiguous() for name in sorted(state)}


def load_unet(architecture: UNetArchitecture, weights: Path, device: torch.device | str = "cpu") -> UNet2DModel:
    """The float network with converted weights, in inference mode, frozen, in the channels-last memory format.

    Raises:
        CheckpointError: absent, damaged, or of another network.
    """
    with torch.device("meta"):
        unet = build_unet(architecture)
    state = read_state(weights)
    check_fit(state, unet.state_dict(), weights)
    unet.load_state_dict(state, assign=True)
    return unet.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
