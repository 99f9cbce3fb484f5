"""U-Nets that are given a mask and an image behind the noise: inpainting with Stable Diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.settings.families import FAMILIES
from edadm.networks.unet.diffusers import DiffusersUNets


class Edited(DiffusersUNets):
    """U-Nets whose first convolution takes the noise and, behind it, an image that they are told."""

    classes: ClassVar[tuple[type[nn.Module], ...]] = (UNet2DConditionModel,)

    def takes(self, network: nn.Module) -> bool:
        settings: Any = getattr(network, "config", {})
        return super().takes(network) and self._image(network) == (
            settings["in_channels"] - settings["out_channels"]
        )

    def _image(self, network: nn.Module) -> int:
        settings: Any = network.config
        return FAMILIES[self.name].image(settings["out_channels"])

    def inputs(self, network: nn.Module) -> InputSpec:
        settings: Any = network.config
        size = settings["sample_size"]
        given = {
            "latents": (settings["out_channels"], size, size),
            "image": (self._image(network), size, size),
        }
        return InputSpec({**super().inputs(network).shapes, **given})

    def call(self, network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
        both = torch.cat([rows.latents, rows.tensors["image"]], dim=1)
        told = {name: rows.tensors[name] for name in ("timesteps", "context")}
        return super().call(network, Rows({"latents": both, **told}))

    def concatenations(self, network: nn.Module) -> Mapping[str, tuple[int, ...]]:
        settings: Any = network.config
        noise = settings["out_channels"]
        return {"conv_in": (noise, settings["in_channels"] - noise), **super().concatenations(network)}


class Inpainting(Edited):
    """The image is a mask, 1 where something is to be painted, and the latents of what is left."""

    name = "inpainting"


FAMILY = Inpainting()
