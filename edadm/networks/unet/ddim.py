"""The U-Net of ermongroup/ddim."""

from __future__ import annotations

from diffusers.models.unets.unet_2d import UNet2DModel

from edadm.networks.settings.architecture import Architecture
from edadm.networks.unet.base import UNetFamily, attended_levels, sizes_of


class Ddim(UNetFamily):
    """U-Nets of ermongroup/ddim.

    Stride-2 convolutions are padded at the bottom and right, sines stand before cosines, norms have the
    epsilon 1e-6, attentions one head.
    """

    name = "ddim"
    layouts = ("ddim",)

    def network(self, architecture: Architecture) -> UNet2DModel:
        attends = attended_levels(architecture)
        return UNet2DModel(
            **sizes_of(architecture),
            down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
            up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
            attention_head_dim=None,
            norm_eps=1e-6,
            downsample_padding=0,
            flip_sin_to_cos=False,
            freq_shift=1,
        )


FAMILY = Ddim()
