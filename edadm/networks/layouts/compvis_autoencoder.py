"""The autoencoder keys of CompVis/latent-diffusion and Stable Diffusion checkpoints, to and from diffusers.

Encoder and decoder name their modules as ermongroup/ddim's U-Net does.
"""

from __future__ import annotations

from torch import Tensor

from edadm.networks.layouts import ermongroup

_OUTSIDE = ("quant_conv", "post_quant_conv", "quantize.embedding")


def to_diffusers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Original state dict (without the training loss) -> diffusers state dict.

    Raises:
        KeyError: a key does not belong to the layout.
    """
    converted = {key: tensor for key, tensor in state.items() if key.rpartition(".")[0] in _OUTSIDE}
    for side in ("encoder", "decoder"):
        own = {
            key.removeprefix(f"{side}."): tensor
            for key, tensor in state.items()
            if key.startswith(f"{side}.")
        }
        converted |= {f"{side}.{key}": tensor for key, tensor in ermongroup.to_diffusers(own).items()}
    if unknown := [key for key in state if not key.startswith((*_OUTSIDE, "encoder.", "decoder."))]:
        raise KeyError(f"'{unknown[0]}' is not a tensor of the CompVis autoencoder layout")
    return converted


def from_diffusers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Diffusers state dict -> original state dict, the inverse of `to_diffusers`."""
    original = {key: tensor for key, tensor in state.items() if key.rpartition(".")[0] in _OUTSIDE}
    levels = sum(
        key.startswith("encoder.down_blocks.") and key.endswith("resnets.0.conv1.weight") for key in state
    )
    for side in ("encoder", "decoder"):
        own = {
            key.removeprefix(f"{side}."): tensor
            for key, tensor in state.items()
            if key.startswith(f"{side}.")
        }
        original |= {
            f"{side}.{key}": tensor for key, tensor in ermongroup.from_diffusers(own, levels).items()
        }
    return original
