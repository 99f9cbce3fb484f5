"""The U-Net of CompVis' code that attends to a context: class-conditional LDM, Stable Diffusion."""

from __future__ import annotations

from typing import ClassVar

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from edadm.networks.settings.architecture import Architecture
from edadm.networks.unet.base import UNetFamily, attended_levels, sizes_of


class Conditional(UNetFamily):
    """U-Nets of CompVis with SpatialTransformers of depth 1 over a context.

    A diffusers configuration takes the number of heads, under the name of their channels.
    """

    name = "transformer"
    classes: ClassVar[tuple[type[nn.Module], ...]] = (UNet2DConditionModel,)
    layouts = ("compvis",)

    def network(self, architecture: Architecture) -> UNet2DConditionModel:
        attends = attended_levels(architecture)
        heads: int | list[int] | None = architecture.heads
        if architecture.head_channels:
            heads = [channels // architecture.head_channels for channels in architecture.level_channels]
        return UNet2DConditionModel(
            **sizes_of(architecture),
            down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
            up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
            cross_attention_dim=architecture.context_channels,
            attention_head_dim=heads,
            norm_eps=1e-5,
        )


FAMILY = Conditional()
