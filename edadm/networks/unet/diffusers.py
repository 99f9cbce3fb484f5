"""Whatever U-Net a diffusers `config.json` describes."""

from __future__ import annotations

from typing import Any, ClassVar

from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from edadm.errors import EdadmError
from edadm.networks.settings.architecture import Architecture
from edadm.networks.unet.base import UNet, UNetFamily

_ERRORS = (ValueError, TypeError, LookupError, ZeroDivisionError, RuntimeError)


class DiffusersUNets(UNetFamily):
    """U-Nets by their own settings; diffusers itself says what it cannot build."""

    name = "diffusers"
    layouts = ("compvis",)  # of Stable Diffusion 2, XL and what is told images
    classes: ClassVar[tuple[type[nn.Module], ...]] = (UNet2DModel, UNet2DConditionModel)

    def added(self, architecture: Architecture) -> dict[str, Any]:
        """Further settings of the network by diffusers' names: what it is told."""
        width = architecture.context_channels
        return {} if width is None else {"cross_attention_dim": width}

    def network(self, architecture: Architecture) -> UNet:
        stated, channels = architecture.diffusers, architecture.in_channels
        assert stated is not None
        settings = {
            name: list(value) if isinstance(value, tuple) else value for name, value in stated.own.items()
        }
        settings |= {
            "sample_size": architecture.image_size,
            "in_channels": channels + architecture.image_channels,
            "out_channels": channels,
        }
        settings |= self.added(architecture)
        try:
            if stated.class_name == "UNet2DModel":
                return UNet2DModel(**settings)
            return UNet2DConditionModel(**settings)
        except _ERRORS as error:
            reason = str(error).splitlines()[0]
            raise EdadmError(f"diffusers builds no {stated.class_name} of these settings: {reason}") from None


FAMILY = DiffusersUNets()
